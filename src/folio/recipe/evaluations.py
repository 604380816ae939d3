"""How often the losses are evaluated during training, if the recipe does not say."""

from __future__ import annotations

import math

from folio.training.config import TrainingConfig
from folio.training.deadline import MOST_EVALUATION_SHARE

EVALUATION_SHARE = 0.05
"""Share of a run's time that is spent on evaluations."""
EVALUATIONS = (3, 20)
"""Fewest evaluations, enough for a curve, and most; still fewer if they would take more than
MOST_EVALUATION_SHARE of a budget in minutes."""


def evaluations_in(seconds: float, evaluation_seconds: float) -> int:
    """How many evaluations a budget affords: at least one.

    >>> evaluations_in(300, 1.0), evaluations_in(30, 1.0), evaluations_in(30, 10.0)
    (15, 3, 1)
    """
    least, most = EVALUATIONS
    evaluation_seconds = max(evaluation_seconds, 1e-9)
    usual = min(max(int(EVALUATION_SHARE * seconds / evaluation_seconds), least), most)
    return max(min(usual, int(MOST_EVALUATION_SHARE * seconds / evaluation_seconds)), 1)


def evaluation_interval(
    config: TrainingConfig, steps: int, context_length: int, n_validation: int
) -> int:
    """Steps between evaluations, if the recipe does not say.

    An evaluation reads the validation text and as much training text; a forward pass costs a third
    of a training step.
    """
    if config.evaluation_interval:
        return config.evaluation_interval
    if config.evaluations:
        return max(1, math.ceil(steps / config.evaluations))
    cost = 2 * n_validation / 3 / (config.batch_size * context_length)  # in steps
    wanted = min(max(int(EVALUATION_SHARE * steps / cost), EVALUATIONS[0]), EVALUATIONS[1])
    return max(1, math.ceil(steps / wanted))
