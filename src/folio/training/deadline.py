"""Keeps a budget in minutes: after how many steps must a run end to be in time?

The speed of a machine changes as other programs come and go, so one measurement at the start is not
enough. At fixed shares of the time the rest is planned again from the speed of recent steps. Each
plan is on disk before it takes effect: the clock decides, but it leaves a record (pace.py) that
needs no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from folio.training.pace import Pace, StepPlan

DECISIONS = (0.02, 0.04, 0.08, 0.15, 0.25, 0.4, 0.55, 0.7, 0.8, 0.88, 0.94, 0.97, 0.985, 0.995)
"""Shares of the training time at which the rest is planned again. Dense at the end, where a change
of speed can no longer be compensated, and at the beginning, where the first plan rests on one
second of measurement."""
RECENT_SHARE = 0.15
"""The speed is averaged over at least this share of the time since training began, and over half of
the time that is left. A moment says little about minutes, and a run that ended too early cannot be
resumed."""
FEWEST_STEPS = 3
"""Fewest steps from which the speed is taken."""
SMALL_CHANGE = (0.03, 0.005)
"""A new plan that differs by less than these shares, of the remaining steps and of all steps, is
not made."""
MOST_EVALUATION_SHARE = 0.1
"""Share of the remaining time; if evaluations would take more, there are fewer of them."""
CHANGED, NOTICEABLE = 1.25, 0.05
"""Evaluations are measured again if steps have become so many times slower or faster since, and if
one would take this share of the remaining time: other programs slow them down more than steps,
whose waits at barriers the scheduler can fill."""
MOST_SLOWDOWN = 2.0
"""Beyond this, a slow step says more about processes that wait for each other than about what
follows training, which a single process does."""


@dataclass(frozen=True, kw_only=True)
class TimeBudget:
    """A budget, and what was known about the machine when it was made."""

    seconds: float
    """Time from the start of the command to its end."""
    step_seconds: float
    """Time of one step on an idle CPU."""
    evaluation_seconds: float
    """Time of one evaluation on an idle CPU."""
    end_seconds: float
    """Time after the last evaluation on an idle CPU: further held-out texts, picture, card."""
    sample_seconds: float = 0.0
    """Wall-clock time for the sample that the model writes at the end."""
    most_steps: int = 0
    """A budget in steps in addition to the one in time; 0 without one."""
    from_step: int = 0
    """Steps that had been made before this budget began."""
    look_seconds: float = 0.0
    """Wall-clock time for the look back at the end."""

    def for_steps(self, used: float, slowdown: float) -> float:
        """Seconds left for steps and evaluations, if everything takes `slowdown` times as long as
        on an idle machine.
        """
        by_the_clock = self.sample_seconds + self.look_seconds
        return self.seconds - used - slowdown * self.end_seconds - by_the_clock


class Deadline:
    """Decides by the clock when a plan must change."""

    def __init__(
        self,
        budget: TimeBudget,
        n_evaluations: int,
        used: Callable[[], float],
        interval: int = 0,
        evaluation_now: Callable[[], float] | None = None,
    ) -> None:
        """
        Args:
            budget: the time.
            n_evaluations: number in the whole run, by the first plan.
            used: returns the seconds of the budget that have elapsed.
            interval: steps between evaluations, unless they are spread over the progress.
            evaluation_now: measures the seconds of an evaluation, from a piece of one.
        """
        self.budget, self.n_evaluations, self.used = budget, n_evaluations, used
        self.interval, self.evaluation_now = interval, evaluation_now
        self.start = self.mark = used()
        self.steps: list[float] = []
        """Durations of the steps since training began here, except the first, which allocates
        memory."""
        self.is_first = True
        self.evaluation_in_steps = budget.evaluation_seconds / budget.step_seconds
        self.measured_at = budget.step_seconds
        """Duration of a step when evaluations were last measured."""
        horizon = max(budget.for_steps(self.start, 1.0), 0.0)
        self.due = [self.start + share * horizon for share in DECISIONS]

    def stepped(self) -> None:
        """Record the time of a step, which has just ended."""
        seconds = self._lap()
        if not self.is_first:
            self.steps.append(seconds)
        self.is_first = False

    def evaluated(self, in_short_windows: bool = False) -> None:
        """Record the time of an evaluation and of saving, which have just ended.

        Args:
            in_short_windows: whether it read shorter windows than the last one will. It is cheaper,
                and so says only that those to come take no less.
        """
        before, seconds = self.evaluation_in_steps, self._lap()
        if len(self.steps) >= FEWEST_STEPS:
            self._note_evaluation(seconds)
        if in_short_windows:
            self.evaluation_in_steps = max(self.evaluation_in_steps, before)

    def decide(self, step: int, pace: Pace) -> StepPlan | None:
        """Plan the rest again if that is due; None if nothing changes.

        Args:
            step: steps made so far.
            pace: the plans so far.
        """
        used, left = self.used(), pace.last - step
        if not self.due or (used < self.due[0] and left > 1):
            return None
        if step <= pace.plans[-1].step or len(self.steps) < FEWEST_STEPS:
            return None
        # A plan that ends too early is revised, too, which counts as one of the moments.
        self.due = [moment for moment in self.due[1:] if moment > used]
        self._try_evaluation()
        planned = max(pace.evaluations_left(step, self.n_evaluations), 1)
        steps, evaluations = self.rest(planned)
        if self.budget.most_steps:
            steps = min(steps, self.budget.most_steps - step)
        change = abs(steps - left)
        if change < max(SMALL_CHANGE[0] * left, SMALL_CHANGE[1] * pace.last, 1):
            return None
        return StepPlan(step, step + steps, evaluations if evaluations < planned else None)

    def rest(self, planned: int) -> tuple[int, int]:
        """The steps and evaluations for which there is time.

        Args:
            planned: largest number of evaluations.
        """
        step_seconds = self.step_seconds()
        slowdown = min(max(step_seconds / self.budget.step_seconds, 1.0), MOST_SLOWDOWN)
        in_steps = self.budget.for_steps(self.used(), slowdown) / step_seconds
        if self.interval:
            steps = steps_between(self.interval, in_steps, self.evaluation_in_steps)
            return max(int(steps), 0), planned
        affordable = int(MOST_EVALUATION_SHARE * in_steps / max(self.evaluation_in_steps, 1e-9))
        evaluations = min(planned, max(affordable, 1))
        return max(round(in_steps - evaluations * self.evaluation_in_steps), 0), evaluations

    def step_seconds(self) -> float:
        """Mean duration of the recent steps."""
        left = self.budget.seconds - self.used()
        wanted = max(RECENT_SHARE * (self.used() - self.start), left / 2)
        seconds, n = 0.0, 0
        for duration in reversed(self.steps):
            seconds, n = seconds + duration, n + 1
            if n >= FEWEST_STEPS and seconds >= wanted:
                break
        return max(seconds / n, 1e-9)

    def _try_evaluation(self) -> None:
        step_seconds, left = self.step_seconds(), self.budget.seconds - self.used()
        change = step_seconds / self.measured_at
        is_noticeable = self.evaluation_in_steps * step_seconds > NOTICEABLE * left
        if self.evaluation_now and is_noticeable and not 1 / CHANGED < change < CHANGED:
            self._note_evaluation(self.evaluation_now())
            self.mark = self.used()  # not part of the next step

    def _note_evaluation(self, seconds: float) -> None:
        self.measured_at = self.step_seconds()
        self.evaluation_in_steps = seconds / self.measured_at

    def _lap(self) -> float:
        before, self.mark = self.mark, self.used()
        return self.mark - before


def steps_between(interval: int, budget: float, evaluation: float) -> float:
    """Steps that a budget allows if each interval, and the end, has an evaluation.

    Args:
        interval: steps.
        budget, evaluation: what is available and what an evaluation takes, in units of steps.

    >>> steps_between(10, 35.0, 5.0)
    20.0
    """
    return (budget - evaluation) / (1 + evaluation / interval)
