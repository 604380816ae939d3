"""The cross-entropy of a model on a text, by lists of windows.

A protocol is a list of windows. Each window is read once, and scores all its targets or all but the
first few, which then only serve as context:

    exact      windows of T side by side: each token after the first is a target once
    strided    windows that overlap by half: each target has at least T / 2 tokens before it

Shapes:  B windows · T context length · V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from folio.accelerator import ran_out_of_memory, release, to_device
from folio.console import amount
from folio.errors import UserError
from folio.evaluation.uncertainty import standard_error
from folio.tokenizers.base import TokenIds, Tokenizer

BATCH_TOKENS = 4096
"""Tokens in one forward pass; more is no faster and takes more memory."""
ACCELERATOR_BATCH_TOKENS = 65_536
"""The same on a GPU, which a few thousand positions of a small model do not fill. Where they do not
fit, there are half as many, and so on."""
READ_TOGETHER = 64
"""Forward passes on a GPU after which their results are read, for which the processor waits."""
FLOAT32_LOGITS = 1 << 28
"""Logits that a GPU has in float32 at once, and their log-softmax: 1 GB each."""
CACHED_LOGITS = 1 << 22
"""The same on a processor: 16 MB, which its cache holds. A text of 8,192 ids is read twice as fast
as with those of 4,096 tokens at once (docs/experiments.md, "Windows that begin short")."""


class Window(NamedTuple):
    """The inputs start ... start + length - 1; the targets after the first `skip` are counted."""

    start: int
    length: int
    skip: int = 0


@dataclass(frozen=True)
class Score:
    """Cross-entropy summed over the targets of a text."""

    protocol: str
    targets: int
    nats: float
    """Cross-entropy summed over all targets, in nats."""
    squares: float
    """Sum of the squared cross-entropy of each target."""
    counts: Any
    """(V,) how often each id was a target."""
    error_over_texts: float | None = None
    """Standard error of nats_per_token, if it is known which tokens belong together; see
    uncertainty.py."""

    def __add__(self, other: Score) -> Score:
        """Add the scores of two parts of a text."""
        return Score(
            self.protocol,
            self.targets + other.targets,
            self.nats + other.nats,
            self.squares + other.squares,
            self.counts + other.counts,
        )

    @classmethod
    def of(
        cls,
        nll: NDArray[np.floating],
        targets: TokenIds,
        protocol: str,
        vocab_size: int,
        blocks: NDArray[np.int64] | None = None,
    ) -> Self:
        """Sum the targets up.

        Args:
            nll: (n,) the nats of each target.
            targets: (n,) their ids.
            protocol: the name of their list of windows.
            vocab_size: V of the model.
            blocks: (n,) which targets belong together, for the standard error.
        """
        nats = nll.astype(np.float64)
        counts = np.bincount(targets, minlength=vocab_size)
        error = None if blocks is None else standard_error(nats, blocks)
        return cls(protocol, len(nll), float(nats.sum()), float(nats @ nats), counts, error)

    @property
    def nats_per_token(self) -> float:
        """The cross-entropy loss in nats per token."""
        return self.nats / self.targets

    @property
    def standard_error(self) -> float:
        """Standard error of nats_per_token: over texts if those are known, otherwise as if targets
        were independent, which is a lower bound.
        """
        if self.error_over_texts is not None:
            return self.error_over_texts
        variance = self.squares / self.targets - self.nats_per_token**2
        return math.sqrt(max(variance, 0.0) / self.targets)

    @property
    def perplexity(self) -> float:
        """The exponential of the loss: among how many equally likely tokens the model hesitates."""
        return perplexity(self.nats_per_token)

    def record(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Return the numbers as `folio evaluate --json` prints them.

        A text with unknown characters, or a lossy tokenizer, has no bits per byte, since the model
        never predicted those bytes; the record has the share of unknown tokens instead.
        """
        record: dict[str, Any] = {
            "protocol": self.protocol,
            "targets": self.targets,
            "nats_per_token": self.nats_per_token,
            "standard_error": self.standard_error,
            "perplexity": self.perplexity,
        }
        counts = self.counts[: tokenizer.vocab_size]
        n_unknown = 0 if tokenizer.unknown is None else int(counts[tokenizer.unknown])
        if tokenizer.lossless and not n_unknown:
            if characters := int(counts @ tokenizer.characters_per_token):
                record["nats_per_character"] = self.nats / characters
                record["bits_per_character"] = self.nats / characters / math.log(2)
            if n_bytes := int(counts @ tokenizer.bytes_per_token):  # none in a special token
                record["bits_per_byte"] = bits_per_byte(self.nats, n_bytes)
        else:
            record["unknown_share"] = n_unknown / self.targets
        return record


def perplexity(nats_per_token: float) -> float:
    """The exponential of the loss; infinite where that overflows, as after a divergence.

    >>> perplexity(0.0), perplexity(1e6)
    (1.0, inf)
    """
    return math.exp(nats_per_token) if nats_per_token < 700 else math.inf


def bits_per_byte(total_nats: float, total_bytes: int) -> float:
    """Compression achieved by a model; comparable across tokenizers.

    Args:
        total_nats: cross-entropy summed over the counted targets, in nats.
        total_bytes: UTF-8 bytes of those targets; special tokens count as 0.

    Returns:
        Bits per byte. Lower is better; 8.0 is no compression at all.

    >>> bits_per_byte(total_nats=math.log(2) * 24, total_bytes=8)
    3.0
    """
    return total_nats / math.log(2) / total_bytes


def exact_windows(n_tokens: int, context_length: int) -> list[Window]:
    """Windows side by side, the short last one included.

    >>> exact_windows(n_tokens=8, context_length=3)
    [Window(start=0, length=3, skip=0), Window(start=3, length=3, skip=0), \
Window(start=6, length=1, skip=0)]
    """
    n_targets = n_tokens - 1
    return [
        Window(start, min(context_length, n_targets - start))
        for start in range(0, n_targets, context_length)
    ]


def strided_windows(n_tokens: int, context_length: int) -> list[Window]:
    """Windows that overlap by at least half; only the first one scores all of its targets.

    >>> strided_windows(n_tokens=8, context_length=4)
    [Window(start=0, length=4, skip=0), Window(start=2, length=4, skip=2), \
Window(start=4, length=3, skip=2)]
    """
    n_targets = n_tokens - 1
    context_length = min(context_length, n_targets)
    overlap = context_length // 2  # the first target after it has one more token before it
    stride = context_length - overlap
    windows = [Window(0, context_length)]
    end = context_length
    while end < n_targets:
        new = min(stride, n_targets - end)
        windows.append(Window(end - overlap, overlap + new, skip=overlap))
        end += new
    return windows


def both_protocols(
    n_tokens: int, context_length: int, most: float = math.inf
) -> tuple[list[Window], list[Window]]:
    """The exact and the strided windows of a text; of a text that takes more than `most` tokens to
    read, some of the exact ones, evenly spaced, and the strided ones whose targets begin there.

    >>> both_protocols(n_tokens=17, context_length=4, most=16)
    ([Window(start=0, length=4, skip=0), Window(start=12, length=4, skip=0)], \
[Window(start=0, length=4, skip=0), Window(start=10, length=4, skip=2), \
Window(start=12, length=4, skip=2)])
    """
    strided = strided_windows(n_tokens, context_length)
    if 2 * n_tokens <= most:  # each target is read twice, in windows that overlap by half
        return exact_windows(n_tokens, context_length), strided
    exact = sampled_windows(n_tokens, context_length, int(most / 2))
    chosen = {window.start // context_length for window in exact}
    return exact, [w for w in strided if (w.start + w.skip) // context_length in chosen]


def read_once(*protocols: list[Window]) -> list[Window]:
    """The windows of several protocols, each once and whole: half of the strided ones are exact.

    >>> read_once(exact_windows(8, 4), strided_windows(8, 4))
    [Window(start=0, length=4, skip=0), Window(start=2, length=4, skip=0), \
Window(start=4, length=3, skip=0)]
    """
    spans = {(window.start, window.length) for windows in protocols for window in windows}
    return [Window(*span) for span in sorted(spans)]


def nll_of(
    windows: list[Window], read: list[Window], nll: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(n,) nats of the targets of some windows, taken from those of all windows that were read."""
    ends = np.cumsum([window.length for window in read]).tolist()
    end_of = {(window.start, window.length): end for window, end in zip(read, ends)}
    spans = ((end_of[w.start, w.length], w.length - w.skip) for w in windows)
    return np.concatenate([nll[end - n : end] for end, n in spans])


def sampled_windows(n_tokens: int, context_length: int, n_targets: int) -> list[Window]:
    """An evenly spaced selection of the exact windows with about `n_targets` targets, all of them
    with 0; always the same.

    >>> sampled_windows(n_tokens=9, context_length=2, n_targets=4)
    [Window(start=0, length=2, skip=0), Window(start=6, length=2, skip=0)]
    """
    starts = range(0, n_tokens - 1, context_length)  # a long text has millions of windows
    wanted = max(1, round(n_targets / context_length))
    if n_targets and wanted < len(starts):
        starts = [starts[i] for i in np.linspace(0, len(starts) - 1, wanted).astype(int)]
    return [Window(start, min(context_length, n_tokens - 1 - start)) for start in starts]


def places_of(windows: list[Window]) -> NDArray[np.int64]:
    """(n,) positions of the targets of some windows in their text.

    >>> places_of([Window(0, 2), Window(6, 2, skip=1)])
    array([1, 2, 8])
    """
    spans = [np.arange(w.start + w.skip + 1, w.start + w.length + 1) for w in windows]
    return np.concatenate(spans)


def spread(n_tokens: int, windows: list[Window], nats: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N - 1,) the nats of each target of a text, nan where no window reads it.

    >>> spread(5, [Window(2, 2)], np.array([0.5, 0.25], np.float32)).tolist()
    [nan, nan, 0.5, 0.25]
    """
    each = np.full(n_tokens - 1, np.nan, np.float32)
    each[places_of(windows) - 1] = nats
    return each


def excerpt(tokens: TokenIds, windows: list[Window]) -> tuple[TokenIds, list[Window]]:
    """Only the tokens that some windows read, and the windows with positions in these tokens.

    >>> excerpt(np.arange(10), [Window(7, 2)])
    (array([7, 8, 9]), [Window(start=0, length=2, skip=0)])
    """
    spans = [tokens[w.start : w.start + w.length + 1] for w in windows]
    starts = np.cumsum([0, *map(len, spans[:-1])]).tolist()
    return np.concatenate(spans), [w._replace(start=s) for w, s in zip(windows, starts)]


def score(
    model: nn.Module,
    tokens: TokenIds,
    windows: list[Window],
    protocol: str,
    nll: list[NDArray[np.float32]] | None = None,
) -> Score:
    """Read the windows without dropout and sum the cross-entropy.

    Args:
        model: maps (B, T) ids to (B, T, V) logits; its mode is restored afterwards.
        tokens: (N,) token ids.
        windows: what to read.
        protocol: the name of this list of windows.
        nll: receives the nats of each target, in the order of the windows, as arrays.

    Raises:
        UserError: a text of fewer than two tokens has nothing to predict.
    """
    if not windows or len(tokens) < 2:
        n_tokens = amount(len(tokens), "token")
        raise UserError(f"The text has {n_tokens}; at least 2 are needed for a loss.")
    nats, squares, n_targets, counts = 0.0, 0.0, 0, np.zeros(0, dtype=np.int64)
    for part, targets, vocab_size in _token_nll(model, tokens, windows):
        nats += part.sum().item()
        squares += part.square().sum().item()
        n_targets += len(part)
        if nll is not None:
            nll.append(part.float().numpy())
        counts = np.bincount(targets, minlength=vocab_size) + (counts if len(counts) else 0)
    return Score(protocol, n_targets, nats, squares, counts)


def _token_nll(
    model: nn.Module, tokens: TokenIds, windows: list[Window]
) -> Iterator[tuple[torch.Tensor, NDArray[np.int64], int]]:
    """(n,) nats and ids of the targets of some windows, on the processor; and the size of the
    vocabulary.
    """
    device, was_training = next(model.parameters()).device, model.training
    tokens, first = np.asarray(tokens), 0
    together = 1 if device.type == "cpu" else READ_TOGETHER
    waiting: list[tuple[torch.Tensor, Any, Any]] = []
    at_once = max(1, batch_tokens_on(device) // max(window.length for window in windows))
    model.eval()
    try:
        while first < len(windows):
            some = windows[first : first + at_once]
            inputs, targets, scored = _batch(tokens, some)
            try:
                nll, vocab_size = _read(model, inputs, targets, device)
            except (MemoryError, RuntimeError) as error:
                if not ran_out_of_memory(error) or len(some) == 1:
                    raise
                at_once = len(some) // 2
                release()
                continue
            first += len(some)
            waiting.append((nll, targets, scored))
            if len(waiting) < together and first < len(windows):
                continue
            read = torch.cat([nll for nll, *_ in waiting]).cpu()
            sizes = [len(nll) for nll, *_ in waiting]
            for nats, (_, targets, scored) in zip(torch.split(read, sizes), waiting):
                nats = nats[torch.from_numpy(scored).flatten()].double()
                yield nats, targets[scored], vocab_size
            waiting.clear()
    finally:
        model.train(was_training)


@torch.no_grad()
def _read(
    model: nn.Module, inputs: NDArray[np.int64], targets: NDArray[np.int64], device: torch.device
) -> tuple[torch.Tensor, int]:
    """(B, T) inputs and targets -> (B * T,) nats, to be summed up on the processor, since not every
    device has float64; and V.
    """
    on_device = to_device((inputs, targets), device)
    logits = model(on_device[0]).flatten(0, 1)  # (B * T, V)
    most = CACHED_LOGITS if device.type == "cpu" else FLOAT32_LOGITS
    at_once = max(1, most // logits.shape[1])
    parts = zip(logits.split(at_once), on_device[1].flatten().split(at_once))
    nats = [F.cross_entropy(rows.float(), wanted, reduction="none") for rows, wanted in parts]
    return torch.cat(nats), logits.shape[1]


def exact_score(model: nn.Module, tokens: TokenIds, context_length: int) -> Score:
    """Score the whole text once, in windows side by side."""
    return score(model, tokens, exact_windows(len(tokens), context_length), "exact")


def batch_tokens_on(device: torch.device) -> int:
    """Positions that are read at once."""
    return BATCH_TOKENS if device.type == "cpu" else ACCELERATOR_BATCH_TOKENS


def _batch(tokens: TokenIds, windows: list[Window]) -> tuple[Any, Any, Any]:
    """(B, T) inputs, targets, and whether each target counts."""
    starts, lengths, skips = np.array(windows).T
    columns = np.arange(lengths.max())
    where = np.minimum(starts[:, None] + columns, len(tokens) - 2)  # (B, T)
    scored = (columns >= skips[:, None]) & (columns < lengths[:, None])
    return tokens[where].astype(np.int64), tokens[where + 1].astype(np.int64), scored
