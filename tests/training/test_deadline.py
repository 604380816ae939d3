"""The minutes are kept on machines whose speed changes: simulated, by a clock that tests drive."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from folio.training.deadline import Deadline, TimeBudget
from folio.training.pace import Pace, StepPlan

Slowdown = Callable[[float], float]
STEP, EVALUATION, END = 0.08, 0.8, 1.0
GRAIN = 0.02
"""Simulated seconds in which a machine is as slow as at their beginning."""


class Machine:
    """Computes in simulated seconds; other programs make it slower at times."""

    def __init__(self, slowdown: Slowdown) -> None:
        self.seconds, self.slowdown, self.random = 0.0, slowdown, random.Random(1)

    def compute(self, seconds: float) -> None:
        seconds *= self.random.uniform(0.95, 1.05)
        n = math.ceil(seconds / GRAIN)
        for _ in range(n):
            self.seconds += seconds / n * self.slowdown(self.seconds)


def budget_of(
    seconds: float,
    step: float = STEP,
    evaluation: float = EVALUATION,
    end: float = END,
    **more: Any,
) -> TimeBudget:
    return TimeBudget(
        seconds=seconds, step_seconds=step, evaluation_seconds=evaluation, end_seconds=end, **more
    )


def spend(
    minutes: float, slowdown: Slowdown, step: float = STEP, first: int = 0
) -> tuple[float, Pace]:
    """Seconds that a command with a budget takes, and the pace that came out.

    Args:
        minutes: the budget.
        slowdown: of the machine.
        step: seconds of a step.
        first: steps of the first plan; 0 makes it by the clock.
    """
    machine = Machine(slowdown)
    machine.compute(3.0)  # start, size
    begin = machine.seconds
    machine.compute(1.0)  # the first plan is made by the clock, of a second of steps
    slow = machine.seconds - begin
    budget = budget_of(60 * minutes, step, sample_seconds=1.0)
    left = budget.for_steps(machine.seconds, slow)
    pace = Pace([StepPlan(0, first or max(1, int((left / slow - 4 * EVALUATION) / step)))])
    deadline = Deadline(budget, 4, lambda: machine.seconds)
    done = 0
    while True:
        if plan := deadline.decide(done, pace):
            pace.append(plan)
        before = pace.evaluations_done(max(done - 1, 0), 4)
        if done == pace.last or pace.evaluations_done(done, 4) > before:
            machine.compute(EVALUATION)
            deadline.evaluated()
        if done >= pace.last:
            break
        machine.compute(step)
        deadline.stepped()
        done += 1
    machine.compute(END)
    machine.seconds += budget.sample_seconds
    return machine.seconds, pace


NEIGHBOURS: dict[str, Callable[[float], Slowdown]] = {
    "nobody": lambda f: lambda t: 1.0,
    "in the first five seconds": lambda f: lambda t: f if t < 5 else 1.0,
    "from the fifth second on": lambda f: lambda t: 1.0 if t < 5 else f,
    "every other ten seconds": lambda f: lambda t: f if t // 10 % 2 else 1.0,
    "while the plan is made": lambda f: lambda t: 10 * f if 3.0 < t < 3.3 else 1.0,
}


@pytest.mark.parametrize("times_slower", [2.0, 4.0])
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
@pytest.mark.parametrize("minutes", [0.5, 2, 10])
def test_the_minutes_are_kept_beside_any_neighbour(
    minutes: float, neighbour: str, times_slower: float
):
    if neighbour == "every other ten seconds" and minutes == 0.5:
        times_slower = 2.0  # 4 is beyond what can be: the evaluation at the end takes a period
    seconds, _ = spend(minutes, NEIGHBOURS[neighbour](times_slower))
    assert seconds == pytest.approx(60 * minutes, rel=0.1)


@pytest.mark.parametrize("minutes", [0.5, 2, 10])
def test_a_quiet_machine_hardly_changes_its_plan(minutes: float):
    seconds, pace = spend(minutes, NEIGHBOURS["nobody"](1))
    assert seconds == pytest.approx(60 * minutes, rel=0.03)
    assert len(pace.plans) <= 4


@pytest.mark.parametrize("first", [5, 12])
@pytest.mark.parametrize("minutes", [0.5, 10])
def test_a_first_plan_of_a_few_steps_is_made_anew_before_it_ends(minutes: float, first: int):
    seconds, _ = spend(minutes, NEIGHBOURS["nobody"](1), first=first)
    assert seconds == pytest.approx(60 * minutes, rel=0.1)


def test_a_budget_in_steps_beside_the_minutes_is_never_exceeded():
    now = 0.0
    budget = budget_of(60.0, most_steps=100)
    deadline, pace = Deadline(budget, 4, lambda: now), Pace([StepPlan(0, 50)])
    for step in range(1, 30):
        now += STEP
        deadline.stepped()
        if plan := deadline.decide(step, pace):
            pace.append(plan)
    assert pace.last == 100


def test_a_resumed_run_decides_nothing_before_the_last_decision_that_is_recorded():
    now = 10.0
    deadline = Deadline(budget_of(60.0, 1.0, 1.0, 1.0), 4, lambda: now)
    pace = Pace([StepPlan(0, 40), StepPlan(20, 30)])
    for step in range(5, 25):
        now += 4.0
        deadline.stepped()
        plan = deadline.decide(step, pace)
        assert plan is None or step > 20
        if plan:
            break
    else:
        pytest.fail("nothing was decided after it either")


def test_when_the_time_is_over_the_run_ends_at_this_step():
    now = 0.0
    deadline = Deadline(budget_of(10.0, 1.0, 1.0, 1.0), 1, lambda: now)
    pace = Pace([StepPlan(0, 9)])
    for _ in range(1, 5):
        now += 5.0
        deadline.stepped()
    assert deadline.decide(4, pace) == StepPlan(4, 4)


def evaluate_when_due(
    machine: Machine, deadline: Deadline, pace: Pace, is_due: Callable[[int], bool], seconds: float
) -> int:
    """Train to the end of a pace; returns how many evaluations of so many seconds were made."""
    step, evaluations = 0, 0
    while step < pace.last:
        machine.compute(STEP)
        deadline.stepped()
        step += 1
        if plan := deadline.decide(step, pace):
            pace.append(plan)
        if is_due(step) or step == pace.last:
            machine.compute(seconds)
            deadline.evaluated()
            evaluations += 1
    return evaluations


def test_evaluations_in_short_windows_leave_the_time_for_the_longer_one_at_the_end():
    machine = Machine(lambda t: 1.0)
    deadline = Deadline(budget_of(600.0, evaluation=12.0), 3, lambda: machine.seconds)
    pace, step = Pace([StepPlan(0, 7000)]), 0
    while step < pace.last:
        machine.compute(STEP)
        deadline.stepped()
        step += 1
        if plan := deadline.decide(step, pace):
            pace.append(plan)
        if pace.evaluations_done(step, 3) > pace.evaluations_done(step - 1, 3):
            is_short = step < pace.last
            machine.compute(4.0 if is_short else 12.0)
            deadline.evaluated(is_short)
    assert 598.0 - END < machine.seconds < 600.0


def test_evaluations_that_became_dearer_are_made_less_often():
    machine = Machine(lambda t: 1.0)
    budget = budget_of(60.0)
    deadline, pace = Deadline(budget, 8, lambda: machine.seconds), Pace([StepPlan(0, 650)])

    def is_due(step: int) -> bool:
        return pace.evaluations_done(step, 8) > pace.evaluations_done(step - 1, 8)

    evaluations = evaluate_when_due(machine, deadline, pace, is_due, seconds=8.0)
    assert 2 <= evaluations <= 4  # at most a quarter of what was left after the first one
    assert machine.seconds == pytest.approx(60.0 - END, rel=0.1)


@pytest.mark.parametrize("interval", [20, 100])
def test_evaluations_at_an_interval_of_ones_own_are_in_the_budget(interval: int):
    machine = Machine(lambda t: 1.0)
    budget = budget_of(60.0)
    deadline = Deadline(budget, 0, lambda: machine.seconds, interval)
    pace = Pace([StepPlan(0, 700)])
    evaluate_when_due(machine, deadline, pace, lambda step: step % interval == 0, EVALUATION)
    assert machine.seconds == pytest.approx(60.0 - END, rel=0.03)
