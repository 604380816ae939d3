"""The order in which a text is read for training: windows, without replacement, resumable.

N tokens have N - 1 targets: each token except the first is predicted once per epoch. An epoch cuts
them into windows from a random phase. The whole windows come first, in a new order each epoch, and
then the two pieces at the edges of the text:

    tokens    0 1 2 3 4 5 6 7 8 9 10 11 12
    targets     [1 2|3 4 5 6|7 8 9 10|11 12]      window 4, phase 2
    order            7 8 9 10, 3 4 5 6, then 1 2, then 11 12

So a position in the stream is two whole numbers, the epoch and the number of its targets read so
far, and takes no memory, however long the text: the order of the windows is a function, computed on
demand. Since the position counts targets, the number of windows in a batch may change at any time,
except in sequential order, whose lanes they are.

A shorter context reads the windows in pieces: the first piece of each window, then the second of
each, and so on, since neighbours say less than strangers, in a batch and in what an optimizer
remembers. So in the epoch in which the length changes some targets are read twice, and as many not
at all.

Shapes:  B windows · T context length
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from folio.console import amount
from folio.errors import UserError
from folio.tokenizers.base import TokenIds
from folio.tokens.goldfish import dropped
from folio.tokens.ignored import IGNORED
from folio.tokens.permutation import permute

AHEAD = 1024
"""Windows that are looked up at once, since one takes as long as many."""


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """In which order the training text is read."""

    order: Literal["shuffled", "sequential"] = "shuffled"
    """`shuffled`: a new permutation of the windows each epoch. `sequential`: each row of a batch
    continues where it ended in the batch before, as in truncated backpropagation through time."""


@dataclass(frozen=True)
class StreamPosition:
    """A position in a stream."""

    epoch: int = 0
    position: int = 0
    """Targets of this epoch that have been read."""
    kept: StreamPosition | None = None
    """The position in a second text, if one is mixed in (mixture.py)."""

    @classmethod
    def of(cls, record: dict[str, Any]) -> StreamPosition:
        """Invert `dataclasses.asdict`."""
        kept = record.get("kept")
        return cls(record["epoch"], record["position"], cls.of(kept) if kept else None)


class Batch(NamedTuple):
    """B windows of token ids with their targets."""

    inputs: NDArray[np.int64]
    """(B, T) token ids."""
    targets: NDArray[np.int64]
    """(B, T) the token that follows each input, or IGNORED past the end of a short window."""

    @property
    def n_targets(self) -> int:
        """Number of targets that count in the loss."""
        return int((self.targets != IGNORED).sum())

    def split(self, n_windows: int) -> list[Batch]:
        """Split into batches of `n_windows` windows; the last may have fewer."""
        firsts = range(0, len(self.inputs), n_windows)
        return [Batch(*(rows[i : i + n_windows] for rows in self)) for i in firsts]


class TokenStream:
    """An endless series of batches; `place` is the position and can be set."""

    share = 0.0
    """Share of targets from another text; see mixture.py."""

    def __init__(
        self,
        tokens: TokenIds,
        window: int,
        seed: int,
        config: StreamConfig,
        lanes: int = 1,
        goldfish: tuple[int, int] = (0, 0),
        loss_mask: NDArray[np.uint8] | None = None,
    ) -> None:
        """
        Args:
            tokens: (N,) token ids; may be mapped from a file.
            window: targets of a whole window, which is the longest context that can be asked for.
            seed: chooses the order of each epoch.
            config: shuffled or sequential.
            lanes: rows of a batch that continue from one batch to the next, if sequential.
            goldfish: one target in how many is IGNORED, and how many tokens before it decide; 0 for
                none.
            loss_mask: (N,) 1 for each token that counts; others are IGNORED as targets. None if all
                count.

        Raises:
            UserError: the text is shorter than one window.
        """
        if len(tokens) <= window:
            shorter = max(1, len(tokens) // 4)
            fits = f", or --model.context-length {shorter}" if shorter < len(tokens) else ""
            raise UserError(
                f"The training text has {amount(len(tokens), 'token')}, fewer than one window of "
                f"model.context_length = {window} and the token after it. Give more text{fits}."
            )
        self.tokens = tokens.view(np.ndarray)  # indexing a memmap itself is slow
        self.window, self.seed, self.config, self.lanes = window, seed, config, lanes
        self.goldfish, self.loss_mask = goldfish, loss_mask
        self.place = StreamPosition()
        self._epoch = _Epoch(self, 0)

    @property
    def targets_per_epoch(self) -> int:
        """N - 1: every token except the first."""
        return len(self.tokens) - 1

    @property
    def n_given(self) -> int:
        """Targets read since the beginning."""
        return self.place.epoch * self.targets_per_epoch + self.place.position

    def next_batch(self, n_windows: int, context_length: int | None = None) -> Batch:
        """Read the next batch.

        Args:
            n_windows: B, rows of the batch.
            context_length: T, at most the window of the stream, which is the default.

        Returns:
            (B, T) inputs and targets; near the end of an epoch a row may be short, and
            the rows after it belong to the next epoch.
        """
        width = context_length or self.window
        assert 0 < width <= self.window
        starts = np.empty(n_windows, dtype=np.int64)
        lengths = np.empty(n_windows, dtype=np.int64)
        row = 0
        while row < n_windows:
            if self._epoch.number != self.place.epoch:
                self._epoch = _Epoch(self, self.place.epoch)
            row = self._fill(self._epoch, row, width, starts, lengths)
        columns = np.arange(width)
        where = np.minimum(starts[:, None] + columns, self.targets_per_epoch - 1)  # (B, T)
        inputs = self.tokens[where].astype(np.int64)
        targets = self.tokens[where + 1].astype(np.int64)
        if lengths.min() < width:
            targets[columns >= lengths[:, None]] = IGNORED
        if self.loss_mask is not None:
            targets[self.loss_mask[where + 1] == 0] = IGNORED
        if self.goldfish[0]:
            targets[dropped(self.tokens, where + 1, *self.goldfish)] = IGNORED
        return Batch(inputs, targets)

    def _fill(
        self,
        epoch: _Epoch,
        row: int,
        width: int,
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> int:
        """Fill rows from one epoch until it or the batch ends; returns the next row."""
        position, first_row = self.place.position, row
        slots: list[int] = []
        while row < len(starts) and position < self.targets_per_epoch:
            slot, offset, left = epoch.find(position, width)
            slots.append(slot)
            starts[row], lengths[row] = offset, min(left, width)
            position += int(lengths[row])
            row += 1
        starts[first_row:row] += epoch.starts(np.array(slots, dtype=np.int64))
        ended = position == self.targets_per_epoch
        self.place = (
            StreamPosition(epoch.number + 1) if ended else StreamPosition(epoch.number, position)
        )
        return row


class _Epoch:
    """The windows of one epoch in their order: whole ones, then the head, then the tail."""

    def __init__(self, stream: TokenStream, number: int) -> None:
        self.number, self.stream, window = number, stream, stream.window
        shuffled = stream.config.order == "shuffled"
        self.phase = int(permute(np.array([0]), window, stream.seed, number, 0)[0])
        self.phase = self.phase if shuffled else 0
        self.n_whole = (stream.targets_per_epoch - self.phase) // window
        self.place_of = self._shuffle if shuffled else self._interleave
        self.group = max(self.n_whole, 1) if shuffled else stream.lanes
        """Windows whose pieces alternate."""
        self._first_slot, self._starts = 0, np.empty(0, dtype=np.int64)

    def find(self, position: int, width: int) -> tuple[int, int, int]:
        """Slot in the order, offset in its window, and targets left in that piece of `width`."""
        window, whole = self.stream.window, self.n_whole * self.stream.window
        if position < whole:
            group, position = divmod(position, self.group * window)
            n = min(self.group, self.n_whole - group * self.group)  # of the last group
            begin = position // (n * width) * width  # of the piece, in its window
            length = min(width, window - begin)  # of the last piece
            row, offset = divmod(position - n * begin, length)
            return group * self.group + row, begin + offset, length - offset
        if position < whole + self.phase:
            return self.n_whole, position - whole, whole + self.phase - position
        offset = position - whole - self.phase
        return self.n_whole + 1, offset, self.stream.targets_per_epoch - position

    def starts(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index of the first input of each slot's window: (n,) -> (n,)."""
        first, last = int(slots.min()), int(slots.max())
        if not self._first_slot <= first <= last < self._first_slot + len(self._starts):
            end = min(max(first + AHEAD, last + 1), self.n_whole + 2)
            self._first_slot, self._starts = first, self._find_starts(np.arange(first, end))
        return self._starts[slots - self._first_slot]

    def _find_starts(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        tail = self.phase + self.n_whole * self.stream.window
        starts = np.where(slots == self.n_whole, 0, tail)
        whole = slots < self.n_whole
        starts[whole] = self.phase + self.place_of(slots[whole]) * self.stream.window
        return starts

    def _shuffle(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        return permute(slots, self.n_whole, self.stream.seed, self.number, 1)

    def _interleave(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        # Lane i reads the windows i * steps ... (i + 1) * steps - 1; windows that do not fill a
        # last row of lanes follow in order.
        lanes = self.stream.lanes
        steps = self.n_whole // lanes
        interleaved = slots % lanes * steps + slots // lanes
        return np.where(slots < steps * lanes, interleaved, slots)
