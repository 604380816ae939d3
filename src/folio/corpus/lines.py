"""Finds lines that occur in several places, and the documents that share them.

Memory holds three numbers per document; the hashes of the lines, and of the pairs of documents, go
through shards (corpus/shards.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.corpus.fingerprints import line_hashes, mixed
from folio.corpus.shards import Shards

LINE_CHARACTERS = 40
"""In characters; shorter lines, such as headings, do not tell where a text comes from."""
COMPARED_PAIRWISE = 10
"""If more documents than this share a line, only neighbours by number are compared."""


class Lines:
    """The longer lines of D documents."""

    def __init__(self, n_documents: int) -> None:
        self.counts = np.zeros(n_documents, np.int64)
        """(D,) number of lines of each document."""
        self.characters = np.zeros(n_documents, np.int64)
        """(D,) number of characters in these lines."""
        self.distinct_characters = np.zeros(n_documents, np.int64)
        """(D,) the same, each distinct line counted once; known after `compare`."""
        self.n_different = self.different_characters = 0
        """Distinct lines and their characters; known after `compare`."""
        self._lines = Shards(document=np.uint32, length=np.uint32)
        self._pairs = Shards(a=np.uint32, b=np.uint32, shared=np.uint32)
        self._lock = Lock()

    def read(self, i: int, pieces: Iterable[str]) -> None:
        """Add the lines of document `i`; threads may read several documents at once."""
        for hashes, lengths in line_hashes(pieces, LINE_CHARACTERS):
            self.counts[i] += len(hashes)
            self.characters[i] += lengths.sum()
            # A line that recurs a thousand times in a text, as in a log, must not fill a shard.
            hashes, first = np.unique(hashes, return_index=True)
            with self._lock:
                self._lines.add(hashes, np.full(len(first), i), lengths[first])

    def compare(self) -> None:
        """Find the documents that share lines, once all are read."""
        for rows in self._lines:
            # Threads read the documents in any order, and a pair is a pair only as a < b.
            rows = rows[np.lexsort((rows["document"], rows["key"]))]
            rows = rows[_new(rows["key"], rows["document"])]
            np.add.at(self.distinct_characters, rows["document"], rows["length"])
            different = rows[_new(rows["key"])]
            self.n_different += len(different)
            self.different_characters += int(different["length"].sum(dtype=np.int64))
            for a, b, shared in _neighbours(rows):
                self._pairs.add(mixed(a.astype(np.uint64) << np.uint64(32) | b), a, b, shared)

    def contained(self, share: float) -> Iterator[tuple[int, int]]:
        """Pairs a < b of which one contains at least that share of the other's distinct lines, by
        length.
        """
        for rows in self._pairs:
            first = np.flatnonzero(_new(rows["key"]))
            shared = np.add.reduceat(rows["shared"], first, dtype=np.int64)
            a, b = rows["a"][first], rows["b"][first]
            sizes = self.distinct_characters
            enough = shared >= share * np.minimum(sizes[a], sizes[b])
            yield from zip(a[enough].tolist(), b[enough].tolist())

    def close(self) -> None:
        """Release memory and disk space."""
        self._lines.close()
        self._pairs.close()


def _neighbours(rows: NDArray[Any]) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
    """Documents a < b that share a line, and its length; `rows` are distinct and sorted."""
    keys, documents = rows["key"], rows["document"]
    starts = np.flatnonzero(_new(keys))
    sizes = np.diff(starts, append=len(rows))
    few = np.repeat(sizes <= COMPARED_PAIRWISE, sizes)
    for distance in range(1, COMPARED_PAIRWISE):
        together = keys[distance:] == keys[:-distance]
        if distance > 1:
            together &= few[distance:]
        at = np.flatnonzero(together)
        yield documents[at], documents[at + distance], rows["length"][at]


def _new(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) whether each row differs from the row before."""
    new = np.ones(len(columns[0]), bool)
    new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return new
