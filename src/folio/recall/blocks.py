"""Divides a text into blocks: families of documents, or stretches if there are few families.

The author as the yardstick: each block of the training text is looked up in all others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.automaton import NONE
from folio.evaluation.matching import Blocks, Query, split_at_breaks
from folio.evaluation.uncertainty import FEWEST_BLOCKS
from folio.tokens.text import TokenText

STRETCH = 2048
"""Symbols per query, if a text is too long to be looked up as a whole."""
SHORTEST = 256
"""Symbols of a stretch of a document: in much shorter ones no copy would fit."""


def blocks_of(text: TokenText, families: Sequence[int] = ()) -> Blocks:
    """The families of a text; with fewer than 16, stretches of their documents, two at least.

    Args:
        text: documents with an end-of-document token between them.
        families: of each document; each is its own where there are none.
    """
    stops = np.append(text.document_starts[1:], len(text))
    numbers = np.arange(len(stops))
    if len(families) == len(stops):
        numbers = np.unique(np.asarray(families), return_inverse=True)[1]
    if numbers.max(initial=0) + 1 < FEWEST_BLOCKS:
        n_stretches = max(2, min(FEWEST_BLOCKS, len(text) // SHORTEST))
        cuts = np.linspace(0, len(text), n_stretches + 1).astype(np.int64)[1:-1]
        both = np.unique(np.concatenate([stops, cuts]))
        document = np.searchsorted(stops, both, "left")
        stretch = np.searchsorted(cuts, both, "left")
        pairs = numbers[document] * FEWEST_BLOCKS + stretch
        stops, numbers = both, np.unique(pairs, return_inverse=True)[1]
    return Blocks(stops.astype(np.int64), numbers.astype(np.int32))


def color_at(blocks: Blocks, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) the block color of some places."""
    where = np.searchsorted(blocks.stops, places, "right")
    return blocks.colors[np.minimum(where, len(blocks.stops) - 1)].astype(np.int64)


def queries_of(text: TokenText, blocks: Blocks, most: int, exclude_own: bool) -> list[Query]:
    """The text as queries, or evenly spaced stretches of it, about `most` symbols in all.

    Args:
        text, blocks: as in `blocks_of`.
        most: symbols.
        exclude_own: whether each is looked up in the blocks of other colors only.
    """
    n_stretches = -(-len(text) // STRETCH)
    wanted = max(1, most // STRETCH)
    chosen = np.arange(n_stretches)
    if wanted < n_stretches:
        chosen = np.linspace(0, n_stretches - 1, wanted).astype(np.int64)
    queries = []
    for start in (chosen * STRETCH).tolist():
        stop = min(start + STRETCH, len(text))
        inside = blocks.stops[(blocks.stops > start) & (blocks.stops < stop)]
        for first, last in zip([start, *inside], [*inside, stop]):
            color = int(color_at(blocks, np.array([first]))[0])
            excluded = color if exclude_own else NONE
            queries += [
                Query(part, color, excluded)
                for part in split_at_breaks(text.between(int(first), int(last)))
            ]
    return queries
