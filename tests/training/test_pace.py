"""Progress along a schedule whose number of steps becomes known on the way."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.errors import UserError
from folio.training.pace import Pace, StepPlan
from folio.training.schedule import ScheduleConfig, lr_scale_at


@st.composite
def paces(draw: st.DrawFn) -> Pace:
    pace = Pace([StepPlan(0, draw(st.integers(1, 200)))])
    for _ in range(draw(st.integers(0, 6))):
        if pace.last - pace.plans[-1].step < 2:
            break
        step = draw(st.integers(pace.plans[-1].step + 1, pace.last - 1))
        fewer = draw(st.none() | st.integers(1, 5))
        pace.append(StepPlan(step, draw(st.integers(step + 1, 400)), fewer))
    return pace


def test_a_plain_pace_is_the_steps_themselves():
    pace = Pace.of((), 7)
    assert [pace.progress(step) for step in range(8)] == list(range(8))
    assert all(isinstance(pace.progress(step), int) for step in range(8))


@given(paces())
def test_progress_rises_evenly_from_nothing_to_the_whole_schedule(pace: Pace):
    done = [pace.progress(step) for step in range(pace.last + 1)]
    assert done[0] == 0 and done[-1] == pytest.approx(pace.planned)
    assert all(a < b for a, b in pairwise(done))


@given(paces(), st.integers(0, 400))
def test_a_later_decision_does_not_change_what_was_computed_before_it(pace: Pace, last: int):
    before = Pace(pace.plans[:-1] or pace.plans)
    if len(pace.plans) > 1:
        for step in range(pace.plans[-1].step + 1):
            assert pace.progress(step) == before.progress(step)


@given(paces(), st.sampled_from(["cosine", "linear"]))
def test_the_rate_never_jumps_and_ends_at_its_final_share(
    pace: Pace, kind: Literal["cosine", "linear"]
):
    config = ScheduleConfig(kind=kind, warmup_fraction=0.0, cooldown_fraction=1.0)
    shares = [
        lr_scale_at(config, pace.progress(step + 1) - 1, pace.planned) for step in range(pace.last)
    ]
    assert shares[-1] == pytest.approx(config.final_fraction)
    assert all(a >= b for a, b in pairwise(shares))


@given(paces(), st.integers(1, 20))
def test_evaluations_are_spread_over_the_progress_and_all_are_due_at_the_end(pace: Pace, n: int):
    done = [pace.evaluations_done(step, n) for step in range(pace.last + 1)]
    assert done == sorted(done) and done[0] == 0
    assert pace.evaluations_left(pace.last, n) in (0, 1)  # the one at the end is due in any case


@given(paces(), st.integers(1, 20), st.integers(1, 5))
def test_a_plan_changes_no_evaluation_before_it_and_says_how_many_follow(
    pace: Pace, n: int, fewer: int
):
    step = pace.plans[-1].step + 1
    if step >= pace.last:
        return
    done = [pace.evaluations_done(s, n) for s in range(step + 1)]
    pace.append(StepPlan(step, pace.last, fewer))
    assert [pace.evaluations_done(s, n) for s in range(step + 1)] == done
    assert pace.evaluations_done(pace.last, n) - done[-1] in (fewer - 1, fewer)


@pytest.mark.parametrize("texts", [["3:9"], ["0:9", "0:8"], ["0:9", "5:4"], ["0:9", "x"], ["0"]])
def test_a_pace_that_cannot_be_is_refused_in_words(texts: list[str]):
    with pytest.raises(UserError, match=r"schedule\.pace must"):
        Pace.of(texts, 9)


@given(paces())
def test_a_pace_is_read_back_as_it_is_written(pace: Pace):
    assert Pace.of(map(str, pace.plans), 0).plans == pace.plans
