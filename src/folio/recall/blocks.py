"""Divides a text into blocks: families of documents, or stretches if there are few families.

The author as the yardstick: each family of the training text is looked up in all others. Errors
are over smaller blocks where there are few families.
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
    numbers = _family_numbers(text, families)
    if numbers.max(initial=0) + 1 < FEWEST_BLOCKS:
        n_stretches = max(2, min(FEWEST_BLOCKS, len(text) // SHORTEST))
        cuts = np.linspace(0, len(text), n_stretches + 1).astype(np.int64)[1:-1]
        both = np.unique(np.concatenate([stops, cuts]))
        document = np.searchsorted(stops, both, "left")
        stretch = np.searchsorted(cuts, both, "left")
        pairs = numbers[document] * FEWEST_BLOCKS + stretch
        stops, numbers = both, np.unique(pairs, return_inverse=True)[1]
    return Blocks(stops.astype(np.int64), numbers.astype(np.int32))


def yardstick_of(text: TokenText, families: Sequence[int] = ()) -> Blocks:
    """The families of a text, each of which is looked up in all others.

    For a family of more than half of the text, the others are too little. It is cut into stretches;
    those at the same place of its documents, which are alike, have one color. Arguments as in
    `blocks_of`.
    """
    starts, numbers = text.document_starts, _family_numbers(text, families)
    stops = np.append(starts[1:], len(text))
    sizes = np.diff(starts, append=len(text) + 1)  # as if a separator stood behind the last, too
    of_family = np.bincount(numbers, sizes)
    main = of_family.argmax()
    if 2 * of_family[main] <= len(text):
        return Blocks(stops.astype(np.int64), numbers.astype(np.int32))
    documents = np.flatnonzero(numbers == main)
    n_stretches = max(2, min(FEWEST_BLOCKS, int(sizes[documents].max()) // SHORTEST))
    parts = sizes[documents, None] * np.arange(1, n_stretches) // n_stretches
    both = np.unique(np.concatenate([stops, (starts[documents, None] + parts).ravel()]))
    document = np.searchsorted(stops, both, "left")
    stretch = ((both - starts[document]) * n_stretches - 1) // sizes[document]
    of_document = numbers[document]
    colors = np.where(of_document == main, numbers.max() + 1 + stretch, of_document)
    return Blocks(both.astype(np.int64), colors.astype(np.int32))


def _family_numbers(text: TokenText, families: Sequence[int]) -> NDArray[np.int64]:
    """(D,) the number, from 0 on, of the family of each document."""
    n_documents = len(text.document_starts)
    if len(families) != n_documents:
        return np.arange(n_documents)
    return np.unique(np.asarray(families), return_inverse=True)[1]


def color_at(blocks: Blocks, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) the block color of some places."""
    where = np.searchsorted(blocks.stops, places, "right")
    return blocks.colors[np.minimum(where, len(blocks.stops) - 1)].astype(np.int64)


def queries_of(
    text: TokenText, clusters: Blocks, most: int, yardstick: Blocks | None = None
) -> list[Query]:
    """The text as queries, or evenly spaced stretches of it, about `most` symbols in all.

    Args:
        text: the text.
        clusters: its blocks for the error.
        most: symbols.
        yardstick: its blocks, if each query is only looked up in those of other colors.
    """
    edges = clusters.stops
    if yardstick is not None:
        edges = np.union1d(edges, yardstick.stops)
    n_stretches = -(-len(text) // STRETCH)
    wanted = max(1, most // STRETCH)
    chosen = np.arange(n_stretches)
    if wanted < n_stretches:
        chosen = np.linspace(0, n_stretches - 1, wanted).astype(np.int64)
    queries = []
    for start in (chosen * STRETCH).tolist():
        stop = min(start + STRETCH, len(text))
        inside = edges[(edges > start) & (edges < stop)]
        for first, last in zip([start, *inside], [*inside, stop]):
            place = np.array([first])
            excluded = NONE if yardstick is None else int(color_at(yardstick, place)[0])
            queries += [
                Query(part, int(color_at(clusters, place)[0]), excluded)
                for part in split_at_breaks(text.between(int(first), int(last)))
            ]
    return queries
