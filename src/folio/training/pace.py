"""The progress of a run along its schedule, as a function of the steps made.

A run with a fixed number of steps makes one step of progress each. With a budget in minutes, the
number of steps is only found out on the way: a plan (step, last) says that from `step` on, the rest
of the schedule is spread evenly over the steps up to `last`:

    progress            plans (0, 8), (4, 6): eight steps at first; after four of them it
    8 |          .      turned out that there is time for six. The rate never jumps, and
    6 |        .        the run always ends where the schedule does.
    4 |   . .
    0 +--------------
      0   2   4   6  step

Learning rate and evaluations follow the progress; a plan may also reduce the number of evaluations
that follow. A clock decides the plans (deadline.py), and with them a run can be repeated without a
clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from folio.errors import UserError


class StepPlan(NamedTuple):
    """A decision, made after `step` steps, that a run ends after `last` steps."""

    step: int
    last: int
    evaluations: int | None = None
    """Number of evaluations that follow, including the one at the end; None keeps those planned."""

    def __str__(self) -> str:
        return ":".join(str(number) for number in self if number is not None)


class Pace:
    """The plans of a run so far; more are appended during training."""

    def __init__(self, plans: Iterable[StepPlan]) -> None:
        """
        Args:
            plans: the plans so far, the first one at step 0.

        Raises:
            UserError: they are not in order, or one of them ends before it begins.
        """
        self.plans: list[StepPlan] = []
        for plan in plans:
            self.append(plan)

    @classmethod
    def of(cls, texts: Iterable[str], max_steps: int) -> Pace:
        """The pace of a recipe: `schedule.pace`, or the plain one up to `max_steps`.

        >>> Pace.of(("0:8", "4:6"), 6).plans
        [StepPlan(step=0, last=8, evaluations=None), StepPlan(step=4, last=6, evaluations=None)]
        """
        return cls([parse_plan(text) for text in texts] or [StepPlan(0, max_steps)])

    @property
    def planned(self) -> int:
        """Steps in the first plan, the unit of progress."""
        return self.plans[0].last

    @property
    def last(self) -> int:
        """Steps after which the run ends, by the latest plan."""
        return self.plans[-1].last

    def append(self, plan: StepPlan) -> None:
        """Plan again from `plan.step` on."""
        begin = self.plans[-1].step + 1 if self.plans else 0
        if not (begin <= plan.step <= plan.last) or (not self.plans and plan.step):
            raise UserError(
                f"schedule.pace must begin at step 0 and go up, each step with a last step that "
                f"is not before it, got {', '.join(map(str, [*self.plans, plan]))}."
            )
        self.plans.append(plan)

    def progress(self, step: int) -> float:
        """Progress after `step` steps, in steps of the first plan; `planned` at the end.

        >>> pace = Pace([StepPlan(0, 8), StepPlan(4, 6)])
        >>> [pace.progress(step) for step in range(7)]
        [0, 1, 2, 3, 4, 6.0, 8.0]
        """
        done: float = 0
        for plan, following in zip(self.plans, [*self.plans[1:], None]):
            end = step if following is None else min(step, following.step)
            if plan.step == 0:
                done = end  # exact, so that a run with one plan equals one without a pace
            elif end > plan.step:
                done += (self.planned - done) * (end - plan.step) / (plan.last - plan.step)
        return done

    def evaluations_done(self, step: int, n_evaluations: int) -> int:
        """How many evaluations are due by a step, given their number in the first plan.

        They are spread evenly over the progress, and again after a plan that changes their number.

        >>> pace = Pace([StepPlan(0, 8), StepPlan(4, 8, evaluations=1)])
        >>> [pace.evaluations_done(step, 4) for step in range(9)]
        [0, 0, 1, 1, 2, 2, 2, 2, 3]
        """
        return self._evaluations(step, n_evaluations)[0]

    def evaluations_left(self, step: int, n_evaluations: int) -> int:
        """How many evaluations follow after a step."""
        return self._evaluations(step, n_evaluations)[1]

    def _evaluations(self, step: int, n_evaluations: int) -> tuple[int, int]:
        before, begin, spread = 0, 0.0, n_evaluations
        for plan in self.plans:
            if plan.evaluations is not None and plan.step < step:
                here = self.progress(plan.step)
                before += int(spread * (here - begin) / (self.planned - begin))
                begin, spread = here, plan.evaluations
        done = int(spread * (self.progress(step) - begin) / ((self.planned - begin) or 1))
        return before + done, spread - done


def parse_plan(text: str) -> StepPlan:
    """Read one entry of `schedule.pace`.

    >>> parse_plan("41:212"), parse_plan("41:212:3")
    (StepPlan(step=41, last=212, evaluations=None), StepPlan(step=41, last=212, evaluations=3))
    """
    numbers = text.split(":")
    if len(numbers) not in (2, 3) or not all(number.isdecimal() for number in numbers):
        raise UserError(
            f"schedule.pace must be a list of STEP:LAST or STEP:LAST:EVALUATIONS such as 41:212, "
            f"got '{text}'."
        )
    return StepPlan(*map(int, numbers))
