"""How much of the validation text a model reads in training, word by word.

Two measures: 13 words in a row, in whatever case and punctuation (as in Brown et al. 2020,
https://arxiv.org/abs/2005.14165, appendix C), and 50 characters in a row as they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.corpus.document import Part
from folio.corpus.fingerprints import Hashes, gram_hashes, span_hashes

GRAM_WORDS = 13
SPAN_CHARACTERS = 50

MOST_HASHES = 1 << 22
"""Of the validation text, that are looked for; of a longer text a share, chosen by value."""
FILTER_BITS = 26
SHIFTS = (np.uint64(0), np.uint64(26))
"""Where in a hash its bits for the filter begin; its highest bits choose the sample."""


@dataclass(frozen=True)
class Leakage:
    """Shares of the validation text that stand in the training text."""

    grams: float
    """Of its 13 words in a row."""
    spans: float
    """Of its 50 characters in a row."""
    covered: float
    """Of its characters, those in such a span."""

    def record(self) -> dict[str, Any]:
        """For corpus.json."""
        return asdict(self)


def measure_leakage(
    training: Sequence[Part], validation: Sequence[Part]
) -> tuple[Leakage, list[NDArray[np.int64]]]:
    """Look for the validation text in the training text, both read in pieces.

    Returns:
        The shares, and for each validation part (k, 2) the characters start ... stop - 1 of its
        k stretches that stand in the training text too, ascending and apart.
    """
    grams = _compare(training, validation, lambda pieces: gram_hashes(pieces, GRAM_WORDS))[0]
    spans, found = _compare(
        training, validation, lambda pieces: span_hashes(pieces, SPAN_CHARACTERS)
    )
    stretches = [_stretches(*places) for places in found]
    covered = sum(int((part[:, 1] - part[:, 0]).sum()) for part in stretches)
    return Leakage(grams, spans, covered / max(sum(map(len, validation)), 1)), stretches


def _compare(
    training: Sequence[Part],
    validation: Sequence[Part],
    hashes_of: Callable[[Iterable[str]], Iterator[Hashes]],
) -> tuple[float, list[tuple[NDArray[np.int64], NDArray[np.bool_]]]]:
    """Share of the hashes of the validation text that the training text has; and for each part
    the places of its hashes, and which of them the training text has.
    """
    # Hashes are evenly spread, so those below a bound are a fair sample of any text.
    n_characters = sum(map(len, validation))
    bound = np.uint64(min((1 << 64) - 1, (1 << 64) * MOST_HASHES // max(n_characters, 1)))
    places: list[NDArray[np.int64]] = []
    sampled: list[Hashes] = []
    for part in validation:
        at, kept = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
        position = 0
        for hashes in hashes_of(part.pieces()):
            chosen = np.flatnonzero(hashes <= bound)
            at.append(chosen + position)
            kept.append(hashes[chosen])
            position += len(hashes)
        places.append(np.concatenate(at))
        sampled.append(np.concatenate(kept))
    wanted = np.sort(np.concatenate([np.zeros(0, np.uint64), *sampled]))
    wanted = wanted[np.diff(wanted, prepend=~wanted[:1]) != 0]  # np.unique took most of the time
    found = np.zeros(len(wanted), bool)
    # A Bloom filter (https://doi.org/10.1145/362686.362692) answers for most others, and fast.
    possible = np.zeros(1 << FILTER_BITS if len(wanted) > 1 << 16 else 1 << 20, bool)
    size = np.uint64(len(possible) - 1)
    for shift in SHIFTS:
        possible[(wanted >> shift) & size] = True
    for part in training:
        for hashes in hashes_of(part.pieces()):
            hashes = hashes[hashes <= bound]
            for shift in SHIFTS:
                hashes = hashes[possible[(hashes >> shift) & size]]
            where = _places(hashes, wanted)
            found[where[where >= 0]] = True
    seen = [_places(hashes, wanted[found]) >= 0 for hashes in sampled]
    share = sum(int(flags.sum()) for flags in seen) / max(sum(map(len, sampled)), 1)
    return share, list(zip(places, seen))


def _places(hashes: Hashes, among: Hashes) -> NDArray[np.int64]:
    """(n,) where each stands in a sorted array; -1 where it does not."""
    if not len(among):
        return np.full(len(hashes), -1)
    where = np.minimum(np.searchsorted(among, hashes), len(among) - 1)
    return np.where(among[where] == hashes, where, -1)


def _stretches(places: NDArray[np.int64], seen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(k, 2) the characters that spans cover which were seen.

    Args:
        places: (n,) of the spans that were looked for, ascending.
        seen: (n,) whether each was found. Between two in a row that were, all was.
    """
    edges = np.diff(np.concatenate([[False], seen, [False]]).astype(np.int8))
    starts = places[np.flatnonzero(edges > 0)]
    stops = places[np.flatnonzero(edges < 0) - 1] + SPAN_CHARACTERS
    apart = starts[1:] > stops[:-1]
    starts, stops = (
        starts[np.append(True, apart)[: len(starts)]],
        stops[np.append(apart, True)[: len(stops)]],
    )
    return np.stack([starts, stops], axis=1)
