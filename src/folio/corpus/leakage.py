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
) -> tuple[Leakage, list[NDArray[np.bool_]]]:
    """Look for the validation text in the training text.

    Returns:
        The shares, and for each validation part (its characters,) whether each is in a span of 50
        that stands in the training text too.
    """
    grams = _share_seen(training, validation, lambda pieces: gram_hashes(pieces, GRAM_WORDS))[0]
    share, seen = _share_seen(
        training, validation, lambda pieces: span_hashes(pieces, SPAN_CHARACTERS)
    )
    masks = [_covered(part, flags) for part, flags in zip(validation, seen)]
    n_characters = sum(map(len, masks))
    covered = sum(int(mask.sum()) for mask in masks) / max(n_characters, 1)
    return Leakage(grams, share, covered), masks


def _share_seen(
    training: Sequence[Part],
    validation: Sequence[Part],
    hashes_of: Callable[[Iterable[str]], Iterator[Hashes]],
) -> tuple[float, list[NDArray[np.bool_]]]:
    """Share of the hashes of the validation text that the training text has, and for each part
    which of them."""
    empty = np.zeros(0, np.uint64)
    parts = [np.concatenate([empty, *hashes_of(part.pieces())]) for part in validation]
    n_hashes = sum(map(len, parts))
    # Hashes are evenly spread, so those below a bound are a fair sample of any text.
    bound = np.uint64(min((1 << 64) - 1, (1 << 64) * MOST_HASHES // max(n_hashes, 1)))
    wanted = np.sort(np.concatenate([empty, *(part[part <= bound] for part in parts)]))
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
    seen = [_places(part, wanted[found]) >= 0 for part in parts]
    n_sampled = sum(int((part <= bound).sum()) for part in parts)
    return sum(int(flags.sum()) for flags in seen) / max(n_sampled, 1), seen


def _places(hashes: Hashes, among: Hashes) -> NDArray[np.int64]:
    """(n,) where each stands in a sorted array; -1 where it does not."""
    if not len(among):
        return np.full(len(hashes), -1)
    where = np.minimum(np.searchsorted(among, hashes), len(among) - 1)
    return np.where(among[where] == hashes, where, -1)


def _covered(part: Part, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(characters,) whether each lies in a span that was seen."""
    depth = np.zeros(len(part) + 1, np.int32)
    begins = np.flatnonzero(seen)
    np.add.at(depth, begins, 1)
    np.add.at(depth, begins + SPAN_CHARACTERS, -1)
    return np.cumsum(depth[:-1]) > 0
