"""The opponent of the benchmarks is a fair one; what they fit, they find."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.loss_rule import RecordedRun, fit_rule, predictions_of_unseen_texts
from bench.plain_loop import Shape
from bench.training import check_same_function, recipe_of
from folio.recipe.expected_loss import LossRule


def test_the_plain_loop_trains_the_same_function_as_the_gpt2_preset():
    shape = Shape(vocab_size=61, context_length=31, n_layers=2, n_heads=3, d_model=24)
    check_same_function(shape, recipe_of(shape))


def test_the_calibration_finds_the_rule_that_made_the_runs():
    """Two texts, each with a floor and a scale; the rule lies between the places of the grid."""
    truth = LossRule(1.2, 0.3, 0.55, 6.0, 3000.0, 0.0)

    def run(text: str, size: str, n: int, batch: int, steps: int) -> RecordedRun:
        tokens, floor, scale = {"a": (300_000, 1.0, 0.2), "b": (1_000_000, 1.3, 0.1)}[text]
        blank = RecordedRun(text, size, n, batch, steps, tokens, 0.0)
        return replace(blank, loss=floor + scale * truth.shortfall(blank.effort))

    runs = [
        run(text, size, n, batch, steps)
        for text in "ab"
        for size, n, batch in (("nano", 800_000, 768), ("mini", 4_700_000, 4096))
        for steps in (150, 500, 2000)
    ]
    assert fit_rule(runs).band < 0.06
    for found, guess in predictions_of_unseen_texts(runs):
        assert guess == pytest.approx(found.loss, rel=0.05)
