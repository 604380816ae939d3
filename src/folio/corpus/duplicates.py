"""Families: documents so alike that a model that reads one knows the others.

    copies      equal text
    near        Jaccard similarity of the sets of five words in a row at or above a threshold.
                MinHash signatures in bands (LSH) propose the pairs, the true sets confirm them
    contained   half of the shorter document, or more, stands line by line in the other

Families are the connected components. They depend on the contents alone, not on names or order.

Sources: Broder 1997, "On the resemblance and containment of documents",
https://doi.org/10.1109/SEQUEN.1997.666900; Leskovec, Rajaraman and Ullman, "Mining of Massive
Datasets", chapter 3, http://www.mmds.org.
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from folio.corpus.document import Document
from folio.corpus.fingerprints import Hashes, gram_hashes, line_hashes
from folio.errors import UserError

N_HASHES = 128
RECALL = 0.9999
"""Share of the pairs right at the threshold that the bands are to propose, at least."""
DOUBT = 0.15
"""Four standard deviations of a similarity estimated from a signature: further below the
threshold, a pair is not looked at."""
LINE_CHARACTERS = 40
"""Shorter lines, such as headings, do not tell where a text comes from."""
COMPARED_PAIRWISE = 10
"""Documents that share a line; of more, only neighbours by size are compared."""
CHUNK_LINES = 1 << 20
"""Looked up together."""
CACHE_BYTES = 256 << 20
"""Of sets of shingles, while pairs are confirmed."""
WORTH_THREADS = 4 << 20
"""Characters; a smaller corpus is fingerprinted by one thread."""


@dataclass(frozen=True, kw_only=True)
class DuplicatesConfig:
    """What counts as the same text."""

    threshold: float = 0.8
    """Jaccard similarity at which two documents are near duplicates."""

    shingle_words: int = 5
    """Words in a row that are compared."""

    contained: float = 0.5
    """Share of a document's lines, by length, that makes it part of the other's family; 1.01 turns
    this off."""

    remove: Literal["none", "exact", "near"] = "none"
    """What is left out of the training text: nothing, copies of documents, or all of a family but
    its longest document."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise UserError(
                f"corpus.duplicates.threshold is {self.threshold}; it is a similarity, above 0 and "
                f"at most 1."
            )
        if self.shingle_words < 1:
            raise UserError(
                f"corpus.duplicates.shingle_words is {self.shingle_words}; it is 1 or more."
            )


@dataclass(frozen=True)
class Families:
    """Which documents belong together."""

    of: list[str]
    """The family of each document: the smallest sha256 of its members."""
    copies: int
    """Documents whose text another document before it has."""
    near_pairs: int
    """Pairs of different texts that were confirmed, as many as were needed to join the families."""
    contained_pairs: int
    repeated_lines: int
    """Lines of text that stood somewhere before."""
    repeated_characters: int

    def record(self) -> dict[str, Any]:
        """For corpus.json."""
        sizes = [len(places) for places in self.members().values()]
        return {
            "families": len(sizes),
            "families_of_several": sum(size > 1 for size in sizes),
            "largest_family": max(sizes, default=0),
            "copies": self.copies,
            "near_pairs": self.near_pairs,
            "contained_pairs": self.contained_pairs,
            "repeated_lines": self.repeated_lines,
            "repeated_characters": self.repeated_characters,
        }

    def members(self) -> dict[str, list[int]]:
        """Places of the documents of each family."""
        members = defaultdict(list)
        for i, family in enumerate(self.of):
            members[family].append(i)
        return dict(members)


def find_families(documents: Sequence[Document], config: DuplicatesConfig) -> Families:
    """Compare all documents with all, in about linear time."""
    contents = sorted({document.sha256: document for document in documents}.items())
    unique = [document for _, document in contents]
    signatures, filled, lines = _fingerprints(unique, config)
    union = _Union(len(unique))
    shingles = _Shingles(unique, config.shingle_words)
    near = 0
    for bucket in _buckets(signatures, filled, config.threshold):
        near += _join_alike(bucket, signatures, shingles, union, config.threshold)
    contained = 0
    sizes = [document.n_characters for document in unique]
    for (a, b), shared in _shared_lines(lines, sizes).items():
        if shared >= config.contained * min(lines.total(a), lines.total(b)) and union.join(a, b):
            contained += 1
    names = {sha: contents[union.find(i)][0] for i, (sha, _) in enumerate(contents)}
    repeated = lines.repeated(_copies(documents, contents))
    return Families(
        of=[names[document.sha256] for document in documents],
        copies=len(documents) - len(unique),
        near_pairs=near,
        contained_pairs=contained,
        repeated_lines=repeated[0],
        repeated_characters=repeated[1],
    )


def jaccard(a: Hashes, b: Hashes) -> float:
    """Size of the intersection over that of the union, of two sorted sets."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(len(a) + len(b) - common, 1)


def shingle_set(document: Document, n: int) -> Hashes:
    """(k,) sorted hashes of the different n words in a row of a document."""
    parts = list(gram_hashes(document.pieces(), n))
    return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.uint64)


def banding(threshold: float) -> tuple[int, int]:
    """Bands and rows: the longest rows that still propose a pair at the threshold surely enough.

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


def signature(grams: Iterable[Hashes]) -> NDArray[np.uint32] | None:
    """(N_HASHES,) the smallest of each of many hashes over a set; None for the empty set."""
    lowest = np.full(N_HASHES, 0xFFFFFFFF, np.uint32)
    empty = True
    for hashes in grams:
        short = (hashes >> np.uint64(32)).astype(np.uint32)
        for first in range(0, len(short), 1024):  # stays in the processor's cache
            block = _MULTIPLIERS[:, None] * short[first : first + 1024] + _SUMMANDS[:, None]
            block ^= block >> np.uint32(15)
            block *= np.uint32(0x2C1B3C6D)
            np.minimum(lowest, block.min(axis=1), out=lowest)
            empty = False
    return None if empty else lowest


_random = np.random.Generator(np.random.PCG64(20260101))  # the same in every run
_MULTIPLIERS = _random.integers(0, 1 << 31, N_HASHES).astype(np.uint32) * 2 + 1
_SUMMANDS = _random.integers(0, 1 << 32, N_HASHES).astype(np.uint32)


# ---- one pass over the texts -----------------------------------------------------------


class _Lines:
    """Hashes of the longer lines of all documents; only those that come again are kept."""

    def __init__(self, per_document: list[tuple[NDArray, NDArray]]) -> None:
        self.counts = np.array([len(hashes) for hashes, _ in per_document], np.int64)
        self.totals = np.array([lengths.sum(dtype=np.int64) for _, lengths in per_document])
        hashes = np.concatenate([np.zeros(0, np.int64), *(h for h, _ in per_document)])
        lengths = np.concatenate([np.zeros(0, np.int32), *(n for _, n in per_document)])
        per_document.clear()  # lines are most of what is held of a long text
        ordered = np.sort(hashes)
        again = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        del ordered
        kept = np.flatnonzero(_is_in(hashes, again))
        self.hashes, self.lengths = hashes[kept], lengths[kept]
        self.document = np.searchsorted(np.cumsum(self.counts), kept, "right")
        _, first = np.unique(self.hashes, return_index=True)
        self.n_spare = len(kept) - len(first)
        self.spare_characters = int(self.lengths.sum()) - int(self.lengths[first].sum())

    def total(self, i: int) -> float:
        return float(self.totals[i])

    def repeated(self, copies: Sequence[int]) -> tuple[int, int]:
        """Number and characters of the lines that stood somewhere before."""
        more = np.asarray(copies) - 1
        n, characters = int(self.counts @ more), int(self.totals @ more)
        return self.n_spare + n, self.spare_characters + characters


def _is_in(values: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) whether each is in a sorted array."""
    found = np.zeros(len(values), bool)
    for first in range(0, len(values) if len(among) else 0, CHUNK_LINES):
        part = values[first : first + CHUNK_LINES]
        places = np.minimum(np.searchsorted(among, part), len(among) - 1)
        found[first : first + CHUNK_LINES] = among[places] == part
    return found


def _copies(documents: Sequence[Document], contents: Sequence[tuple[str, Document]]) -> list[int]:
    counts = Counter(document.sha256 for document in documents)
    return [counts[sha] for sha, _ in contents]


def _fingerprints(
    documents: Sequence[Document], config: DuplicatesConfig
) -> tuple[NDArray[np.uint32], NDArray[np.bool_], _Lines]:
    """(D, N_HASHES) signatures, (D,) whether there is one, and the lines."""
    signatures = np.zeros((len(documents), N_HASHES), np.uint32)
    filled = np.zeros(len(documents), bool)

    def look(i: int) -> tuple[NDArray, NDArray]:
        found = signature(gram_hashes(documents[i].pieces(), config.shingle_words))
        if found is not None:
            signatures[i], filled[i] = found, True
        return line_hashes(documents[i].pieces(), LINE_CHARACTERS)

    n_characters = sum(document.n_characters for document in documents)
    n_threads = min(os.cpu_count() or 1, 1 + n_characters // WORTH_THREADS)
    if n_threads == 1:
        lines = [look(i) for i in range(len(documents))]
    else:
        with ThreadPoolExecutor(n_threads) as threads:
            lines = list(threads.map(look, range(len(documents))))
    return signatures, filled, _Lines(lines)


# ---- near duplicates -------------------------------------------------------------------


class _Union:
    """Disjoint sets; the smallest member stands for its set."""

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, a: int, b: int) -> bool:
        """Make one set of two; whether they were two."""
        a, b = sorted((self.find(a), self.find(b)))
        self.parent[b] = a
        return a != b


class _Shingles:
    """Sets of shingles, the last used ones kept."""

    def __init__(self, documents: Sequence[Document], n: int) -> None:
        self.documents, self.n = documents, n
        self.kept: OrderedDict[int, Hashes] = OrderedDict()
        self.n_bytes = 0

    def __getitem__(self, i: int) -> Hashes:
        if i in self.kept:
            self.kept.move_to_end(i)
            return self.kept[i]
        made = self.kept[i] = shingle_set(self.documents[i], self.n)
        self.n_bytes += made.nbytes
        while self.n_bytes > CACHE_BYTES and len(self.kept) > 2:
            self.n_bytes -= self.kept.popitem(last=False)[1].nbytes
        return made


def _buckets(
    signatures: NDArray[np.uint32], filled: NDArray[np.bool_], threshold: float
) -> Iterator[NDArray[np.int64]]:
    """Documents that agree in all rows of a band."""
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


def _join_alike(
    bucket: NDArray[np.int64],
    signatures: NDArray[np.uint32],
    shingles: _Shingles,
    union: _Union,
    threshold: float,
) -> int:
    """Join the families of the pairs in a bucket that are as similar as that; how many were."""
    joined = 0
    for place, a in enumerate(bucket[:-1].tolist()):
        others = bucket[place + 1 :]
        roots = np.array([union.find(b) for b in others.tolist()])
        others = others[roots != union.find(a)]
        if not len(others):
            if place == 0:
                return joined
            continue
        estimates = (signatures[others] == signatures[a]).mean(axis=1)
        for b in others[estimates >= threshold - DOUBT].tolist():
            if union.find(a) != union.find(b) and jaccard(shingles[a], shingles[b]) >= threshold:
                union.join(a, b)
                joined += 1
    return joined


def _shared_lines(lines: _Lines, sizes: Sequence[int]) -> dict[tuple[int, int], int]:
    """Characters in lines that two documents share, by pair."""
    order = np.lexsort((lines.document, lines.hashes))
    hashes, document = lines.hashes[order], lines.document[order]
    fresh = np.ones(len(order), bool)  # a line counts once a document
    fresh[1:] = (hashes[1:] != hashes[:-1]) | (document[1:] != document[:-1])
    order = order[fresh]
    hashes, document, lengths = hashes[fresh], document[fresh], lines.lengths[order]
    shared: dict[tuple[int, int], int] = defaultdict(int)
    same = np.concatenate([[False], hashes[1:] == hashes[:-1], [False]]).astype(np.int8)
    for begin, end in np.flatnonzero(np.diff(same)).reshape(-1, 2):
        group = document[begin : end + 1].tolist()
        pairs: Iterable[tuple[int, int]] = combinations(group, 2)
        if len(group) > COMPARED_PAIRWISE:
            pairs = pairwise(sorted(group, key=lambda i: (sizes[i], i)))
        for a, b in pairs:
            shared[min(a, b), max(a, b)] += int(lengths[begin])
    return shared
