"""Turns a budget into a number of steps; a budget in minutes into a first plan and its limits.

Steps, tokens and epochs become steps at once. So do minutes, by measuring the speed of a throwaway
model; training/deadline.py then corrects that plan by the clock while the run trains.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from folio.console import amount, duration, few_digits
from folio.device import Device
from folio.recipe.compiling import choose_compile
from folio.recipe.evaluations import EVALUATIONS, evaluation_interval, evaluations_in
from folio.recipe.recipe import Recipe
from folio.recipe.speed import Throughput, evaluation_now, measure
from folio.run.add_ngrams import targets_weighed
from folio.run.held_out import OLD_TARGETS
from folio.run.look_back import SHARE_OF_RUN
from folio.tokenizers.base import TokenIds
from folio.tokens.token_file import open_token_file
from folio.training.config import TrainingConfig, budget_steps, minutes_of
from folio.training.deadline import (
    MOST_EVALUATION_SHARE,
    Deadline,
    TimeBudget,
    steps_between,
)
from folio.training.parts import Training
from folio.training.state import TrainingState

LARGE_SAMPLE = 1 << 16
"""Tokens of training text that are read at most, since no verdict needs its loss to less than
0.01."""
SMALL_SAMPLE = 16_384
"""Tokens of training text whose loss is within about 0.02 of that of the whole."""
SMALLEST_SAMPLE = 2048
"""The same if even one evaluation with SMALL_SAMPLE would be expensive, for large models in a few
minutes."""
FEWEST_VALIDATION = 1 << 17
"""Tokens of validation text that are always read, and so the whole of a short one: the best step is
chosen by them, and they are what a loss is told on."""

END_SECONDS = 0.7
"""Measured on an idle machine: from the last evaluation to the end of the command, for opening the
best checkpoint, the picture, the card and exiting."""
SAMPLE_SHARE, SAMPLE_SECONDS = 0.05, 2.0
"""Most time for the sample text at the end, as a share of a budget in minutes and in seconds."""

LOOK_SHARE, LOOK_SECONDS = 2 * SHARE_OF_RUN, 2.0
"""Most time for the look back at the end of a run, as a share of the budget and in seconds."""

FIRST_STEPS = 12
"""The first plan has at least so many steps, if an idle machine had time for them."""

NGRAM_TOKENS_PER_SECOND = 4e5
"""At which n-grams are counted at the end of a run; one thread had 6e5."""
NGRAM_TARGETS_PER_SECOND, NGRAM_LOGITS_PER_SECOND = 1.4e4, 2.2e6
"""At which one thread finds what n-grams expect, and the weights by which they are read."""
NGRAM_READINGS = 2
"""Readings of the validation text at the end of a run with n-grams, in time of the model alone."""

READ_AT_END = {"elsewhere": 1, "test": 2, "old": 1}
"""How often each text is read at the end of a run: the test text by the best and the last
checkpoint."""

BUSY = 1.25
"""Ratio of wall-clock time to processor time above which the user is told that the machine
is busy."""
SLOW_STEP = 0.02
"""Largest share of the budget that one step may take if the minutes are to be kept."""


class CommandClock:
    """Seconds since the command began, against which a budget in minutes is measured."""

    def __init__(self, seconds_before: float = 0.0) -> None:
        """Start the clock.

        Args:
            seconds_before: seconds that the command had taken before.
        """
        self.start = time.monotonic() - seconds_before

    def used(self) -> float:
        """Return the elapsed seconds."""
        return time.monotonic() - self.start


@dataclass(frozen=True)
class Frozen:
    """A recipe whose budget is in steps."""

    recipe: Recipe
    """The recipe with max_steps; if the budget was in minutes, also with a pace of one plan."""
    speed: Throughput | None = None
    """The speed that converted minutes to steps; None for other budgets."""
    time: TimeBudget | None = None
    """The budget to keep by the clock; None if the steps are fixed."""


def freeze_budget(
    recipe: Recipe,
    device: Device,
    training: TokenIds,
    validation: TokenIds,
    clock: CommandClock | None = None,
    speed: Throughput | None = None,
    read_at_end: Sequence[int] = (),
    tell: Callable[[str], None] = lambda line: None,
    from_step: int = 0,
) -> Frozen:
    """Convert the budget of a recipe to steps.

    Args:
        recipe: a recipe that has model.vocab_size.
        device: the device it will be trained on.
        training, validation: token ids.
        clock: clock of the command, for a budget in minutes; None starts it now.
        speed: the recipe's speed on this machine, if known; a budget in minutes measures it
            otherwise.
        read_at_end: tokens of each further held-out text that is read after training.
        tell: receives a line about what fits into the minutes.
        from_step: steps that a resumed run has already made.
    """
    config, length = recipe.training, recipe.model.context_length
    # If old text is mixed in, an epoch of the new text takes more targets.
    steps = budget_steps(config, length, round((len(training) - 1) / (1 - recipe.start.kept)))
    minutes = minutes_of(config)
    if minutes:
        clock = clock or CommandClock()
        speed = speed or measure(recipe, device, training, validation)
        seconds = 60 * minutes
        recipe, sampling = sample_less(recipe, speed, seconds - clock.used(), len(validation))
        read = [recipe.training.tokens_read(n) for n in read_at_end]
        end, look = END_SECONDS, look_seconds(seconds)
        if recipe.ngrams.order:
            read += NGRAM_READINGS * [recipe.training.tokens_read(len(validation))]
            end += min(len(training), recipe.ngrams.tokens) / NGRAM_TOKENS_PER_SECOND
            n_weighed = targets_weighed(recipe.model.vocab_size, len(validation))
            end += n_weighed / NGRAM_TARGETS_PER_SECOND
            end += n_weighed * recipe.model.vocab_size / NGRAM_LOGITS_PER_SECOND
        end += speed.evaluation_seconds * sum(read) / (2 * len(validation))
        left, speed = seconds - clock.used() - end - look, sampling
        budget = TimeBudget(
            seconds=seconds,
            step_seconds=speed.step_seconds,
            evaluation_seconds=speed.evaluation_seconds,
            end_seconds=end,
            sample_seconds=sample_seconds(seconds),
            most_steps=steps,
            from_step=from_step,
            look_seconds=look,
        )
        recipe = plan(recipe, speed, budget, clock.used(), tell)
        recipe = choose_compile(recipe, device, left)
        return Frozen(recipe, speed, budget)
    if not recipe.schedule.pace:  # with a pace, evaluations follow the progress
        n_read = config.tokens_read(len(validation))
        interval = evaluation_interval(config, steps, length, n_read)
        config = replace(config, evaluation_interval=interval, evaluations=0)
    recipe = replace(recipe, training=_fixed(config, steps))
    return Frozen(choose_compile(recipe, device))


def plan(
    recipe: Recipe,
    speed: Throughput,
    budget: TimeBudget,
    used: float,
    tell: Callable[[str], None],
) -> Recipe:
    """Make the first plan of a budget in minutes.

    Args:
        recipe: the recipe whose steps and evaluations are filled in.
        speed: its current speed on this machine.
        budget: the time.
        used: seconds of it that have elapsed.
        tell: receives a line if the minutes hardly suffice, or the machine is busy.
    """
    config, from_step = recipe.training, budget.from_step
    step, evaluation = (speed.slowdown * s for s in (speed.step_seconds, speed.evaluation_seconds))
    if recipe.start.run and not from_step:
        used += evaluation  # of the initial weights
    left = budget.for_steps(used, speed.slowdown)
    n = config.evaluations or evaluations_in(left, evaluation)
    alone = budget.for_steps(used, 1.0) - n * speed.evaluation_seconds
    # A busy moment must not end a run before it can be planned again.
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
            f"{few_digits(step)} s, an evaluation {few_digits(evaluation)} s and the end "
            f"{budget.seconds - used - left:.1f} s, which leaves "
            f"{amount(steps - from_step, 'step')}"
        )
    config = replace(config, evaluations=0 if interval else n)
    schedule = replace(recipe.schedule, pace=(f"0:{steps}",))
    return replace(recipe, training=_fixed(config, steps), schedule=schedule)


def with_deadline(
    training: Training, budget: TimeBudget | None, state: TrainingState, clock: CommandClock
) -> Training:
    """Have a training keep a budget by the clock; None leaves it as it is.

    Args:
        training: the parts of the run.
        budget: the time.
        state: where it begins, and how much of the time is used already.
        clock: counts from the beginning of the command.
    """
    if budget is None:
        return training
    before = state.used_seconds if state.step > budget.from_step else 0.0
    config, now = training.config, partial(evaluation_now, training)
    deadline = Deadline(
        budget, config.evaluations, lambda: before + clock.used(), config.evaluation_interval, now
    )
    return replace(training, deadline=deadline)


def sample_less(
    recipe: Recipe, speed: Throughput, seconds: float, n_validation: int
) -> tuple[Recipe, Throughput]:
    """Let evaluations read no more of the training text than says something, less if they would be
    expensive, and if that is not enough, less of a long validation text.

    Args:
        recipe: a recipe whose evaluations read as much training as validation text.
        speed: its speed, measured that way.
        seconds: available for steps and evaluations.
        n_validation: tokens of the validation text.

    Returns:
        The recipe with `training.evaluation_sample` and `training.validation_sample`, and the speed
        with its evaluations.
    """
    config = recipe.training
    given, n_read = config.evaluation_sample, config.tokens_read(n_validation)
    token_seconds = max(speed.evaluation_seconds, 1e-9) / n_validation / 2
    most = MOST_EVALUATION_SHARE * seconds
    n_readings = EVALUATIONS[0] + (NGRAM_READINGS if recipe.ngrams.order else 0)
    affordable = int(most / n_readings / token_seconds)
    sample = given or min(n_read, LARGE_SAMPLE)
    if not given and n_read + sample > affordable:
        sample = min(max(n_read // 8, SMALL_SAMPLE), sample)
        if token_seconds * (n_read + sample) > most:
            sample = min(SMALLEST_SAMPLE, sample)
    too_much = n_read + sample > affordable and n_read > FEWEST_VALIDATION
    if too_much and not config.validation_sample:
        n_read = min(max(affordable * 8 // 9, FEWEST_VALIDATION), n_read)
        sample = given or min(n_read // 8, LARGE_SAMPLE)
    if n_read < n_validation:
        config = replace(config, validation_sample=n_read)
    if sample < n_read:
        config = replace(config, evaluation_sample=sample)
    faster = replace(speed, evaluation_seconds=token_seconds * (n_read + sample))
    return replace(recipe, training=config), faster


def read_at_end(files: Mapping[str, Path], n_ngrams: int) -> list[int]:
    """Tokens of each reading after training, in addition to the validation text.

    Args:
        files: token files, by part of the text.
        n_ngrams: `ngrams.order`; beside n-grams the old text is read once more, by the model alone.
    """
    found = list[int]()
    for part, n in READ_AT_END.items():
        n += part == "old" and n_ngrams > 0
        if part in files and files[part].exists():
            n_tokens = len(open_token_file(files[part]))
            found += n * [min(n_tokens, OLD_TARGETS) if part == "old" else n_tokens]
    return found


def _fixed(config: TrainingConfig, steps: int) -> TrainingConfig:
    log_interval = config.log_interval or max(1, steps // 1000)
    none = {"max_tokens": 0, "max_epochs": 0.0, "minutes": 0.0}
    return replace(config, max_steps=steps, log_interval=log_interval, **none)


def sample_seconds(seconds: float) -> float:
    """Most seconds that the sample at the end may take, given the budget in seconds."""
    return min(SAMPLE_SHARE * seconds, SAMPLE_SECONDS)


def look_seconds(seconds: float) -> float:
    """Most seconds that the look back may take, given the budget in seconds."""
    return min(LOOK_SHARE * seconds, LOOK_SECONDS)
