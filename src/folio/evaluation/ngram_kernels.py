"""The n-gram model of `ngrams.py` by sorting, compiled: memory grows with the held-out text alone.

All places of a text are sorted by the bytes before them, the nearest byte first. Then the places
after a context are adjacent, whatever its length, and the contexts of n bytes lie within that of
their last n - 1. One walk over them counts each context when it ends, and tells the next shorter
one which bytes followed it. The places of the held-out text are sorted among them, and get their
probabilities when they are passed. A long text is sorted one part at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from folio.jit import kernel
from folio.ngrams.discounts import discounts_of
from folio.tokens.text import ALPHABET, Bytes

DEPTH = 12
"""How many bytes before a place it is sorted by; orders go up to one more."""
PART = 1 << 24
"""How many places are sorted together, unless more share the two bytes before them."""
_AT_ONCE = 4
_PLACE = np.uint64(0xFFFFFFFF)
_HALF, _EIGHT = np.uint64(32), np.uint64(8)
_ZERO = np.uint64(0)

ASKED, LEAST, DEEPEST = 0, 1, 2
"""Entries of the walk's state: places of the held-out text passed so far; bytes that the next place
shares with the last one; the longest open context."""
ONCE_FROM_HERE = 0
"""Column of the counts of counts for n-grams of this order and all higher ones."""

Sorted = tuple[NDArray[np.uint64], NDArray[np.uint8]]


class CompiledNGrams:
    """The n-gram model of PlainNGrams by sorting, for any order."""

    def __init__(self, before: Bytes, text: Bytes) -> None:
        """Take the training text and the text that follows it."""
        edge = np.zeros(DEPTH, np.uint8)
        self.text = np.concatenate([edge, before, edge[:1], text])
        self.first = DEPTH + len(before) + 1
        """Place where the held-out text begins."""
        self._parts: list[Sorted] = []

    def nll(self, order: int) -> dict[str, NDArray[np.float32]]:
        """(n,) nats of each byte of the held-out text, without (`static`) and with learning
        (`adaptive`).
        """
        held_out = self.text[self.first :]
        n = len(held_out)
        of_counts = np.zeros((order, 6), np.int64)
        nobody = np.zeros(0, np.int32)
        self._walk(order, of_counts, np.zeros((order, 3)), nobody, np.zeros((2, 2, 0), np.float32))
        discounts = np.array([discounts_of(*row[1:5]) for row in of_counts.tolist()])
        known = np.zeros((2, 2, n), np.float32)
        known[:, 1] = 1
        self._walk(order, np.zeros_like(of_counts), discounts, np.zeros(n, np.int32), known)
        (static, rest), (adaptive, later) = known
        for found, more in ((static, rest), (adaptive, later)):
            more /= ALPHABET
            found += more
            np.log(found, out=found)
            np.negative(found, out=found)
        return {"static": static, "adaptive": adaptive}

    def _walk(
        self,
        order: int,
        of_counts: NDArray[np.int64],
        discounts: NDArray[np.float64],
        asking: NDArray[np.int32],
        known: NDArray[np.float32],
    ) -> None:
        """Walk over all places once.

        Args:
            order: n.
            of_counts: (order, 6); adds how many n-grams have the count 1, 2 ... 5 and more.
            discounts: (order, 3).
            asking: (m,) scratch for the places of the held-out text; empty if none are looked up.
            known: (2, 2, m) for static and adaptive, the probability by the contexts passed so far,
                and the weight left for shorter ones.
        """
        counts, seen = np.zeros((order, ALPHABET), np.int64), np.zeros((order, ALPHABET), np.int64)
        n_seen, starts = np.zeros(order, np.int64), np.zeros(order, np.int64)
        cursor = np.array([0, 0, 0], np.int64)
        rising = np.ones(len(asking), np.bool_)
        table = (counts, seen, n_seen, of_counts, discounts)
        queries = (asking, starts, cursor, rising, known)
        for keys, shared in self._sorted():
            _pass(self.text, self.first, keys, shared, order, table, queries)
        _end(self.text, self.first, table, queries)
        of_counts[:, 1] += np.cumsum(of_counts[:, ONCE_FROM_HERE])

    def _sorted(self) -> Iterator[Sorted]:
        """Places in the lower halves of keys, and how many bytes before it each shares with the
        last one; kept if there is a single part.
        """
        if self._parts:
            yield from self._parts
            return
        sizes = _count_pairs(self.text, DEPTH)
        ranges = _ranges(sizes)
        before = -1
        with ThreadPoolExecutor(1) as pool:  # sorts a part while the previous one is walked
            coming = pool.submit(self._sort, *ranges[0])
            for (low, high, _), following in zip(ranges, [*ranges[1:], None]):
                part = coming.result()
                if following is not None:
                    coming = pool.submit(self._sort, *following)
                pairs = np.flatnonzero(sizes[low:high]) + low
                part[1][0] = pairs[0] >> 8 == before >> 8
                before = int(pairs[-1])
                if len(ranges) == 1:
                    self._parts.append(part)
                yield part

    def _sort(self, low: int, high: int, n: int) -> Sorted:
        """Sort the n places after certain pairs of bytes."""
        keys, shared = np.zeros(n, np.uint64), np.zeros(n, np.uint8)
        _gather(self.text, DEPTH, low, high, keys)
        for depth in range(0, DEPTH, _AT_ONCE):
            _take_bytes(self.text, keys, shared, depth)
            if depth == 0:
                keys.sort()
            else:
                _sort_runs(keys, shared, depth)
            _share(keys, shared, depth)
        return keys, shared


def _ranges(sizes: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Parts of the places: pairs of bytes low ... high - 1, and their number of places."""
    begins, low, ranges = np.append(0, np.cumsum(sizes)), 0, []
    while low < len(sizes):
        high = int(np.searchsorted(begins, begins[low] + PART, "right")) - 1
        high = max(high, low + 1)
        if n := int(begins[high] - begins[low]):
            ranges.append((low, high, n))
        low = high
    return ranges


@kernel(allocates=False)
def _pair(text, i):
    return np.int64(text[i - 1]) << 8 | np.int64(text[i - 2])


@kernel()
def _count_pairs(text, first):
    sizes = np.zeros(1 << 16, np.int64)
    for i in range(first, len(text)):
        sizes[_pair(text, i)] += 1
    return sizes


@kernel()
def _gather(text, first, low, high, keys):
    n = 0
    for i in range(first, len(text)):
        if low <= _pair(text, i) < high:
            keys[n] = np.uint64(i)
            n += 1


@kernel()
def _take_bytes(text, keys, shared, depth):
    """Put the next bytes before each place into its key, where they can change the order."""
    n = len(keys)
    for j in range(n):
        if depth == 0 or shared[j] == depth or (j + 1 < n and shared[j + 1] == depth):
            place = np.int64(keys[j] & _PLACE)
            key = _ZERO
            for back in range(depth + 1, depth + _AT_ONCE + 1):
                key = key << _EIGHT | np.uint64(text[place - back])
            keys[j] = key << _HALF | np.uint64(place)


@kernel()
def _sort_runs(keys, shared, depth):
    """Sort the runs of places that share all bytes so far."""
    first, n = 0, len(keys)
    while first < n:
        stop = first + 1
        while stop < n and shared[stop] == depth:
            stop += 1
        if stop - first > 1:
            keys[first:stop].sort()
        first = stop


@kernel()
def _share(keys, shared, depth):
    for j in range(1, len(keys)):
        if depth == 0 or shared[j] == depth:
            differ = (keys[j] ^ keys[j - 1]) >> _HALF
            n = _AT_ONCE
            while differ != _ZERO:
                differ >>= _EIGHT
                n -= 1
            shared[j] = depth + n


@kernel()
def _pass(text, first, keys, shared, order, table, queries):
    _, _, _, of_counts, _ = table
    asking, starts, cursor, _, _ = queries
    for j in range(len(keys)):
        place = np.int64(keys[j] & _PLACE)
        cursor[LEAST] = min(cursor[LEAST], np.int64(shared[j]))
        if place >= first and len(asking) == 0:
            continue
        left = cursor[LEAST]
        for depth in range(cursor[DEEPEST], left, -1):
            _close(text, first, depth, table, queries)
        # Contexts longer than what it shares with a neighbour occur once, and need no memory.
        right = np.int64(shared[j + 1]) if j + 1 < len(keys) else 1
        deepest = min(max(left, right), order - 1)
        for depth in range(left + 1, deepest + 1):
            starts[depth] = cursor[ASKED]
        if place < first:
            _add(table, deepest, np.int64(text[place]))
            if deepest + 1 < order:
                of_counts[deepest + 1, ONCE_FROM_HERE] += 1
        else:
            asking[cursor[ASKED]] = place - first
            cursor[ASKED] += 1
        cursor[DEEPEST], cursor[LEAST] = deepest, order - 1


@kernel()
def _end(text, first, table, queries):
    for depth in range(queries[2][DEEPEST], -1, -1):  # those that are open
        _close(text, first, depth, table, queries)


@kernel(allocates=False)
def _add(table, depth, byte):
    """Count a byte once more in the open context."""
    counts, seen, n_seen, _, _ = table
    if counts[depth, byte] == 0:
        seen[depth, n_seen[depth]] = byte
        n_seen[depth] += 1
    counts[depth, byte] += 1


@kernel()
def _close(text, first, depth, table, queries):
    """Close a context, once all that followed it is known."""
    counts, seen, n_seen, of_counts, discounts = table
    _, starts, cursor, _, _ = queries
    total, taken = np.int64(0), 0.0
    for k in range(n_seen[depth]):
        byte = seen[depth, k]
        count = counts[depth, byte]
        total += count
        taken += discounts[depth, min(count, 3) - 1]
        of_counts[depth, min(count, 5)] += 1
        if depth > 0:
            _add(table, depth - 1, byte)
    if cursor[ASKED] > starts[depth]:
        _answer(text, first, depth, total, taken, table, queries)
    for k in range(n_seen[depth]):
        counts[depth, seen[depth, k]] = 0
    n_seen[depth] = 0


@kernel()
def _answer(text, first, depth, total, taken, table, queries):
    """Give the held-out places after a context their probabilities, static and adaptive."""
    counts, _, _, _, discounts = table
    asking, starts, cursor, rising, known = queries
    here = asking[starts[depth] : cursor[ASKED]]
    for place in here:
        count = counts[depth, np.int64(text[first + place])]
        _mix_in(known, 0, place, count, total, taken, discounts, depth)
    if len(here) > 1:
        here.sort()  # in reading order
    for place in here:
        byte = np.int64(text[first + place])
        count = counts[depth, byte]
        _mix_in(known, 1, place, count, total, taken, discounts, depth)
        if rising[place]:
            _add(table, depth, byte)
            total += 1
            taken += discounts[depth, min(count, 2)]
            if count > 0:  # not new in this context, nor in any shorter one
                taken -= discounts[depth, min(count, 3) - 1]
                rising[place] = False


@kernel(allocates=False)
def _mix_in(known, kind, place, count, total, taken, discounts, depth):
    if total > 0:
        share = known[kind, 1, place]
        if count > 0:
            known[kind, 0, place] += share * (count - discounts[depth, min(count, 3) - 1]) / total
        known[kind, 1, place] = share * taken / total
