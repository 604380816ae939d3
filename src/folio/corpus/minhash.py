"""Near duplicates: how similar two texts are as sets of word n-grams (shingles), and which may be.

    signature   the smallest of each of many hashes over a set: two agree as often as sets overlap
    buckets     documents whose signatures agree in all rows of a band (LSH): the pairs to look at
    Shingles    the sets themselves, which decide

Sources: Broder 1997, "On the resemblance and containment of documents",
https://doi.org/10.1109/SEQUEN.1997.666900; Leskovec, Rajaraman and Ullman, "Mining of Massive
Datasets", chapter 3, http://www.mmds.org.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from folio.corpus.document import Document
from folio.corpus.fingerprints import Hashes, gram_hashes

N_HASHES = 128
RECALL = 0.9999
"""Share of the pairs right at the threshold that the bands must propose, at least."""
COMPARED_WHOLE = 1 << 24
"""In characters; of a longer text only a sample of its shingles is compared, chosen by value."""
CACHE_BYTES = 256 << 20
"""Memory for sets of shingles while pairs are confirmed."""


def signature(grams: Iterable[Hashes]) -> NDArray[np.uint32] | None:
    """(N_HASHES,) minimum of each of many hashes over a set; None for the empty set."""
    lowest = np.full(N_HASHES, 0xFFFFFFFF, np.uint32)
    empty = True
    for hashes in grams:
        short = (hashes >> np.uint64(32)).astype(np.uint32)
        for first in range(0, len(short), 1024):  # fits into the processor's cache
            block = _MULTIPLIERS[:, None] * short[first : first + 1024] + _SUMMANDS[:, None]
            block ^= block >> np.uint32(15)
            block *= np.uint32(0x2C1B3C6D)
            np.minimum(lowest, block.min(axis=1), out=lowest)
            empty = False
    return None if empty else lowest


_random = np.random.Generator(np.random.PCG64(20260101))  # the same in every run
_MULTIPLIERS = _random.integers(0, 1 << 31, N_HASHES).astype(np.uint32) * 2 + 1
_SUMMANDS = _random.integers(0, 1 << 32, N_HASHES).astype(np.uint32)


def banding(threshold: float) -> tuple[int, int]:
    """Choose bands and rows: the most rows that still propose a pair at the threshold surely
    enough.

    A pair of similarity s agrees in all rows of one of b bands with probability 1 - (1 - s^r)^b.

    >>> banding(0.8)
    (25, 5)
    """
    rows = 1
    while rows < N_HASHES:
        n_bands = N_HASHES // (rows + 1)
        if 1 - (1 - threshold ** (rows + 1)) ** n_bands < RECALL:
            break
        rows += 1
    return N_HASHES // rows, rows


def buckets(
    signatures: NDArray[np.uint32], filled: NDArray[np.bool_], threshold: float
) -> Iterator[NDArray[np.int64]]:
    """Groups of documents that agree in all rows of a band, ascending, at least two each.

    Args:
        signatures: (D, N_HASHES).
        filled: (D,) whether each document has a signature.
        threshold: the similarity to look for.
    """
    n_bands, rows = banding(threshold)
    documents = np.flatnonzero(filled)
    for band in range(n_bands):
        part = np.ascontiguousarray(signatures[documents, band * rows : (band + 1) * rows])
        keys = part.view(f"V{part.itemsize * rows}").ravel()
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
        for begin, end in edges.reshape(-1, 2):
            yield np.sort(documents[order[begin : end + 1]])


def shingle_set(document: Document, n: int) -> Hashes:
    """(k,) sorted hashes of the distinct word n-grams of a document, up to its bound."""
    bound = _bound(document)
    parts = [hashes[hashes <= bound] for hashes in gram_hashes(document.pieces(), n)]
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *parts]))


def jaccard(a: Hashes, b: Hashes) -> float:
    """Size of the intersection of two sorted sets divided by that of their union."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(len(a) + len(b) - common, 1)


class Shingles:
    """Sets of word n-grams of some documents; the most recently used are kept."""

    def __init__(self, documents: Sequence[Document], n: int) -> None:
        self.documents, self.n = documents, n
        self.kept: OrderedDict[int, Hashes] = OrderedDict()
        self.n_bytes = 0

    def jaccard(self, a: int, b: int) -> float:
        """The similarity of two documents, or of a fair sample of them if one is long."""
        bound = min(_bound(self.documents[a]), _bound(self.documents[b]))
        return jaccard(*(s[: np.searchsorted(s, bound, "right")] for s in (self[a], self[b])))

    def __getitem__(self, i: int) -> Hashes:
        if i in self.kept:
            self.kept.move_to_end(i)
            return self.kept[i]
        made = self.kept[i] = shingle_set(self.documents[i], self.n)
        self.n_bytes += made.nbytes
        while self.n_bytes > CACHE_BYTES and len(self.kept) > 2:
            self.n_bytes -= self.kept.popitem(last=False)[1].nbytes
        return made


def _bound(document: Document) -> np.uint64:
    """The largest hash that is compared: hashes are uniform, so those up to it are a sample."""
    share = (1 << 64) * COMPARED_WHOLE // max(document.n_characters, 1)
    return np.uint64(min((1 << 64) - 1, share))
