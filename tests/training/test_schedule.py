from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.config import from_table
from folio.errors import UserError
from folio.training.schedule import ScheduleConfig, lr_scale_at, window_length

CONFIGS = st.builds(
    ScheduleConfig,
    kind=st.sampled_from(["cosine", "linear"]),
    warmup_fraction=st.floats(0, 1),
    cooldown_fraction=st.floats(0, 1),
    final_fraction=st.floats(0, 1),
)


@given(CONFIGS, st.integers(1, 300))
def test_the_share_stays_in_bounds_and_rises_then_falls(config: ScheduleConfig, n: int):
    shares = [lr_scale_at(config, step, n) for step in range(n)]
    assert all(0 < share <= 1 or config.final_fraction == 0 for share in shares)
    top = shares.index(max(shares))
    assert shares[: top + 1] == sorted(shares[: top + 1])
    assert shares[top:] == sorted(shares[top:], reverse=True)


def test_cosine_is_half_way_down_in_the_middle():
    config = ScheduleConfig(warmup_fraction=0.2, final_fraction=0.1)
    shares = [lr_scale_at(config, step, 100) for step in range(100)]
    assert shares[19] == 1.0
    assert shares[59] == pytest.approx(0.55)
    assert shares[99] == pytest.approx(0.1)
    assert shares[39] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("without", [{"cooldown_fraction": 0.0}, {"warmup_fraction": 1.0}])
def test_without_a_decay_the_last_step_is_at_the_peak(without: dict[str, float]):
    config = from_table(ScheduleConfig, {"kind": "linear"} | without)
    assert lr_scale_at(config, 99, 100) == 1.0


def test_a_horizon_gives_a_shorter_run_the_beginning_of_a_longer_one():
    config = ScheduleConfig(horizon_steps=200)
    short = [lr_scale_at(config, step, 100) for step in range(100)]
    long = [lr_scale_at(ScheduleConfig(), step, 200) for step in range(100)]
    assert short == long


def test_after_the_horizon_the_rate_stays():
    config = ScheduleConfig(horizon_steps=10)
    assert lr_scale_at(config, 500, 1000) == pytest.approx(0.1)


@pytest.mark.parametrize("without", [{"cooldown_fraction": 0.0}, {"warmup_fraction": 1.0}])
def test_without_a_decay_the_rate_stays_at_the_peak_after_the_horizon(without: dict[str, float]):
    config = from_table(ScheduleConfig, {"kind": "linear", "horizon_steps": 10} | without)
    assert [lr_scale_at(config, step, 100) for step in (9, 10, 99)] == [1.0, 1.0, 1.0]


def test_windows_of_a_longer_run_are_short_for_as_many_steps():
    config = ScheduleConfig(short_fraction=0.25, short_length=16, horizon_steps=200)
    lengths = [window_length(config, 64, step, 100) for step in range(100)]
    assert lengths == [16] * 50 + [64] * 50
    assert window_length(config, 8, 0, 100) == 8


SHARES = ["warmup_fraction", "cooldown_fraction", "final_fraction", "short_fraction"]


@pytest.mark.parametrize("name", SHARES)
def test_a_share_outside_of_0_to_1_is_refused(name: str):
    with pytest.raises(UserError, match=name):
        from_table(ScheduleConfig, {name: 1.5})
