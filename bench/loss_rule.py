"""Fits the constants of recipe/expected_loss.py to recorded runs.

Given exponents, repeats and batch the rule is linear in its three scales, so a grid over the
four and a small least-squares problem for each finds the best. Losses count by their ratio.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from folio.recipe.expected_loss import LossRule

SIZE_EXPONENTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
DATA_EXPONENTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
WORTHWHILE_REPEATS = (2.0, 4.0, 8.0, 16.0)
CRITICAL_BATCHES = (500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0)
SMALLEST_BAND = 0.03
"""Ten trustworthy runs cannot promise less."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RecordedRun:
    """A training and its outcome."""

    text: str
    size: str
    parameters: int
    """In the blocks."""
    tokens_per_step: int
    steps: int
    text_tokens: int
    loss: float
    """Best exact validation loss, in nats per token."""
    anchor: bool
    """Whether it is the one that the others on its text are relative to."""


def fit_rule(runs: Sequence[RecordedRun]) -> LossRule:
    """The best rule, with a band from the errors on texts that it was not fitted to."""
    rule = _fit(runs)
    errors = [guess / run.loss - 1 for run, guess in predictions_of_unseen_texts(runs)]
    band = 2 * float(np.sqrt(np.mean(np.square(errors))))
    return replace(rule, band=max(band, SMALLEST_BAND))


def predictions_of_unseen_texts(
    runs: Sequence[RecordedRun],
) -> Iterator[tuple[RecordedRun, float]]:
    """Each run, and its loss by a rule that was fitted to the other texts."""
    anchors = {run.text: run.loss for run in runs if run.anchor}
    for text in anchors:
        rule = _fit([run for run in runs if run.text != text])
        for run in runs:
            if run.text == text and not run.anchor:
                yield run, anchors[text] * _relative(rule, run)


def _fit(runs: Sequence[RecordedRun]) -> LossRule:
    anchors = {run.text: run.loss for run in runs if run.anchor}
    relative = np.array([run.loss / anchors[run.text] for run in runs])
    best, least = None, np.inf
    for a, b, repeats, batch in product(
        SIZE_EXPONENTS, DATA_EXPONENTS, WORTHWHILE_REPEATS, CRITICAL_BATCHES
    ):
        rule = LossRule(0.0, 0.0, a, 0.0, b, repeats, batch, 0.0)
        columns = np.array(
            [
                (
                    1.0,
                    run.parameters**-a,
                    rule.fresh_tokens(run.tokens_per_step, run.steps, run.text_tokens) ** -b,
                )
                for run in runs
            ]
        )
        scales = _positive_least_squares(columns / relative[:, None])
        error = float(np.square(columns @ scales / relative - 1).sum())
        if error < least:
            floor, by_size, by_data = map(float, scales)
            least = error
            best = replace(rule, floor=floor, size_scale=by_size, data_scale=by_data)
    assert best is not None
    return best


def _positive_least_squares(columns: Floats) -> Floats:
    """(R, 3) -> (3,): the scales, none below 0, whose sum comes nearest to 1 in each row."""
    ones, best, least = np.ones(len(columns)), np.zeros(3), np.inf
    for n in (1, 2, 3):
        for chosen in combinations(range(3), n):
            part = np.linalg.lstsq(columns[:, chosen], ones, rcond=None)[0]
            error = float(np.square(columns[:, chosen] @ part - 1).sum())
            if (part >= 0).all() and error < least:
                least, best = error, np.zeros(3)
                best[list(chosen)] = part
    return best


def _relative(rule: LossRule, run: RecordedRun) -> float:
    return rule.relative_loss(run.parameters, run.tokens_per_step, run.steps, run.text_tokens)
