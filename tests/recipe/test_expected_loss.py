"""The rule for the loss of a size and a budget."""

from __future__ import annotations

import math
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest

from folio.model.config import ModelConfig
from folio.recipe.expected_loss import (
    ANCHOR_STEPS,
    RULE,
    LossRule,
    TrainingBudget,
    anchor_file,
    block_parameters,
    read_anchors,
    write_anchors,
)
from folio.storage import write_json

SIMPLE = LossRule(
    size_scale=2.0,
    size_exponent=0.5,
    data_exponent=1.0,
    worthwhile_repeats=4.0,
    critical_batch=100.0,
    band=0.1,
)
FOUR_MILLION, TEXT = 4_000_000, 10**9


def test_the_parts_are_added():
    # A batch of the critical size makes half of 600 tokens useful; 2 / sqrt(4) + 1e6 / 300.
    budget = TrainingBudget(FOUR_MILLION, 100, 6, TEXT)
    assert SIMPLE.shortfall(budget) == pytest.approx(1 + 1e6 / 300)


def test_floor_and_scale_are_those_of_the_text():
    budgets = [TrainingBudget(n, 1, steps, TEXT) for n, steps in ((1, 100), (1, 200), (9, 5000))]
    losses = [1.5 + 0.01 * SIMPLE.shortfall(budget) for budget in budgets]
    anchors = list(zip(budgets[:2], losses[:2]))
    assert SIMPLE.expected_loss(anchors, budgets[2]) == pytest.approx(losses[2])


def test_a_text_that_teaches_nothing_promises_nothing():
    short, longer = (TrainingBudget(10**6, 768, steps, TEXT) for steps in (150, 500))
    anchors = [(short, 2.0), (longer, 2.1)]
    assert SIMPLE.expected_loss(anchors, TrainingBudget(10**7, 768, 5000, TEXT)) == pytest.approx(
        2.1
    )


def test_a_repeated_token_is_worth_less_each_time():
    def fresh(tokens: int) -> float:
        return SIMPLE.fresh_tokens(TrainingBudget(10**6, 1, tokens, 1000))

    worth = [fresh(1000 * epochs) for epochs in (1, 2, 3, 1000)]
    gains = [b - a for a, b in pairwise(worth)]
    assert worth[0] == pytest.approx(1000, rel=0.02) and gains[0] > gains[1] > 0
    # Muennighoff et al., equation 5: U (1 + R*) is the limit; the second epoch, R = 1, gives
    # R* (1 - exp(-1 / R*)) times the text.
    assert worth[3] == pytest.approx(5000, rel=1e-3)
    assert fresh(2020) - 1000 == pytest.approx(4000 * (1 - math.exp(-1 / 4)), rel=0.01)


def test_larger_batches_make_fewer_useful_tokens_of_the_same_number():
    small, large = TrainingBudget(10**6, 10, 60, TEXT), TrainingBudget(10**6, 100, 6, TEXT)
    assert SIMPLE.fresh_tokens(small) > SIMPLE.fresh_tokens(large)


def test_the_calibrated_rule_falls_with_steps_with_text_and_with_size():
    def shortfall(n: int, steps: int, text: int) -> float:
        return RULE.shortfall(TrainingBudget(n, 768, steps, text))

    few = shortfall(800_000, 500, 10**6)
    many = shortfall(800_000, 5000, 10**6)
    assert few > many > shortfall(800_000, 5000, 10**7)
    assert many > shortfall(10_000_000, 5000, 10**6)


def test_the_blocks_are_what_does_not_depend_on_the_vocabulary():
    small, large = (block_parameters(ModelConfig(vocab_size=v)) for v in (50, 5000))
    assert small == large > 0


def anchors_of(text_tokens: int) -> list[tuple[TrainingBudget, float]]:
    return [
        (TrainingBudget(500_000, 4096, steps, text_tokens), loss)
        for steps, loss in zip(ANCHOR_STEPS, (2.5, 2.25))
    ]


def test_anchors_stand_beside_the_tokens_or_are_unknown(tmp_path: Path):
    tokens = tmp_path / "train.bin"
    assert read_anchors(tokens) == []
    write_anchors(tokens, anchors_of(10**6))
    assert read_anchors(tokens) == anchors_of(10**6)


def test_anchors_of_other_defaults_are_not_compared_with_runs_of_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tokens = tmp_path / "train.bin"
    write_anchors(tokens, anchors_of(10**6))
    with monkeypatch.context() as other:
        other.setattr("folio.recipe.presets.RATE_TIMES_WIDTH", 0.25)
        assert read_anchors(tokens) == []
    assert read_anchors(tokens) != []
    # As they were written before their settings were told.
    entries = [{"effort": asdict(budget), "loss": loss} for budget, loss in anchors_of(10**6)]
    write_json(anchor_file(tokens), entries)
    assert read_anchors(tokens) == []


@pytest.mark.parametrize("text_tokens", [500, 3000, 10_000])
def test_anchors_of_a_text_that_both_know_by_heart_predict_nothing(
    tmp_path: Path, text_tokens: int
):
    write_anchors(tmp_path / "train.bin", anchors_of(text_tokens))
    assert read_anchors(tmp_path / "train.bin") == []
