"""What a model knows by heart of a text: how surely it goes on with it, word for word.

A passage is a prefix of half a context at least and a suffix of some characters. One forward pass
tells how likely the suffix is to come, drawn at a temperature: with probability 2^-bits, so about
once in 2^bits tries. It comes at once, by greedy decoding, where each of its tokens is the
likeliest one. Nothing needs to be generated (Hayes et al. 2024, https://arxiv.org/abs/2410.19482),
and a window of a context holds as many passages as have room in its second half.

Shapes:  W windows · J passages of each · B windows of a batch · T context length · V vocabulary
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from folio.evaluation.score import BATCH_TOKENS
from folio.tokenizers.base import TokenIds, Tokenizer
from folio.tokens.text import Symbols, TokenText, characters
from folio.tokens.token_file import let_go

LENGTH = 50
"""Characters of a passage: the 50 of Folio's leakage, and of Carlini et al. 2022,
https://arxiv.org/abs/2202.07646."""
SHORTEST = 8
"""Characters of a suffix, below which anybody guesses it, and it is not a passage: that of a model
that sees a few tokens only."""

FIRST_SHARE = 8
"""The first batch is so many times smaller than others, since it shows how long they take."""
AT_LEAST_SECONDS = 0.25
"""Reading may always take that long, so that a run of a moment is not judged by a window or two."""

PATTERN = 0.5
"""Share of a passage's runs of three characters that differ, below which it is a pattern: a
rule, a column, a header. None of Shakespeare is, and 5 % of Python's documentation."""


@dataclass(frozen=True)
class Passages:
    """N passages of a text, in its order."""

    starts: NDArray[np.int64]
    """(N,) the token `prefix` tokens before each suffix."""
    prefix: int
    """Tokens before a suffix that the model has read, at least."""
    sizes: NDArray[np.int64]
    """(N,) tokens of each suffix."""
    bits: NDArray[np.float64]
    """(N,) -log2 of the probability that the suffix is drawn after its prefix."""
    at_once: NDArray[np.bool_]
    """(N,) whether greedy decoding produces it."""

    def __len__(self) -> int:
        return len(self.starts)

    def within(self, tries: int) -> NDArray[np.bool_]:
        """(N,) whether it is expected to appear within so many tries; the first one may take the
        likeliest token each time.
        """
        return (self.bits <= math.log2(tries)) | self.at_once

    def suffix(self, tokens: TokenIds, i: int) -> TokenIds:
        """The tokens of a suffix."""
        start = self.starts[i] + self.prefix
        return tokens[start : start + self.sizes[i]]

    def suffixes(self, tokens: TokenIds, tokenizer: Tokenizer) -> list[Symbols]:
        """The symbols of each suffix, which may begin or end inside a character."""
        if not len(self):
            return []
        ids = [self.suffix(tokens, i) for i in range(len(self))]
        text = TokenText(np.concatenate(ids), tokenizer)
        ends = text.places_of(np.cumsum(self.sizes)[:-1])
        return np.split(text.between(0, len(text)), ends)


def read_passages(
    model: nn.Module,
    tokens: TokenIds,
    tokenizer: Tokenizer,
    context_length: int,
    *,
    most: int = 4096,
    length: int = LENGTH,
    temperature: float = 0.8,
    seconds: float = math.inf,
    counted: NDArray[np.bool_] | None = None,
) -> Passages:
    """Read passages that are evenly spaced over a text.

    Args:
        model: maps (B, T) ids to (B, T, V) logits; its mode is put back afterwards.
        tokens: (N,) token ids.
        tokenizer: that made them.
        context_length: T of the model; the prefix is half of it.
        most: how many to read.
        length: characters of a suffix; those that do not fit into the other half are shorter, and
            left out below SHORTEST.
        temperature: at which it would be drawn, above 0.
        seconds: after which to end, if they are more than AT_LEAST_SECONDS; a batch that would end
            too late is made smaller, but the first.
        counted: (N - 1,) which targets were learned, as of conversations; None is all.

    Returns:
        Those without a special token in the suffix, since no document goes on over one, of targets
        that count.
    """
    assert temperature > 0
    prefix = context_length // 2
    windows, offsets, sizes = _places(tokens, counted, tokenizer, context_length, most, length)
    bits, at_once = np.zeros(sizes.shape), np.zeros(sizes.shape, bool)
    done = np.zeros(sizes.shape, bool)
    began, was_training = time.monotonic(), model.training
    model.eval()
    try:
        per_batch = max(1, BATCH_TOKENS // context_length)
        order, n_read, n = _spread(len(windows)), 0, max(1, per_batch // FIRST_SHARE)
        while n and n_read < len(order):
            chosen = order[n_read : n_read + n]
            bits[chosen], at_once[chosen] = _read(
                model, tokens, windows[chosen], prefix, offsets, sizes[chosen], temperature
            )
            done[chosen] = sizes[chosen] > 0
            n_read += len(chosen)
            used = max(time.monotonic() - began, 1e-9)
            left = max(seconds, AT_LEAST_SECONDS) - used
            n = int(min(per_batch, max(left, 0) / used * n_read))
    finally:
        model.train(was_training)
        let_go(tokens)
    starts = windows[:, None] + offsets
    return Passages(starts[done], prefix, sizes[done], bits[done], at_once[done])


def _spread(n: int) -> NDArray[np.int64]:
    """(n,) the numbers below n in an order of which every beginning is about evenly spaced.

    >>> _spread(8).tolist()
    [0, 4, 2, 6, 1, 5, 3, 7]
    """
    bits = max(n - 1, 1).bit_length()
    mirrored = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits)]
    return np.array([i for i in mirrored if i < n], dtype=np.int64)


def _places(
    tokens: TokenIds,
    counted: NDArray[np.bool_] | None,
    tokenizer: Tokenizer,
    context_length: int,
    most: int,
    length: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(W,) starts of windows; (J,) offsets of their suffixes behind the first half; and (W, J)
    tokens of each suffix, 0 where there is no passage.
    """
    prefix = context_length // 2
    room = context_length - prefix
    n_windows = max(0, (len(tokens) - context_length) // room + 1)  # as the strided protocol cuts
    if not prefix or not n_windows:
        return np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros((0, 1), np.int64)
    evenly = np.linspace(0, n_windows - 1, min(most, n_windows)).round().astype(np.int64)
    second = _rows(tokens, evenly * room + prefix, room)  # (W, room)
    ours = ~np.isin(second, list(tokenizer.special_tokens.values()))
    if counted is not None:
        ours &= _rows(counted, evenly * room + prefix - 1, room) == 1
    usual = np.median(_sizes(second, ours, tokenizer, length)[0])
    apart = min(2 * int(usual), room)  # nearly all have room, and the others end there
    offsets = np.arange(room // apart) * apart
    # As few windows as hold them all; of those, as evenly spaced as before.
    kept = np.sort(_spread(len(evenly))[: -(-most // len(offsets))])
    windows, second, ours = evenly[kept] * room, second[kept], ours[kept]
    spans = [np.s_[:, at : at + apart] for at in offsets.tolist()]
    sizes = [_sizes(second[span], ours[span], tokenizer, length) for span in spans]
    by_offset = np.stack([n * is_passage for n, is_passage in sizes], axis=1)  # (W, J)
    some = by_offset.any(axis=1)
    return windows[some], offsets, by_offset[some]


def _sizes(
    rows: NDArray[np.int64], ours: NDArray[np.bool_], tokenizer: Tokenizer, length: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(W,) how many of the first tokens of each row have `length` characters, all of them where
    none have; and whether that is a passage, all of which are `ours`.
    """
    begun = np.cumsum(tokenizer.characters_per_token[rows], axis=1)
    enough = begun >= length
    sizes = np.where(enough.any(axis=1), enough.argmax(axis=1) + 1, rows.shape[1])
    inside = np.arange(rows.shape[1]) < sizes[:, None]
    long_enough = begun[np.arange(len(sizes)), sizes - 1] >= min(SHORTEST, length)
    return sizes, (ours | ~inside).all(axis=1) & long_enough


def _rows(tokens: NDArray[Any], starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """(N, length) tokens from each start on."""
    return np.asarray(tokens[starts[:, None] + np.arange(length)], np.int64)


def _read(
    model: nn.Module,
    tokens: TokenIds,
    windows: NDArray[np.int64],
    prefix: int,
    offsets: NDArray[np.int64],
    sizes: NDArray[np.int64],
    temperature: float,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(B, J) bits of the suffixes, and whether each comes at once; of one batch."""
    ends = offsets + sizes  # (B, J)
    longest = int(ends[sizes > 0].max())
    rows = torch.from_numpy(_rows(tokens, windows, prefix + longest))
    device = next(model.parameters()).device
    with torch.inference_mode():
        logits = model(rows[:, :-1].to(device))[:, prefix - 1 :].float()  # (B, longest, V)
        targets = rows[:, prefix:].to(device)
        missed = (logits.argmax(dim=2) != targets).cpu().numpy()
        # As cross-entropy: it does not hold the probabilities of all tokens.
        nats = nn.functional.cross_entropy(
            (logits / temperature).flatten(0, 1), targets.flatten(), reduction="none"
        )
    bits = nats.view(targets.shape).cpu().double().numpy() / math.log(2)
    place = np.arange(longest)
    inside = (place >= offsets[:, None]) & (place < ends[..., None])  # (B, J, longest)
    return (inside @ bits[..., None])[..., 0], ~(inside & missed[:, None]).any(axis=2)


def pattern_windows(codes: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """(n - length + 1,) whether the characters from each on, `length` of them, are a pattern.

    Args:
        codes: (n,) a number for each character.
        length: 3 at least.

    >>> pattern_windows(np.array([1, 2, 1, 2, 1, 2, 1, 3, 4]), length=7)
    array([ True, False, False])
    """
    n_windows, width = max(len(codes) - length + 1, 0), length - 2  # in runs of three
    if not n_windows:
        return np.zeros(0, bool)
    runs = np.lib.stride_tricks.sliding_window_view(codes, 3)
    index = _numbers(runs)
    order = np.argsort(index, kind="stable")
    before = np.full(len(index), -1)
    same = np.flatnonzero(index[order[1:]] == index[order[:-1]])
    before[order[same + 1]] = order[same]
    # A run counts in all windows that have it but no earlier equal one: a range of starts.
    place = np.arange(len(index))
    first = np.maximum(before + 1, place - width + 1).clip(0)
    change = np.zeros(len(index) + 1, np.int64)
    np.add.at(change, first, 1)
    change[1:] -= 1
    return np.cumsum(change)[:n_windows] < PATTERN * width


def is_pattern(codes: NDArray[np.int64]) -> bool:
    """Whether fewer than half of the runs of three characters differ.

    >>> is_pattern(np.array([1, 2, 1, 2, 1, 2, 1])), is_pattern(np.arange(6))
    (True, False)
    """
    if len(codes) < 3:
        return False
    runs = np.lib.stride_tricks.sliding_window_view(codes, 3)
    return len(np.unique(runs, axis=0)) < PATTERN * len(runs)


def patterns_of(passages: Sequence[Symbols]) -> NDArray[np.bool_]:
    """(N,) which of some passages are patterns."""
    return np.array([is_pattern(characters(symbols)[0]) for symbols in passages], bool)


def _numbers(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each row; equal rows have equal numbers."""
    codes = np.unique(rows[:, 0], return_inverse=True)[1] if len(rows) else rows[:, 0]
    for column in (1, 2):
        values, numbers = np.unique(rows[:, column], return_inverse=True)
        codes = np.unique(codes * len(values) + numbers, return_inverse=True)[1]
    return codes
