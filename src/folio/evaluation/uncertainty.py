"""How far a loss can be trusted: its standard error over texts, not over tokens, and over seeds.

The losses of the tokens of one text go together, so that their number says little. Texts are what
is drawn at random: the error is that of a ratio over clusters (Cochran 1977, "Sampling Techniques",
3rd edition, chapter 9A); a cluster is a family of documents, or a stretch of a long text.

Another seed would have given another model of the same recipe: which of two recipes is better, only
the deviation between seeds can tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.tokenizers.base import TokenIds

FEWEST_BLOCKS = 16
"""With fewer families than this, long texts are cut into stretches until there are about so
many."""

SURE = 2.0
"""Standard errors beyond which a difference is said to be one."""

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
    family = text_families(tokens, end_of_document, families)
    if len(np.unique(family)) >= FEWEST_BLOCKS:
        return family
    longest = max(1, len(tokens) // FEWEST_BLOCKS)
    stretch = np.arange(len(tokens)) // longest
    return family * (stretch[-1] + 1 if len(tokens) else 1) + stretch


def text_families(
    tokens: TokenIds, end_of_document: int | None, families: Sequence[int] = ()
) -> NDArray[np.int64]:
    """(N,) the family of each token, however few there are; arguments as in `text_blocks`."""
    ends = np.zeros(0, np.int64)
    if end_of_document is not None:
        ends = np.flatnonzero(np.asarray(tokens) == end_of_document)
    document = np.zeros(len(tokens), np.int64)
    document[ends] = 1
    document = np.cumsum(document) - document  # the separator belongs to the document before it
    if len(families) == len(ends) + 1:
        return np.asarray(families, np.int64)[document]
    return document


def standard_error(nll: NDArray[np.floating], blocks: NDArray[np.int64]) -> float:
    """Standard error of the mean cross-entropy of a text, in nats per token; infinite for a
    single block.

    Args:
        nll: (n,) nats of each target.
        blocks: (n,) the cluster of each.

    >>> standard_error(np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1]))
    1.0
    """
    _, index = np.unique(blocks, return_inverse=True)
    return ratio_error(np.bincount(index, nll), np.bincount(index))


def ratio_error(nats: NDArray[Any], targets: NDArray[Any]) -> float:
    """`standard_error` from the sums of blocks.

    Args:
        nats: (K,) cross-entropy summed over the targets of each block.
        targets: (K,) number of targets of each; blocks without a target do not count.
    """
    n_blocks = int(np.count_nonzero(targets))
    if n_blocks < 2:
        return float("inf")
    residuals = nats - nats.sum() / targets.sum() * targets
    variance = n_blocks / (n_blocks - 1) * float(residuals @ residuals)
    return float(np.sqrt(variance) / targets.sum())


@dataclass(frozen=True)
class SeedNoise:
    """How far seeds alone move a loss. It is assumed to be the same for all recipes, so one of them
    may have a single run.
    """

    deviation: float
    """Standard deviation between the seeds of a recipe."""
    freedom: int
    """Degrees of freedom with which it was measured: the runs of each recipe but its first."""

    def error(self, *n_runs: int) -> float:
        """Standard error of a mean over some runs, or of the difference of two such means."""
        return self.deviation * math.sqrt(sum(1 / n for n in n_runs))

    def differ(self, first: Sequence[float], second: Sequence[float]) -> bool:
        """Whether seeds alone would put the mean losses of two recipes this far apart in fewer than
        5 % of cases. Student's t allows for how few seeds the deviation was measured with.
        """
        error = self.error(len(first), len(second))
        return abs(mean(second) - mean(first)) > student_quantile(self.freedom) * error


def seed_noise(groups: Sequence[Sequence[float]]) -> SeedNoise | None:
    """The noise between seeds, pooled over recipes; None if each has one run at most.

    Args:
        groups: the losses of each recipe, one per seed; a recipe of which a run diverged says
            nothing about the others.

    >>> seed_noise([[1.0, 3.0], [5.0, 7.0], [9.0], [1.0, math.inf]])
    SeedNoise(deviation=1.4142135623730951, freedom=2)
    """
    groups = [group for group in groups if all(map(math.isfinite, group))]
    freedom = sum(len(group) - 1 for group in groups if group)
    if not freedom:
        return None
    squares = sum((value - mean(group)) ** 2 for group in groups if group for value in group)
    return SeedNoise(math.sqrt(squares / freedom), freedom)


def student_quantile(freedom: int) -> float:
    """Standard errors within which 95 % of all differences lie by chance.

    Args:
        freedom: degrees of freedom with which the error was measured, 1 or more.

    Source: Student 1908, "The probable error of a mean", as tabled in NIST's Handbook of
    Statistical Methods, 1.3.6.7.2; rounded up above ten.

    >>> student_quantile(4)
    2.776
    """
    table = 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228
    return table[freedom - 1] if freedom <= len(table) else table[-1]
