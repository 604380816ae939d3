"""Families: clusters of documents so alike that a model that reads one knows the others.

    copies      equal text
    near        Jaccard similarity of the sets of word 5-grams at or above a threshold.
                MinHash signatures in bands (LSH) propose the pairs, the actual sets confirm them
    contained   at least half of the distinct lines of the shorter document occur in the other, or,
                whatever its lines and their length, of its word 5-grams (a sample of them decides)

Families are the connected components. They depend on contents alone, not on names or order.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from folio.config import require
from folio.corpus.document import Document
from folio.corpus.fingerprints import Hashes, gram_hashes
from folio.corpus.lines import Lines, Overlaps
from folio.corpus.minhash import N_HASHES, Shingles, buckets, signature
from folio.device import cores

DOUBT = 0.15
"""Four standard deviations of a similarity estimated from a signature: a pair further below the
threshold is not compared."""
SAMPLED = 4
"""One in so many shingles, a power of two, tells what is contained in what; chosen by value."""
FEWEST_SHARED = 4
"""Sampled shingles that two documents share at least if one contains the other: some twenty words.
Fewer, such as a greeting, do not tell where a text comes from."""
WORTH_THREADS = 4 << 20
"""In characters; one thread fingerprints a smaller corpus."""


@dataclass(frozen=True, kw_only=True)
class DuplicatesConfig:
    """Which documents count as the same text."""

    threshold: float = 0.8
    """Jaccard similarity from which two documents are near duplicates."""

    shingle_words: int = 5
    """Words per shingle; two documents are compared by their shingles."""

    contained: float = 0.5
    """Share of a document's distinct lines, by length, or of its shingles that must occur in
    another to join its cluster; 1.01 turns this off."""

    remove: Literal["none", "exact", "near"] = "none"
    """What is left out of the training text: nothing, exact copies, or all of a cluster except its
    longest document."""

    def __post_init__(self) -> None:
        table = "corpus.duplicates"
        require(self, table, "above 0 and at most 1", lambda x: 0 < x <= 1, "threshold")
        require(self, table, "at least 1", lambda x: x >= 1, "shingle_words")
        require(self, table, "above 0", lambda x: x > 0, "contained")


@dataclass(frozen=True)
class Families:
    """Which documents belong to the same cluster of near duplicates."""

    of: list[str]
    """The family of each document: the smallest sha256 of its members."""
    copies: int
    """Documents whose text equals that of an earlier one."""
    near_pairs: int
    """Confirmed pairs of different but similar texts; only as many as were needed to join the
    families."""
    contained_pairs: int
    repeated_lines: int
    """Lines that occurred before."""
    repeated_characters: int

    def record(self) -> dict[str, Any]:
        """Return the entry of corpus.json."""
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
        """Indices of the documents of each family."""
        members = defaultdict(list)
        for i, family in enumerate(self.of):
            members[family].append(i)
        return dict(members)


def find_families(documents: Sequence[Document], config: DuplicatesConfig) -> Families:
    """Compare all documents with each other, in about linear time."""
    # Sorted by size, so that among many documents that share a line, neighbours are compared.
    different = {document.sha256: document for document in documents}
    unique = sorted(different.values(), key=lambda d: (d.n_characters, d.sha256))
    copies = Counter(document.sha256 for document in documents)
    n_copies = np.array([copies[document.sha256] for document in unique], np.int64)
    union = _Union(len(unique))
    shingles = Shingles(unique, config.shingle_words)
    near = 0
    with closing(Lines(len(unique))) as lines, closing(Overlaps(len(unique))) as grams:
        signatures, filled = _fingerprints(unique, config.shingle_words, lines, grams)
        for bucket in buckets(signatures, filled, config.threshold):
            near += _join_alike(bucket, signatures, shingles, union, config.threshold)
        lines.compare()
        grams.compare(widespread=False)  # as the words of a form are
        pairs = lines.contained(config.contained), grams.contained(config.contained, FEWEST_SHARED)
        contained = sum(union.join(a, b) for a, b in chain(*pairs))
    families = defaultdict(list)
    for i, document in enumerate(unique):
        families[union.find(i)].append(document.sha256)
    names = {sha: min(family) for family in families.values() for sha in family}
    return Families(
        of=[names[document.sha256] for document in documents],
        copies=len(documents) - len(unique),
        near_pairs=near,
        contained_pairs=contained,
        repeated_lines=int(lines.counts @ n_copies) - lines.n_different,
        repeated_characters=int(lines.characters @ n_copies) - lines.different_length,
    )


def _fingerprints(
    documents: Sequence[Document], shingle_words: int, lines: Lines, grams: Overlaps
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Compute (D, N_HASHES) signatures and (D,) whether each exists; the lines go to `lines`, and a
    sample of the shingles to `grams`.
    """
    signatures = np.zeros((len(documents), N_HASHES), np.uint32)
    filled = np.zeros(len(documents), bool)

    def noted(i: int, shingles: Iterable[Hashes]) -> Iterator[Hashes]:
        for hashes in shingles:
            sample = np.unique(hashes[hashes & np.uint64(SAMPLED - 1) == 0])
            grams.add(i, sample, np.ones(len(sample), np.int64))
            yield hashes

    def look(i: int) -> None:
        found = signature(noted(i, gram_hashes(documents[i].pieces(), shingle_words)))
        if found is not None:
            signatures[i], filled[i] = found, True
        lines.read(i, documents[i].pieces())

    n_characters = sum(document.n_characters for document in documents)
    n_threads = min(cores(), 1 + n_characters // WORTH_THREADS)
    with ThreadPoolExecutor(n_threads) as threads:
        deque(threads.map(look, range(len(documents))), maxlen=0)  # re-raises their errors
    return signatures, filled


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
        """Merge two sets; returns whether they were apart."""
        a, b = sorted((self.find(a), self.find(b)))
        self.parent[b] = a
        return a != b


def _join_alike(
    bucket: NDArray[np.int64],
    signatures: NDArray[np.uint32],
    shingles: Shingles,
    union: _Union,
    threshold: float,
) -> int:
    """Join the families of pairs in a bucket that reach the threshold; returns how many did."""
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
            if union.find(a) != union.find(b) and shingles.jaccard(a, b) >= threshold:
                union.join(a, b)
                joined += 1
    return joined
