"""A budget in minutes, kept by the clock: after how many steps must a run end to be in time?

The speed of a machine changes while other programs come and go, so one measurement at the start
is no promise. At fixed shares of the time the rest is planned anew from the speed of the last
steps. What is decided is a knot of the pace (pace.py), which is on the disk before it counts: the
clock decides, but it leaves a record that needs no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from folio.training.pace import Knot, Pace

DECISIONS = (0.02, 0.04, 0.08, 0.15, 0.25, 0.4, 0.55, 0.7, 0.8, 0.88, 0.94, 0.97, 0.985, 0.995)
"""Shares of the time for training at which the rest is planned anew. Dense at the end, where what
a change of speed costs can no longer be made good, and at the beginning, where the first plan
rests on a second."""
RECENT_SHARE = 0.15
"""Of the time since training began: at least over so long the speed is taken, and over half as
long as there is time left. What holds for a moment says little about minutes, and a run that was
ended too early cannot be taken up again."""
FEWEST_STEPS = 3
"""From which the speed is taken at least."""
SMALL_CHANGE = (0.03, 0.005)
"""A new plan that differs by less than these shares, of the steps that are left and of all steps,
is not worth a knot."""
MOST_EVALUATION_SHARE = 0.25
"""Of the time that is left: evaluations that are dearer are made less often."""
CHANGED, NOTICEABLE = 1.25, 0.05
"""Evaluations are tried anew where steps take so many times longer, or shorter, than when they
were measured, and where one would take this share of the time that is left: beside other programs
they slow down more than steps, whose pauses at barriers a scheduler makes good."""
MOST_SLOWDOWN = 2.0
"""Beyond, a slow step says more about processes that wait for each other than about what follows
the training, which is done by one."""


@dataclass(frozen=True)
class TimeBudget:
    """A budget, and what was known of the machine when it was made."""

    seconds: float
    """From the start of the command to its end."""
    step_seconds: float
    """Of a step, on a processor without other programs."""
    evaluation_seconds: float
    """Of an evaluation, there."""
    end_seconds: float
    """Of what follows the last evaluation, there: further held-out texts, picture, card."""
    sample_seconds: float = 0.0
    """For the text that the model writes at the end, by the clock."""
    most_steps: int = 0
    """A budget in steps beside the one in time; 0 without one."""
    from_step: int = 0
    """Steps that had been taken before this budget began."""
    look_seconds: float = 0.0
    """For the look back at the end, by the clock."""

    def for_steps(self, used: float, slowdown: float) -> float:
        """Seconds that are left for steps and evaluations, where all takes so many times longer
        than on a machine without other programs.
        """
        by_the_clock = self.sample_seconds + self.look_seconds
        return self.seconds - used - slowdown * self.end_seconds - by_the_clock


class Deadline:
    """Tells, from the clock, when a plan is due to be changed."""

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
            n_evaluations: of the whole run, as it was planned first.
            used: asked for the seconds of the budget that are gone.
            interval: steps between evaluations, where they are not spread over the progress.
            evaluation_now: tells the seconds of an evaluation, from a piece of one.
        """
        self.budget, self.n_evaluations, self.used = budget, n_evaluations, used
        self.interval, self.evaluation_now = interval, evaluation_now
        self.start = self.mark = used()
        self.steps: list[float] = []
        """Durations of the steps since training began here, without the first, which allocates."""
        self.is_first = True
        self.evaluation_in_steps = budget.evaluation_seconds / budget.step_seconds
        self.measured_at = budget.step_seconds
        """What a step took when evaluations were measured."""
        horizon = max(budget.for_steps(self.start, 1.0), 0.0)
        self.due = [self.start + share * horizon for share in DECISIONS]

    def stepped(self) -> None:
        """Note the time of a step, which has just ended."""
        seconds = self._lap()
        if not self.is_first:
            self.steps.append(seconds)
        self.is_first = False

    def evaluated(self) -> None:
        """Note the time of an evaluation and of saving, which have just ended."""
        seconds = self._lap()
        if len(self.steps) >= FEWEST_STEPS:
            self._note_evaluation(seconds)

    def decide(self, step: int, pace: Pace) -> Knot | None:
        """Plan the rest anew where that is due; None where nothing changes.

        Args:
            step: steps taken.
            pace: as it was planned.
        """
        used, left = self.used(), pace.last - step
        if not self.due or (used < self.due[0] and left > 1):
            return None
        if step <= pace.knots[-1].step or len(self.steps) < FEWEST_STEPS:
            return None
        # A plan that ends before its time is planned anew, which counts as one of the moments.
        self.due = [moment for moment in self.due[1:] if moment > used]
        self._try_evaluation()
        planned = max(pace.evaluations_left(step, self.n_evaluations), 1)
        steps, evaluations = self.rest(planned)
        if self.budget.most_steps:
            steps = min(steps, self.budget.most_steps - step)
        change = abs(steps - left)
        if change < max(SMALL_CHANGE[0] * left, SMALL_CHANGE[1] * pace.last, 1):
            return None
        return Knot(step, step + steps, evaluations if evaluations < planned else None)

    def rest(self, planned: int) -> tuple[int, int]:
        """Steps and evaluations for which there is time.

        Args:
            planned: evaluations that are due, at most.
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
        """Mean duration of the last steps."""
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
            self.mark = self.used()  # not a part of the next step

    def _note_evaluation(self, seconds: float) -> None:
        self.measured_at = self.step_seconds()
        self.evaluation_in_steps = seconds / self.measured_at

    def _lap(self) -> float:
        before, self.mark = self.mark, self.used()
        return self.mark - before


def steps_between(interval: int, budget: float, evaluation: float) -> float:
    """Steps that a budget affords where an evaluation follows at each interval and at the end.

    Args:
        interval: steps.
        budget, evaluation: what there is and what an evaluation takes, in steps.

    >>> steps_between(10, 35.0, 5.0)
    20.0
    """
    return (budget - evaluation) / (1 + evaluation / interval)
