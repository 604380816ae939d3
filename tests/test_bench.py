"""The opponent of the benchmarks is a fair one; what they fit, they find."""

from __future__ import annotations

import pytest

from bench.loss_rule import RecordedRun, fit_rule, predictions_of_unseen_texts
from bench.plain_loop import Shape
from bench.training import check_same_function, recipe_of
from folio.recipe.expected_loss import LossRule


def test_the_plain_loop_trains_the_same_function_as_the_gpt2_preset():
    shape = Shape(vocab_size=61, context_length=31, n_layers=2, n_heads=3, d_model=24)
    check_same_function(shape, recipe_of(shape))


def test_the_calibration_finds_the_rule_that_made_the_runs():
    """Two texts of which one is 30 % harder, and a rule between the places of the grid."""
    truth = LossRule(0.35, 8.0, 0.35, 12.0, 0.33, 6.0, 3000.0, 0.0)

    def run(text: str, n: int, batch: int, steps: int, scale: float) -> RecordedRun:
        tokens = {"a": 300_000, "b": 1_000_000}[text]
        loss = scale * truth.relative_loss(n, batch, steps, tokens)
        return RecordedRun(text, "", n, batch, steps, tokens, loss, (n, steps) == (800_000, 150))

    runs = [
        run(text, n, batch, steps, scale)
        for text, scale in (("a", 1.0), ("b", 1.3))
        for n, batch in ((800_000, 768), (1_800_000, 2048), (4_700_000, 4096))
        for steps in (150, 500, 2000)
    ]
    rule = fit_rule(runs)
    assert rule.band < 0.06
    for found, guess in predictions_of_unseen_texts(runs):
        assert guess == pytest.approx(found.loss, rel=0.06)
    between = (2_500_000, 2048, 1000, 600_000)
    anchors = [r.relative_loss(800_000, 768, 150, 300_000) for r in (rule, truth)]
    assert rule.relative_loss(*between) / anchors[0] == pytest.approx(
        truth.relative_loss(*between) / anchors[1], rel=0.03
    )
