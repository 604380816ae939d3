"""Shares with their standard errors.

Errors are over families of documents or samples, which are drawn at random, not over characters,
which are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.uncertainty import ratio_error


@dataclass(frozen=True)
class Share:
    """A share with its standard error: `count` of `of`."""

    count: int
    of: int
    error: float
    """The standard error of count / of."""

    @property
    def value(self) -> float:
        """The share, 0 to 1; 0 if there are none."""
        return self.count / self.of if self.of else 0.0

    def above(self, other: Share, errors: float = 2.0) -> bool:
        """Whether it exceeds another share by more than chance would explain.

        Where none of the others was chosen, one may have been missed by chance: that is the error.
        """
        of_other = 1 / other.of if other.of and not other.count else other.error
        return self.value - other.value > errors * math.hypot(self.error, of_other)

    def __str__(self) -> str:
        """In percent, with the error if it is known."""
        if not self.count:
            return "0"
        error = 100 * self.error
        return f"{100 * self.value:.1f} %" + (f" ± {error:.1f}" if error >= 0.05 else "")


def of_new_text(count: int, of: int) -> str:
    """How many passages of new text came, to be told behind those of the training text.

    >>> of_new_text(3, 1_200), of_new_text(0, 0)
    ('3 of 1,200 of new text', 'no passage of new text was there to compare with')
    """
    if not of:
        return "no passage of new text was there to compare with"
    return f"{count:,} of {of:,} of new text"


def share_of(chosen: NDArray[Any], clusters: NDArray[np.int64], weights: Any = None) -> Share:
    """The share of N items that were chosen.

    Args:
        chosen: (N,) bool, or the chosen part of each as a number.
        clusters: (N,) items of one cluster belong together.
        weights: (N,) how much each counts; None counts each as 1.
    """
    weights = np.ones(len(chosen)) if weights is None else np.asarray(weights, float)
    count, total = float(np.sum(chosen)), float(weights.sum())
    if not total:
        return Share(0, 0, 0.0)
    _, index = np.unique(clusters, return_inverse=True)
    error = ratio_error(np.bincount(index, np.asarray(chosen, float)), np.bincount(index, weights))
    if not math.isfinite(error):  # a single cluster: treat the items as independent
        p = count / total
        error = math.sqrt(p * (1 - p) / total)
    return Share(round(count), round(total), error)
