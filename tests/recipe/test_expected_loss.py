"""The rule for the loss of a size and a budget."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest

from folio.model.config import ModelConfig
from folio.recipe.expected_loss import RULE, LossRule, anchor_file, block_parameters, read_anchor
from folio.storage import write_json

SIMPLE = LossRule(
    floor=0.5,
    size_scale=2.0,
    size_exponent=0.5,
    data_scale=3.0,
    data_exponent=1.0,
    worthwhile_repeats=4.0,
    critical_batch=100.0,
    band=0.1,
)


def test_the_parts_are_added():
    # A batch of the critical size makes half of 600 tokens useful; 2 / sqrt(16) + 3 / 300.
    assert SIMPLE.relative_loss(16, 100, 6, 10_000) == pytest.approx(0.5 + 0.5 + 0.01)


def test_a_repeated_token_is_worth_less_each_time():
    worth = [SIMPLE.fresh_tokens(1, 1000 * epochs, 1000) for epochs in (1, 2, 3, 1000)]
    gains = [b - a for a, b in pairwise(worth)]
    assert worth[0] == pytest.approx(1000, rel=0.02) and gains[0] > gains[1] > 0
    # Muennighoff et al., equation 5: U (1 + R*) is the limit; the second epoch, R = 1, gives
    # R* (1 - exp(-1 / R*)) times the text.
    assert worth[3] == pytest.approx(5000, rel=1e-3)
    tight = SIMPLE.fresh_tokens(1, 2020, 1000) - 1000
    assert tight == pytest.approx(4000 * (1 - math.exp(-1 / 4)), rel=0.01)


def test_larger_batches_make_fewer_useful_tokens_of_the_same_number():
    assert SIMPLE.fresh_tokens(10, 60, 10**6) > SIMPLE.fresh_tokens(100, 6, 10**6)


def test_the_calibrated_rule_falls_with_steps_and_with_text():
    def loss(steps: int, text: int) -> float:
        return RULE.relative_loss(800_000, 768, steps, text)

    assert loss(500, 10**6) > loss(5000, 10**6) > loss(5000, 10**7)


def test_the_blocks_are_what_does_not_depend_on_the_vocabulary():
    small, large = (block_parameters(ModelConfig(vocab_size=v)) for v in (50, 5000))
    assert small == large > 0


def test_the_anchor_stands_beside_the_tokens_or_is_unknown(tmp_path: Path):
    assert read_anchor(tmp_path / "train.bin") is None
    write_json(anchor_file(tmp_path / "train.bin"), {"loss": 2.5})
    assert read_anchor(tmp_path / "train.bin") == 2.5
