"""Finds what occurs in several documents, such as lines, and the documents that share much of it.

Memory holds a few numbers per document; the hashes of the lines, and of the pairs of documents, go
through shards (corpus/shards.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.corpus.fingerprints import Hashes, line_hashes, mixed
from folio.corpus.shards import Shards

LINE_CHARACTERS = 40
"""In characters; shorter lines, such as headings, do not tell where a text comes from."""
COMPARED_PAIRWISE = 10
"""If more documents than this share a part, only neighbours by number are compared."""


class Overlaps:
    """The parts of D documents, by their hashes, each with a length."""

    def __init__(self, n_documents: int) -> None:
        self.distinct_lengths = np.zeros(n_documents, np.int64)
        """(D,) the parts of each document, by length, each distinct one counted once; known after
        `compare`."""
        self.n_different = self.different_length = 0
        """Distinct parts of all documents and their length; known after `compare`."""
        self._parts = Shards(document=np.uint32, length=np.uint32)
        self._pairs = Shards(a=np.uint32, b=np.uint32, shared=np.uint32)
        self._lock = Lock()

    def add(self, i: int, hashes: Hashes, lengths: NDArray[np.int64]) -> None:
        """Add (n,) parts of document `i`; threads may add to several documents at once.

        What recurs a thousand times in a text, as a line of a log may, must not be added each time,
        since a shard holds all rows of a key.
        """
        with self._lock:
            self._parts.add(hashes, np.full(len(hashes), i), lengths)

    def compare(self, widespread: bool = True) -> None:
        """Find the documents that share parts, once all are read; `widespread` is whether parts
        that stand in many documents count.
        """
        for rows in self._parts:
            new = _new(rows["key"])
            alone = new & np.append(new[1:], True)  # most are, and need no more sorting
            self._count(rows[alone])
            rows = rows[~alone]
            # Threads read the documents in any order, and a pair is a pair only as a < b.
            rows = rows[np.lexsort((rows["document"], rows["key"]))]
            rows = rows[_new(rows["key"], rows["document"])]
            self._count(rows)
            for a, b, shared in _neighbours(rows, widespread):
                self._pairs.add(mixed(a.astype(np.uint64) << np.uint64(32) | b), a, b, shared)

    def _count(self, rows: NDArray[Any]) -> None:
        np.add.at(self.distinct_lengths, rows["document"], rows["length"])
        different = rows[_new(rows["key"])]
        self.n_different += len(different)
        self.different_length += int(different["length"].sum(dtype=np.int64))

    def contained(self, share: float, at_least: int = 0) -> Iterator[tuple[int, int]]:
        """Pairs a < b of which one contains at least that share of the other's distinct parts, by
        length, and that length.
        """
        for rows in self._pairs:
            first = np.flatnonzero(_new(rows["key"]))
            shared = np.add.reduceat(rows["shared"], first, dtype=np.int64)
            a, b = rows["a"][first], rows["b"][first]
            sizes = self.distinct_lengths
            enough = shared >= np.maximum(share * np.minimum(sizes[a], sizes[b]), at_least)
            yield from zip(a[enough].tolist(), b[enough].tolist())

    def close(self) -> None:
        """Release memory and disk space."""
        self._parts.close()
        self._pairs.close()


class Lines(Overlaps):
    """The longer lines of D documents."""

    def __init__(self, n_documents: int) -> None:
        super().__init__(n_documents)
        self.counts = np.zeros(n_documents, np.int64)
        """(D,) number of lines of each document."""
        self.characters = np.zeros(n_documents, np.int64)
        """(D,) number of characters in these lines."""

    def read(self, i: int, pieces: Iterable[str]) -> None:
        """Add the lines of document `i`."""
        for hashes, lengths in line_hashes(pieces, LINE_CHARACTERS):
            if not len(hashes):
                continue
            self.counts[i] += len(hashes)
            self.characters[i] += lengths.sum()
            hashes, first = np.unique(hashes, return_index=True)
            self.add(i, hashes, lengths[first])


def _neighbours(rows: NDArray[Any], widespread: bool) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
    """Documents a < b that share a part, and its length; `rows` are distinct and sorted."""
    keys, documents = rows["key"], rows["document"]
    starts = np.flatnonzero(_new(keys))
    sizes = np.diff(starts, append=len(rows))
    few = np.repeat(sizes <= COMPARED_PAIRWISE, sizes)
    for distance in range(1, COMPARED_PAIRWISE):
        together = keys[distance:] == keys[:-distance]
        if distance > 1 or not widespread:
            together &= few[distance:]
        at = np.flatnonzero(together)
        yield documents[at], documents[at + distance], rows["length"][at]


def _new(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) whether each row differs from the row before."""
    new = np.ones(len(columns[0]), bool)
    new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return new
