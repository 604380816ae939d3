"""How much of the validation text a model has read in training, compared literally.

Two measures: 13 consecutive words, ignoring case and punctuation (as in Brown et al. 2020,
https://arxiv.org/abs/2005.14165, appendix C), and 50 consecutive characters as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.corpus.document import Part
from folio.corpus.fingerprints import Hashes, gram_hashes, span_hashes, word_starts

GRAM_WORDS = 13
SPAN_CHARACTERS = 50

MOST_HASHES = 1 << 22
"""How many hashes of the validation text are looked up; of a longer text a sample, chosen
by value."""
FILTER_BITS = 26
SHIFTS = (np.uint64(0), np.uint64(26))
"""Which bits of a hash address the Bloom filter; its highest bits choose the sample."""


@dataclass(frozen=True)
class Leakage:
    """Shares of the validation text that stand in the training text."""

    grams: float
    """Share of its word 13-grams."""
    spans: float
    """Share of its 50-character spans."""
    covered: float
    """Share of its characters that such a span covers."""

    def record(self) -> dict[str, Any]:
        """Return the entry of corpus.json."""
        return asdict(self)


def measure_leakage(
    training: Sequence[Part], validation: Sequence[Part]
) -> tuple[Leakage, list[NDArray[np.int64]]]:
    """Look up the validation text in the training text; both are streamed.

    Returns:
        The shares, and for each validation part (k, 2) the characters start ... stop - 1 of its
        k stretches that stand in the training text too, ascending and apart.
    """
    grams = _compare(training, validation, _grams)[0]
    spans, found = _compare(
        training, validation, lambda pieces: span_hashes(pieces, SPAN_CHARACTERS)
    )
    stretches = [_stretches(*places, SPAN_CHARACTERS) for places in found]
    covered = sum(int((part[:, 1] - part[:, 0]).sum()) for part in stretches)
    return Leakage(grams, spans, covered / max(sum(map(len, validation)), 1)), stretches


def shared_stretches(parts: Sequence[Part], others: Sequence[Part]) -> list[NDArray[np.int64]]:
    """Find the text that stands in others too, whatever its case, punctuation and line ends.

    Returns:
        For each part (k, 2) the characters start ... stop - 1, counted from its start, of its k
        stretches of 13 words or more, ascending and apart.
    """
    _, found = _compare(others, parts, _grams)
    words = [_stretches(*places, GRAM_WORDS) for places in found]
    return [_characters(part, places) for part, places in zip(parts, words)]


def _grams(pieces: Iterable[str]) -> Iterator[Hashes]:
    return gram_hashes(pieces, GRAM_WORDS)


def _characters(part: Part, words: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn (k, 2) numbers of words into positions of their first characters; behind the last word
    the part ends.
    """
    if not len(words):
        return words
    positions = np.full(words.shape, len(part))
    n_words = 0
    for starts in word_starts(part.pieces()):
        here = (words >= n_words) & (words < n_words + len(starts))
        positions[here] = starts[words[here] - n_words]
        n_words += len(starts)
    return positions


def _compare(
    training: Sequence[Part],
    validation: Sequence[Part],
    hashes_of: Callable[[Iterable[str]], Iterator[Hashes]],
) -> tuple[float, list[tuple[NDArray[np.int64], NDArray[np.bool_]]]]:
    """Compare hashes of both texts.

    Returns:
        The share of the validation text's hashes that occur in training, and for each part the
        positions of its hashes and whether each occurs in training.
    """
    # Hashes are uniform, so those below a bound are a fair sample of any text.
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
    # A Bloom filter (https://doi.org/10.1145/362686.362692) quickly rules out most of the others.
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
    """(n,) index of each hash in a sorted array; -1 where it is missing."""
    if not len(among):
        return np.full(len(hashes), -1)
    where = np.minimum(np.searchsorted(among, hashes), len(among) - 1)
    return np.where(among[where] == hashes, where, -1)


def _stretches(
    places: NDArray[np.int64], seen: NDArray[np.bool_], length: int
) -> NDArray[np.int64]:
    """(k, 2) stretches of a text covered by spans that were found.

    Args:
        places: (n,) positions of the spans that were looked up, ascending.
        seen: (n,) whether each was found. Everything between two consecutive ones that were found
            counts as found.
        length: of a span, in characters or words as the positions are.
    """
    edges = np.diff(np.concatenate([[False], seen, [False]]).astype(np.int8))
    starts = places[np.flatnonzero(edges > 0)]
    stops = places[np.flatnonzero(edges < 0) - 1] + length
    apart = starts[1:] > stops[:-1]
    starts, stops = (
        starts[np.append(True, apart)[: len(starts)]],
        stops[np.append(apart, True)[: len(stops)]],
    )
    return np.stack([starts, stops], axis=1)
