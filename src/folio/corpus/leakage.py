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

MOST_HASHES = 1 << 24
"""Of the validation text, that are looked for; of a longer text a share, chosen by value."""
FILTER_BITS = 26
"""Of a hash, that say in one look that most others are not among them."""


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
    wanted = np.unique(np.concatenate([empty, *(part[part <= bound] for part in parts)]))
    found = np.zeros(len(wanted), bool)
    shift = np.uint64(64 - FILTER_BITS)
    # The sample is taken at the low end, so the filter goes by bits that are free.
    possible = np.zeros(1 << FILTER_BITS if len(wanted) > 1 << 16 else 1 << 20, bool)
    mask = np.uint64(len(possible) - 1)
    possible[(wanted ^ (wanted >> shift)) & mask] = True
    for part in training:
        for hashes in hashes_of(part.pieces()):
            hashes = hashes[hashes <= bound]
            hashes = hashes[possible[(hashes ^ (hashes >> shift)) & mask]]
            where = np.searchsorted(wanted, hashes)
            where[where == len(wanted)] = 0
            if len(wanted):
                found[where[wanted[where] == hashes]] = True
    seen = [_member(part, wanted, found) for part in parts]
    n_sampled = sum(int((part <= bound).sum()) for part in parts)
    return sum(int(flags.sum()) for flags in seen) / max(n_sampled, 1), seen


def _member(hashes: Hashes, wanted: Hashes, found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not len(wanted) or not len(hashes):
        return np.zeros(len(hashes), bool)
    where = np.searchsorted(wanted, hashes)
    where[where == len(wanted)] = 0
    return (wanted[where] == hashes) & found[where]


def _covered(part: Part, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(characters,) whether each lies in a span that was seen."""
    depth = np.zeros(len(part) + 1, np.int32)
    begins = np.flatnonzero(seen)
    np.add.at(depth, begins, 1)
    np.add.at(depth, begins + SPAN_CHARACTERS, -1)
    return np.cumsum(depth[:-1]) > 0
