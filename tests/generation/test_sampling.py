from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from folio.errors import UserError
from folio.generation.sampling import SamplingConfig, draw, keep_top_k, keep_top_p

LOGITS = torch.tensor([[0.5, 0.25, 0.15, 0.1], [0.1, 0.15, 0.25, 0.5]]).log()


def kept(logits: torch.Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in ~logits.isinf()]


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0.4, [0]), (0.5, [0]), (0.51, [0, 1]), (0.8, [0, 1, 2]), (1.0, [0, 1, 2, 3])],
)
def test_top_p_keeps_the_fewest_that_reach_p(p: float, expected: list[int]):
    assert kept(keep_top_p(LOGITS, p)) == [expected, [3 - i for i in expected][::-1]]


def test_top_p_keeps_one_token_when_it_alone_exceeds_p():
    assert kept(keep_top_p(torch.tensor([[10.0, 0.0, 0.0]]), 0.1)) == [[0]]


@given(st.integers(0, 6))
def test_top_k_keeps_k(k: int):
    n = k if 0 < k < 4 else 4
    assert [len(row) for row in kept(keep_top_k(LOGITS, k))] == [n, n]


def test_temperature_zero_takes_the_likeliest():
    generator = torch.Generator().manual_seed(0)
    assert draw(LOGITS, SamplingConfig(temperature=0), generator).tolist() == [0, 3]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_follow_the_distribution(temperature: float):
    n = 20_000
    generator = torch.Generator().manual_seed(0)
    drawn = draw(LOGITS[:1].expand(n, 4), SamplingConfig(temperature=temperature), generator)
    expected = (LOGITS[0] / temperature).softmax(0)
    shares = drawn.bincount(minlength=4) / n
    deviation = (expected * (1 - expected) / n).sqrt()
    assert ((shares - expected).abs() < 5 * deviation).all()


def test_an_excluded_token_is_never_drawn():
    logits = torch.tensor([[0.0, float("-inf"), 0.0]]).expand(2000, 3)
    drawn = draw(logits, SamplingConfig(temperature=5.0), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {0, 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_p": 0}, "--temperature 0"),
        ({"top_p": 1.5}, "at most 1"),
        ({"temperature": -1}, "0 (greedy) or more"),
        ({"temperature": float("nan")}, "0 (greedy) or more"),
        ({"top_k": -1}, "top_k must be 0 (all tokens) or more, got -1"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
    ],
)
def test_an_impossible_setting_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(UserError) as caught:
        SamplingConfig(**settings)
    assert message in str(caught.value)
