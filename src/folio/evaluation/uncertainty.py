"""How far a loss can be trusted: its standard error over texts, not over tokens.

The tokens of one text are surprising together, so that their number says little. Texts are what is
drawn at random: the error is that of a ratio over clusters (Cochran 1977, "Sampling Techniques",
3rd edition, chapter 9A); a cluster is a family of documents, or a stretch of a long text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.tokenizers.base import TokenIds

FEWEST_BLOCKS = 16
"""With fewer families than this, long texts are cut into stretches until there are about so
many."""

TELLING = 0.02
"""Share of a loss; if two standard errors are more, models that differ by that much cannot be told
apart."""


def text_blocks(
    tokens: TokenIds, end_of_document: int | None, families: Sequence[int] = ()
) -> NDArray[np.int64]:
    """(N,) the cluster of each token.

    Args:
        tokens: (N,) documents with `end_of_document` between them.
        end_of_document: the id; None if nothing separates documents.
        families: family of each document; if empty, each is its own.
    """
    ends = np.zeros(0, np.int64)
    if end_of_document is not None:
        ends = np.flatnonzero(np.asarray(tokens) == end_of_document)
    document = np.zeros(len(tokens), np.int64)
    document[ends] = 1
    document = np.cumsum(document) - document  # the separator belongs to the document before it
    if len(families) == len(ends) + 1:
        document = np.asarray(families, np.int64)[document]
    n_families = len(np.unique(document))
    if n_families >= FEWEST_BLOCKS:
        return document
    longest = max(1, len(tokens) // FEWEST_BLOCKS)
    stretch = np.arange(len(tokens)) // longest
    return document * (stretch[-1] + 1 if len(tokens) else 1) + stretch


def standard_error(surprise: NDArray[np.floating], blocks: NDArray[np.int64]) -> float:
    """Standard error of the mean surprise of a text, in nats per token; infinite for a single
    block.

    Args:
        surprise: (n,) nats of each target.
        blocks: (n,) the cluster of each.

    >>> standard_error(np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1]))
    1.0
    """
    _, index = np.unique(blocks, return_inverse=True)
    return ratio_error(np.bincount(index, surprise), np.bincount(index))


def ratio_error(nats: NDArray[Any], targets: NDArray[Any]) -> float:
    """`standard_error` from the sums of blocks.

    Args:
        nats: (K,) surprise summed over the targets of each block.
        targets: (K,) number of targets of each; blocks without a target do not count.
    """
    n_blocks = int(np.count_nonzero(targets))
    if n_blocks < 2:
        return float("inf")
    residuals = nats - nats.sum() / targets.sum() * targets
    variance = n_blocks / (n_blocks - 1) * float(residuals @ residuals)
    return float(np.sqrt(variance) / targets.sum())
