"""The n-grams of `ngrams.py` in two hash tables, compiled: a megabyte a second and more.

A context is known by a hash of its symbols, and an n-gram by one of context and symbol; of 64 bits,
so that two of ten million agree with a chance of 1 in 100,000.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.discounts import ALPHABET, discounts_of
from folio.jit import kernel
from folio.tokens.text import Symbols

CHUNK = 1 << 15
"""Symbols between two looks at whether the tables are full."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
_OTHER = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(29)
_ONE, _ZERO = np.uint64(1), np.uint64(0)
TOTAL, ONES, TWOS, MORE = 0, 1, 2, 3
"""Columns of a context: its count, and how many symbols follow it once, twice, and more often."""


class CompiledNGrams:
    """As PlainNGrams."""

    def __init__(self, order: int) -> None:
        """Begin with empty tables."""
        self.order = order
        self.gram_keys, self.gram_counts = _empty(16, 1)
        self.context_keys, self.context_counts = _empty(16, 4)
        self.fill = np.zeros(2, np.int64)
        self.of_counts = np.zeros((order, 6), np.int64)
        self.history = np.zeros(0, np.int16)

    def learn(self, symbols: Symbols) -> None:
        """Count."""
        self._run(symbols, np.zeros(0), True)

    def surprise(self, symbols: Symbols, adaptive: bool) -> NDArray[np.float64]:
        """Predict, and count if `adaptive`."""
        nats = np.zeros(len(symbols))
        self._run(symbols, nats, adaptive)
        return nats

    def _run(self, symbols: Symbols, nats: NDArray[np.float64], learns: bool) -> None:
        for first in range(0, len(symbols), CHUNK):
            self._make_room()
            chunk = np.concatenate([self.history, symbols[first : first + CHUNK]])
            begin = len(self.history)
            _pass(
                chunk, begin, self.order, nats[first : first + CHUNK], learns,
                (self.gram_keys, self.gram_counts), (self.context_keys, self.context_counts),
                self.fill, self.of_counts, np.zeros(self.order + 1, np.uint64),
                self._discounts(), np.zeros((self.order, 3)),
            )  # fmt: skip
            self.history = chunk[len(chunk) - min(len(chunk), self.order - 1) :]

    def _discounts(self) -> NDArray[np.float64]:
        return np.array([discounts_of(*row[1:5]) for row in self.of_counts.tolist()])

    def _make_room(self) -> None:
        """Tables that stay below two thirds, whatever comes in a chunk."""
        more = CHUNK * self.order
        while (self.fill[0] + more) * 3 > 2 * len(self.gram_keys):
            self.gram_keys, self.gram_counts = _grown(self.gram_keys, self.gram_counts)
        while (self.fill[1] + more) * 3 > 2 * len(self.context_keys):
            self.context_keys, self.context_counts = _grown(self.context_keys, self.context_counts)


def _empty(bits: int, columns: int) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    return np.zeros(1 << bits, np.uint64), np.zeros((1 << bits, columns), np.int32)


def _grown(
    keys: NDArray[np.uint64], counts: NDArray[np.int32]
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    new = _empty(len(keys).bit_length(), counts.shape[1])
    _move(keys, counts, *new)
    return new


@kernel()
def _find(keys, key):
    mask = np.uint64(len(keys) - 1)
    slot = (key ^ (key >> _SHIFT)) & mask
    while keys[slot] != key and keys[slot] != _ZERO:
        slot = (slot + _ONE) & mask
    return np.int64(slot)


@kernel()
def _move(keys, counts, new_keys, new_counts):
    for i in range(len(keys)):
        if keys[i] != _ZERO:
            slot = _find(new_keys, keys[i])
            new_keys[slot] = keys[i]
            for column in range(counts.shape[1]):
                new_counts[slot, column] = counts[i, column]


@kernel()
def _hash_contexts(symbols, i, longest, hashes):
    """Of the 0, 1 ... longest symbols before a place."""
    key = _OTHER
    hashes[0] = key
    for n in range(1, longest + 1):
        key = (key + np.uint64(symbols[i - n]) + _ONE) * _MIX
        key ^= key >> _SHIFT
        hashes[n] = key | _ONE


@kernel()
def _gram(context, n, symbol):
    key = (context + np.uint64(symbol) + _ONE) * _OTHER + np.uint64(n)
    key = (key ^ (key >> _SHIFT)) * _MIX
    return (key ^ (key >> _SHIFT)) | _ONE


@kernel()
def _discounts(of_counts, n, out):
    """As `discounts_of`."""
    ones, twos = float(of_counts[n, 1]), float(of_counts[n, 2])
    threes, fours = float(of_counts[n, 3]), float(of_counts[n, 4])
    if ones == 0 or twos == 0 or threes == 0 or fours == 0:
        out[n, 0], out[n, 1], out[n, 2] = 0.5, 0.75, 0.9
        return
    y = ones / (ones + 2 * twos)
    out[n, 0] = min(max(1 - 2 * y * twos / ones, 0.05), 1.0)
    out[n, 1] = min(max(2 - 3 * y * threes / twos, 0.05), 2.0)
    out[n, 2] = min(max(3 - 4 * y * fours / threes, 0.05), 3.0)


@kernel()
def _probability(symbol, longest, hashes, grams, contexts, discounts):
    gram_keys, gram_counts = grams
    context_keys, context_counts = contexts
    p = 1.0 / ALPHABET
    for n in range(longest + 1):
        slot = _find(context_keys, hashes[n])
        if context_keys[slot] == _ZERO:
            break
        total = context_counts[slot, TOTAL]
        taken = (
            discounts[n, 0] * context_counts[slot, ONES]
            + discounts[n, 1] * context_counts[slot, TWOS]
            + discounts[n, 2] * context_counts[slot, MORE]
        )
        kept = 0.0
        entry = _find(gram_keys, _gram(hashes[n], n, symbol))
        if gram_keys[entry] != _ZERO:
            count = gram_counts[entry, 0]
            kept = count - discounts[n, min(count, 3) - 1]
        p = (kept + taken * p) / total
    return p


@kernel()
def _count(symbol, longest, hashes, grams, contexts, fill, of_counts):
    gram_keys, gram_counts = grams
    context_keys, context_counts = contexts
    for n in range(longest, -1, -1):
        key = _gram(hashes[n], n, symbol)
        entry = _find(gram_keys, key)
        if gram_keys[entry] == _ZERO:
            gram_keys[entry] = key
            fill[0] += 1
        before = np.int64(gram_counts[entry, 0])
        gram_counts[entry, 0] = before + 1
        slot = _find(context_keys, hashes[n])
        if context_keys[slot] == _ZERO:
            context_keys[slot] = hashes[n]
            fill[1] += 1
        context_counts[slot, TOTAL] += 1
        if before <= 2:
            context_counts[slot, before + 1] += 1
            if before > 0:
                context_counts[slot, before] -= 1
        if before < 5:
            of_counts[n, before] -= 1  # column 0 is nobody's
            of_counts[n, before + 1] += 1
        if before > 0:
            return


@kernel()
def _pass(
    symbols, begin, order, nats, learns, grams, contexts, fill, of_counts, hashes, before, discounts
):
    predicts = len(nats) > 0
    for n in range(order):
        for i in range(3):
            discounts[n, i] = before[n, i]
    for i in range(begin, len(symbols)):
        longest = min(order - 1, i)
        _hash_contexts(symbols, i, longest, hashes)
        if predicts:
            if learns:
                for n in range(longest + 1):
                    _discounts(of_counts, n, discounts)
            p = _probability(symbols[i], longest, hashes, grams, contexts, discounts)
            nats[i - begin] = -np.log(p)
        if learns:
            _count(symbols[i], longest, hashes, grams, contexts, fill, of_counts)
