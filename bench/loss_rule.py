"""Fits the constants of recipe/expected_loss.py to recorded runs, by a grid over them.

Losses count by their ratio; floor and scale of a text come from its anchors, as in a plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from folio.recipe.expected_loss import ANCHOR_SIZE, ANCHOR_STEPS, LossRule, TrainingBudget

SIZE_SCALES = (0.2, 0.4, 0.8, 1.6, 3.2)
SIZE_EXPONENTS = (0.2, 0.35, 0.5)
DATA_EXPONENTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
WORTHWHILE_REPEATS = (2.0, 4.0, 8.0, 16.0)
CRITICAL_BATCHES = (1000.0, 2000.0, 4000.0, 8000.0, 16000.0)
SMALLEST_BAND = 0.05
"""A dozen runs cannot promise less."""


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

    @property
    def budget(self) -> TrainingBudget:
        """What went into it."""
        return TrainingBudget(self.parameters, self.tokens_per_step, self.steps, self.text_tokens)

    @property
    def is_anchor(self) -> bool:
        """Whether it is one of the two that the others on its text are relative to."""
        return self.size == ANCHOR_SIZE and self.steps in ANCHOR_STEPS


def fit_rule(runs: Sequence[RecordedRun]) -> LossRule:
    """The best rule, with a band from the errors on texts that it was not fitted to."""
    errors = [guess / run.loss - 1 for run, guess in predictions_of_unseen_texts(runs)]
    band = 2 * float(np.sqrt(np.mean(np.square(errors))))
    return replace(_fit(runs), band=max(band, SMALLEST_BAND))


def predictions_of_unseen_texts(
    runs: Sequence[RecordedRun],
) -> Iterator[tuple[RecordedRun, float]]:
    """Each run, and its loss by a rule that was fitted to the other texts."""
    for text in {run.text: None for run in runs}:
        rule = _fit([run for run in runs if run.text != text])
        own = [run for run in runs if run.text == text]
        yield from _predictions(rule, own)


def _fit(runs: Sequence[RecordedRun]) -> LossRule:
    texts = {run.text for run in runs}
    by_text = [[run for run in runs if run.text == text] for text in texts]

    def error(rule: LossRule) -> float:
        pairs = (pair for own in by_text for pair in _predictions(rule, own))
        return sum((guess / run.loss - 1) ** 2 for run, guess in pairs)

    grid = product(
        SIZE_SCALES, SIZE_EXPONENTS, DATA_EXPONENTS, WORTHWHILE_REPEATS, CRITICAL_BATCHES
    )
    return min((LossRule(*constants, band=0.0) for constants in grid), key=error)


def _predictions(
    rule: LossRule, runs: Sequence[RecordedRun]
) -> Iterator[tuple[RecordedRun, float]]:
    """The runs on one text but for its anchors, and their losses by a rule."""
    anchors = [(run.budget, run.loss) for run in runs if run.is_anchor]
    anchors.sort(key=lambda anchor: anchor[0].steps)
    for run in runs:
        if not run.is_anchor:
            yield run, rule.expected_loss(anchors, run.budget)
