"""Where the tensors of a tape lie: those that are never needed at the same time share a place.

While a step is written down its memory is taken and given back as always; what is noted is the
piece of memory that each tensor lies in, and so from which call to which a piece is needed.
Afterwards all pieces are laid into one row, each into the first gap that is free for as long, so
that the row is hardly longer than what is needed at once. Compilers do the same: Pisarchyk and Lee
2020, https://arxiv.org/abs/2001.03288. What is put side by side in the end is made there.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves, tree_map

LINE_BYTES = 64
"""What a processor fetches at once; pieces begin where that does."""


class Call(NamedTuple):
    """An operation or a kernel; tensors and arrays stand in place, or as the `Place` of each."""

    function: Callable[..., Any]
    args: Any
    named: dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a tensor or an array lies, and how it is read."""

    piece: int
    offset: int
    """From the beginning of the piece, in bytes."""
    dtype: Any
    """torch's or numpy's."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In numbers for torch, in bytes for numpy."""


class Life(NamedTuple):
    """What a piece needs."""

    first: int
    """Call."""
    last: int
    n_bytes: int


class Home(NamedTuple):
    """Where a piece has its memory."""

    row: Tensor
    """Contiguous."""
    offset: int
    """In bytes."""


class Pieces:
    """The memory that was taken while a tape was written."""

    def __init__(self) -> None:
        self.n_bytes: list[int] = []
        """Of each piece."""
        self._starts: list[int] = []  # addresses of those that may be in use, ascending
        self._known: list[tuple[int, StorageWeakRef]] = []  # the piece at each of them

    def add(self, x: Tensor) -> None:
        """A new tensor's memory becomes a piece."""
        storage = x.untyped_storage()
        start, end = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        # What lay there before is not in use any more.
        first = bisect_right(self._starts, start)
        if first and self._end(first - 1) > start:
            first -= 1
        last = first
        while last < len(self._starts) and self._starts[last] < end:
            last += 1
        self._starts[first:last] = [start]
        self._known[first:last] = [(len(self.n_bytes), StorageWeakRef(storage))]
        self.n_bytes.append(storage.nbytes())

    def place(self, x: Any) -> Any:
        """The `Place` of a tensor or array in one of the pieces; all else as it is."""
        if not isinstance(x, (Tensor, np.ndarray)):
            return x
        address = x.data_ptr() if isinstance(x, Tensor) else x.ctypes.data
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._end(at) or self._known[at][1].expired():
            return x
        strides = x.stride() if isinstance(x, Tensor) else x.strides
        piece = self._known[at][0]
        return Place(piece, address - self._starts[at], x.dtype, tuple(x.shape), strides)

    def lives(self, calls: Sequence[Call], found: Any) -> dict[int, Life]:
        """Of each piece that is used, by first calls; that of the outcome lasts to the end."""
        lives: dict[int, Life] = {}
        for number, arguments in enumerate([*(call[1:] for call in calls), found]):
            for place in tree_leaves(arguments):
                if isinstance(place, Place):
                    first = lives[place.piece].first if place.piece in lives else number
                    lives[place.piece] = Life(first, number, self.n_bytes[place.piece])
        return lives

    def _end(self, at: int) -> int:
        return self._starts[at] + self.n_bytes[self._known[at][0]]


def lay_out(lives: Sequence[Life]) -> tuple[list[int], int]:
    """Offsets in one row for lives in order of their first calls, and the length of the row."""
    offsets: list[int] = []
    length = 0
    held: list[tuple[int, int, int]] = []  # begin, end and last call of those in use, by begin
    for life in lives:
        held = [other for other in held if other[2] >= life.first]
        begin = 0
        for other_begin, other_end, _ in held:
            if begin + life.n_bytes <= other_begin:
                break
            begin = max(begin, -(-other_end // LINE_BYTES) * LINE_BYTES)
        offsets.append(begin)
        held = sorted([*held, (begin, begin + life.n_bytes, life.last)])
        length = max(length, begin + life.n_bytes)
    return offsets, length


def gathered(calls: Sequence[Call], pieces: Pieces) -> tuple[Sequence[Call], dict[int, Home]]:
    """Where tensors are put side by side into a row in the end, they can be made there.

    Returns:
        The calls, with copies of what must be copied in place of the last one, and the homes in
        that row of the pieces that need none.
    """
    if not calls or calls[-1].function is not torch.ops.aten.cat.out:
        return calls, {}
    parts, row = calls[-1].args[0], calls[-1].named["out"]
    if isinstance(row, Place) or row.stride() != (1,):
        return calls, {}
    copies, homes, end = [], {}, 0
    for part in parts:
        length = math.prod(part.shape)
        place = row[end : end + length]
        if (
            isinstance(part, Place)
            and part.piece not in homes
            and (part.dtype, part.strides) == (row.dtype, (1,))
            and place.nbytes == pieces.n_bytes[part.piece]
        ):
            homes[part.piece] = Home(row, end * row.itemsize)
        else:
            copies.append(Call(torch.ops.aten.copy_.default, (place, part), {}))
        end += length
    return [*calls[:-1], *copies], homes


def put(x: Any, homes: dict[int, Home]) -> Any:
    """Tensors and arrays in place of all `Place`s in a tree."""

    def put_one(x: Any) -> Any:
        if not isinstance(x, Place):
            return x
        row, offset = homes[x.piece]
        offset += x.offset
        if isinstance(x.dtype, torch.dtype):
            empty = torch.empty(0, dtype=x.dtype)
            first = row.storage_offset() * row.itemsize + offset
            storage = row.untyped_storage()
            return empty.set_(storage, first // x.dtype.itemsize, x.shape, x.strides)
        return np.ndarray(x.shape, x.dtype, row.view(torch.uint8).numpy(), offset, x.strides)

    return tree_map(put_one, x)
