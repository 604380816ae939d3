from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from folio.errors import UserError
from folio.generation.sampling import (
    BLOCK,
    NUCLEUS,
    Logits,
    SamplingConfig,
    draw,
    find_share,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize,
)

LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))


def kept(logits: Logits) -> list[int]:
    return np.flatnonzero(logits > -np.inf).tolist()


def random_logits(size: int, spread: float, seed: int) -> Logits:
    return (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0.4, [0]), (0.5, [0]), (0.51, [0, 1]), (0.8, [0, 1, 2]), (1.0, [0, 1, 2, 3])],
)
def test_top_p_keeps_the_fewest_that_reach_p(p: float, expected: list[int]):
    assert kept(keep_top_p(LOGITS, p)) == expected
    assert kept(keep_top_p(LOGITS[::-1], p)) == [3 - i for i in expected][::-1]


def test_top_p_keeps_one_token_when_it_alone_exceeds_p():
    assert kept(keep_top_p(np.array([10, 0, 0], np.float32), 0.1)) == [0]


def mass_before(logits: Logits) -> NDArray[np.float64]:
    """(V,) what all likelier tokens have together, by sorting all of them, in float64."""
    order = np.argsort(-logits, kind="stable")
    weights = np.exp(logits[order].astype(np.float64))
    before = np.empty_like(weights)
    before[order] = (weights.cumsum() - weights) / weights.sum()
    return before


@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0])
@pytest.mark.parametrize(("k", "p"), [(0, 0.5), (0, 0.999), (3, 1.0), (200, 0.9)])
def test_the_same_tokens_stay_as_when_the_vocabulary_was_sorted(k: int, p: float, spread: float):
    for size in (5, NUCLEUS, 3000):
        for seed in range(30):
            logits = keep_top_k(random_logits(size, spread, seed), k)
            before = mass_before(logits)
            stays = (before < p) & (logits > -np.inf)
            differ = (keep_top_p(logits, p) > -np.inf) != stays
            assert not (differ & (abs(before - p) > 1e-6)).any()  # float32 may decide these


def test_one_number_finds_its_share_of_the_line():
    config, seeds = SamplingConfig(temperature=0.7, top_k=5, min_p=0.01), range(300)
    logits = random_logits(40, 2.0, seed=1)
    scaled = (logits / 0.7).tolist()
    kept = sorted(range(40), key=scaled.__getitem__)[-5:]
    weights = [math.exp(x) if i in kept else 0.0 for i, x in enumerate(scaled)]
    weights = [w if w >= 0.01 * max(weights) else 0.0 for w in weights]
    drawn = []
    for seed in seeds:
        drawn.append(draw(logits, config, random.Random(seed)))
        rest = random.Random(seed).random() * sum(weights)
        expected = 0
        while rest >= weights[expected]:
            rest -= weights[expected]
            expected += 1
        assert drawn[-1] == expected
    assert len(set(drawn)) == 5


@pytest.mark.parametrize("size", [1, 5, BLOCK, BLOCK + 1, 3 * BLOCK - 1])
def test_shares_are_found_by_blocks_as_on_one_line_and_empty_ones_never(size: int):
    weights = np.random.default_rng(size).random(size)
    weights[: size // 3] = 0
    weights[size - size // 5 :] = 0
    some = np.flatnonzero(weights).tolist()
    ends = weights.cumsum()
    middles = (ends - weights / 2) / ends[-1]
    assert [find_share(weights, middles[i]) for i in some] == some
    assert (find_share(weights, 0.0), find_share(weights, 1.0)) == (some[0], some[-1])


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_the_first_and_the_last_number_draw_tokens_that_may_come(
    number: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(random.Random, "random", lambda generator: number)
    for seed in range(200):
        logits = random_logits(50, 3.0, seed)
        logits[[0, 1, 48, 49]] = -np.inf
        token_id = draw(logits, SamplingConfig(temperature=1.0), random.Random())
        assert token_id == (2 if number == 0.0 else 47)


def test_top_p_keeps_or_drops_equals_together():
    logits = np.log(np.array([0.4, 0.2, 0.2, 0.2], np.float32))
    assert kept(keep_top_p(logits, 0.5)) == [0, 1, 2, 3]
    assert kept(keep_top_p(logits, 0.39)) == [0]


@pytest.mark.parametrize(
    ("p", "n"), [(0.0, 4), (0.2, 4), (0.29, 3), (0.31, 2), (0.51, 1), (1.0, 1)]
)
def test_min_p_keeps_what_has_that_share_of_the_likeliest(p: float, n: int):
    assert len(kept(keep_min_p(LOGITS, p))) == n


def test_min_p_is_a_share_of_what_temperature_made():
    # At temperature 2 the shares are the roots of those at 1: 0.1 / 0.5 becomes 0.447.
    generator = random.Random(0)
    for temperature, expected in ((2.0, {0, 1, 2, 3}), (1.0, {0, 1})):
        config = SamplingConfig(temperature=temperature, min_p=0.44)
        assert {draw(LOGITS, config, generator) for _ in range(400)} == expected


@given(st.lists(st.integers(0, 3), max_size=6), st.sampled_from([0.5, 1.0, 1.7]))
def test_a_penalty_makes_what_was_seen_less_likely_once(seen: list[int], penalty: float):
    logits = np.array([2.0, -2.0, 0.0, -np.inf], np.float32)
    expected = [
        x if i not in seen else x / penalty if x > 0 else x * penalty
        for i, x in enumerate(logits.tolist())
    ]
    assert penalize(logits, seen, penalty).tolist() == pytest.approx(expected)


def test_a_temperature_next_to_zero_takes_the_likeliest():
    for temperature in (1e-45, 1e-9, 1e-5):
        config = SamplingConfig(temperature=temperature)
        assert draw(LOGITS * 1000, config, random.Random()) == 0


def test_a_temperature_beyond_all_numbers_makes_all_tokens_equal():
    config, generator = SamplingConfig(temperature=1e300), random.Random(0)
    assert {draw(LOGITS * 1000, config, generator) for _ in range(100)} == {0, 1, 2, 3}


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.5}, {"top_k": 2}, {"min_p": 0.1}])
def test_a_model_that_diverged_draws_something(settings: dict[str, Any]):
    config = SamplingConfig(**settings)
    for number in (np.nan, -np.inf, np.inf):
        logits = np.full(4, number, np.float32)
        assert 0 <= draw(logits, config, random.Random()) < 4


def test_texts_of_several_have_seeds_that_follow_and_never_none():
    config = SamplingConfig(temperature=0.3, seed=2**63 - 2)
    assert [config.of_text(n).seed for n in range(4)] == [2**63 - 2, 2**63 - 1, 1, 2]
    assert config.of_text(1).temperature == 0.3
    assert SamplingConfig().of_text(5).seed == 0


@given(st.integers(0, 6))
def test_top_k_keeps_k(k: int):
    n = k if 0 < k < 4 else 4
    assert kept(keep_top_k(LOGITS, k)) == list(range(n))


def test_temperature_zero_takes_the_likeliest():
    config, generator = SamplingConfig(temperature=0), random.Random(0)
    assert (draw(LOGITS, config, generator), draw(LOGITS[::-1], config, generator)) == (0, 3)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_follow_the_distribution(temperature: float):
    n, generator = 20_000, random.Random(0)
    config = SamplingConfig(temperature=temperature)
    drawn = [draw(LOGITS, config, generator) for _ in range(n)]
    weights = np.array([0.5, 0.25, 0.15, 0.1]) ** (1 / temperature)
    expected = weights / weights.sum()
    deviation = np.sqrt(expected * (1 - expected) / n)
    assert (abs(np.bincount(drawn, minlength=4) / n - expected) < 5 * deviation).all()


def test_an_excluded_token_is_never_drawn():
    logits, generator = np.array([0.0, -np.inf, 0.0], np.float32), random.Random(0)
    config = SamplingConfig(temperature=5.0)
    assert {draw(logits, config, generator) for _ in range(500)} == {0, 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_p": 0}, "alone give temperature 0"),
        ({"top_p": 1.5}, "at most 1"),
        ({"temperature": -1}, "0 (greedy) or more"),
        ({"temperature": float("nan")}, "0 (greedy) or more"),
        ({"top_k": -1}, "top_k must be 0 (all tokens) or more, got -1"),
        ({"seed": -1}, "seed must be 0 or more, and below 2^63, got -1"),
        ({"seed": 2**63}, "seed must be 0 or more, and below 2^63"),
        ({"min_p": 1.1}, "min_p must be a share, 0 to 1, got 1.1"),
        ({"min_p": float("nan")}, "min_p must be a share"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0, got 0"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty must be above 0"),
        ({"stop_strings": "ab"}, "stop_strings must be a list of texts, got 'ab'"),
        ({"stop_strings": ("a", "")}, "stop_strings must be texts of a character or more"),
        ({"logprobs": -1}, "logprobs must be 0 or more, or None, got -1"),
    ],
)
def test_an_impossible_setting_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(UserError) as caught:
        SamplingConfig(**settings)
    assert message in str(caught.value)
