"""The budget of a recipe -> a number of steps; a budget in minutes -> a first plan and its limits.

Steps, tokens and epochs are turned into steps at once. Minutes are, too, by the speed of a model
that is thrown away; that plan is kept to the clock while the run trains (training/deadline.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from folio.console import duration
from folio.device import Device
from folio.recipe.evaluations import EVALUATIONS, evaluation_interval, evaluations_in
from folio.recipe.recipe import Recipe
from folio.recipe.speed import Speed, measure
from folio.run.look_back import SHARE_OF_RUN
from folio.tokenizers.base import TokenIds
from folio.tokens.token_file import open_token_file
from folio.training.config import TrainingConfig, budget_steps
from folio.training.deadline import MOST_EVALUATION_SHARE, TimeBudget, steps_between

DEFAULT_MINUTES = 5.0

SMALL_SAMPLE = 16_384
"""Tokens of training text that tell its loss well enough, within about 0.02."""
SMALLEST_SAMPLE = 2048
"""Where even one evaluation with that would cost much: of a large model in few minutes."""

END_SECONDS = 0.7
"""Measured on a quiet machine: from the last evaluation to the end of the command, for opening
the best checkpoint, the picture, the card and leaving."""
SAMPLE_SHARE, SAMPLE_SECONDS = 0.05, 2.0
"""Most time for the text that the model writes at the end, of a budget in minutes and at all."""

LOOK_SHARE, LOOK_SECONDS = 2 * SHARE_OF_RUN, 2.0
"""Most time for the look back at a run, also."""

FIRST_STEPS = 12
"""Are planned first at least, where there is time for them on a machine without other programs."""

READ_AT_END = {"elsewhere": 1, "test": 2, "old": 1}
"""How often the end of a run reads a part of the text: test text by the best and by the last
checkpoint."""

BUSY = 1.25
"""Times that a step takes longer than its processor time, above which other programs are told."""
SLOW_STEP = 0.02
"""Share of the time that a step may take for the minutes to be kept."""


class CommandClock:
    """Seconds since the command began, of which a budget in minutes is made."""

    def __init__(self, seconds_before: float = 0.0) -> None:
        """
        Args:
            seconds_before: that the command had taken before this was made.
        """
        self.start = time.monotonic() - seconds_before

    def used(self) -> float:
        """Return the seconds that are gone."""
        return time.monotonic() - self.start


@dataclass(frozen=True)
class Frozen:
    """A budget in steps."""

    recipe: Recipe
    """With max_steps, and with a pace of one knot where the budget was in minutes."""
    speed: Speed | None = None
    """By which minutes were turned into steps."""
    time: TimeBudget | None = None
    """What is kept to the clock."""


def freeze_budget(
    recipe: Recipe,
    device: Device,
    training: TokenIds,
    validation: TokenIds,
    clock: CommandClock | None = None,
    speed: Speed | None = None,
    read_at_end: int = 0,
    tell: Callable[[str], None] = lambda line: None,
    from_step: int = 0,
) -> Frozen:
    """Turn whatever budget the recipe has into steps.

    Args:
        recipe: with the size of the vocabulary filled in.
        device: where it is trained.
        training, validation: token ids.
        clock: of the command, for a budget in minutes; from now on where it is None.
        speed: of the recipe here, where it is known; a budget in minutes measures it otherwise.
        read_at_end: tokens of further held-out texts, which are read when training has ended.
        tell: takes a line about what the minutes leave.
        from_step: steps that a run has behind it which goes on.
    """
    config, length = recipe.training, recipe.model.context_length
    # Beside old text, an epoch of the new one takes more targets.
    steps = budget_steps(config, length, round((len(training) - 1) / (1 - recipe.start.kept)))
    minutes = config.minutes or (0.0 if steps else DEFAULT_MINUTES)
    if minutes:
        clock = clock or CommandClock()
        speed = speed or measure(recipe, device, training, validation)
        seconds = 60 * minutes
        end, look = END_SECONDS, look_seconds(seconds)
        end += speed.evaluation_seconds * read_at_end / (2 * len(validation))
        left = seconds - clock.used() - end - look
        recipe, speed = sample_less(recipe, speed, left, len(validation))
        budget = TimeBudget(
            seconds,
            speed.step_seconds,
            speed.evaluation_seconds,
            end,
            sample_seconds(seconds),
            steps,
            from_step,
            look,
        )
        recipe = plan(recipe, speed, budget, clock.used(), tell)
        return Frozen(recipe, speed, budget)
    if not recipe.schedule.pace:  # beside a pace, evaluations follow the progress
        interval = evaluation_interval(config, steps, length, len(validation))
        config = replace(config, evaluation_interval=interval, evaluations=0)
    return Frozen(replace(recipe, training=_fixed(config, steps)))


def plan(
    recipe: Recipe,
    speed: Speed,
    budget: TimeBudget,
    used: float,
    tell: Callable[[str], None],
) -> Recipe:
    """Make the first plan of a budget in minutes.

    Args:
        recipe: whose steps and evaluations are filled in.
        speed: of the recipe on this machine, now.
        budget: the time.
        used: seconds of it that are gone.
        tell: takes a line where the minutes are hardly enough, or the machine is busy.
    """
    config, from_step = recipe.training, budget.from_step
    step, evaluation = (speed.slowdown * s for s in (speed.step_seconds, speed.evaluation_seconds))
    if recipe.start.run and not from_step:
        used += evaluation  # of the weights that it begins with
    left = budget.for_steps(used, speed.slowdown)
    n = config.evaluations or evaluations_in(left, evaluation)
    alone = budget.for_steps(used, 1.0) - n * speed.evaluation_seconds
    # A busy moment must not end a run before it can be planned anew.
    at_least = max(min(FIRST_STEPS, int(alone / speed.step_seconds)), 1)
    interval = config.evaluation_interval
    fit = (
        steps_between(interval, left / step, evaluation / step)
        if interval
        else (left - n * evaluation) / step
    )
    steps = from_step + max(int(fit), at_least)
    steps = min(steps, budget.most_steps) if budget.most_steps else steps
    if speed.slowdown > BUSY:
        tell(f"this machine is busy: {1 / speed.slowdown:.0%} of its time is ours")
    if n * evaluation > left / 4 or step > SLOW_STEP * budget.seconds or used > budget.seconds / 2:
        tell(
            f"{duration(budget.seconds)} are few here: starting took {used:.1f} s, a step takes "
            f"{step:.2g} s, an evaluation {evaluation:.2g} s and the end "
            f"{budget.seconds - used - left:.1f} s, which leaves {steps - from_step} steps"
        )
    config = replace(config, evaluations=0 if interval else n)
    schedule = replace(recipe.schedule, pace=(f"0:{steps}",))
    return replace(recipe, training=_fixed(config, steps), schedule=schedule)


def sample_less(
    recipe: Recipe, speed: Speed, seconds: float, n_validation: int
) -> tuple[Recipe, Speed]:
    """Let evaluations read less of the training text where the usual ones would cost much.

    Args:
        recipe: whose evaluations read as much training text as there is validation text.
        speed: its, measured so.
        seconds: for steps and evaluations.
        n_validation: tokens of the validation text.

    Returns:
        The recipe with `training.evaluation_sample`, and what its evaluations take.
    """
    sample = recipe.training.evaluation_sample
    most = MOST_EVALUATION_SHARE * seconds

    def seconds_with(sample: int) -> float:
        return speed.evaluation_seconds * (n_validation + sample) / n_validation / 2

    if not sample and EVALUATIONS[0] * speed.evaluation_seconds > most:
        sample = min(max(n_validation // 8, SMALL_SAMPLE), n_validation)
        if seconds_with(sample) > most:
            sample = min(SMALLEST_SAMPLE, n_validation)
    if not sample:
        return recipe, speed
    config = replace(recipe.training, evaluation_sample=sample)
    faster = replace(speed, evaluation_seconds=seconds_with(sample))
    return replace(recipe, training=config), faster


def read_at_end(files: Mapping[str, Path]) -> int:
    """Tokens that are read when training has ended, beside the validation text.

    Args:
        files: of token ids, by the part of the text.
    """
    there = [(files[part], n) for part, n in READ_AT_END.items() if part in files]
    return sum(n * len(open_token_file(path)) for path, n in there if path.exists())


def _fixed(config: TrainingConfig, steps: int) -> TrainingConfig:
    log_interval = config.log_interval or max(1, steps // 1000)
    none = {"max_tokens": 0, "max_epochs": 0.0, "minutes": 0.0}
    return replace(config, max_steps=steps, log_interval=log_interval, **none)


def sample_seconds(seconds: float) -> float:
    """Most time that the text at the end of a run may take, of a budget."""
    return min(SAMPLE_SHARE * seconds, SAMPLE_SECONDS)


def look_seconds(seconds: float) -> float:
    """Most time that the look back at a run may take, of a budget."""
    return min(LOOK_SHARE * seconds, LOOK_SECONDS)
