"""The budget of a recipe -> a number of steps; a budget in minutes -> a first plan and its limits.

Steps, tokens and epochs are turned into steps at once. Minutes are, too, by the speed of a model
that is thrown away; that plan is kept to the clock while the run trains (training/deadline.py).
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Self

import torch

from folio.console import duration
from folio.device import Device
from folio.evaluation.score import BATCH_TOKENS, sampled_windows
from folio.recipe.build import build
from folio.recipe.recipe import Recipe
from folio.run.look_back import SHARE_OF_RUN
from folio.tokenizers.base import TokenIds
from folio.tokens.token_file import open_token_file
from folio.training.config import TrainingConfig, budget_steps
from folio.training.deadline import MOST_EVALUATION_SHARE, TimeBudget, steps_between
from folio.training.parts import Training
from folio.workers import forks

DEFAULT_MINUTES = 5.0
MEASURE_SECONDS = 1.0
"""Of steps, to plan by. Where it is wrong, the plan is corrected after a fiftieth of the time."""
MEASURED_STEPS, MOST_MEASURE_SECONDS = 4, 10.0
"""At least so many, unless they take so long: then two, since a large model has minutes too."""
SMALL_SHARE = 0.01
"""Of the peak learning rate, in the steps that are measured."""
EVALUATION_MEASURE_SECONDS = 0.5
"""Of evaluations, also."""

EVALUATION_SHARE = 0.05
"""Of the time of a run, spent on evaluations where their interval is left open ..."""
EVALUATIONS = (4, 20)
"""... but at least so many, for a curve, and at most so many; fewer than the least where they would
take more than MOST_EVALUATION_SHARE of a budget in minutes."""

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


@dataclass(frozen=True)
class Speed:
    """Of a recipe on a machine, measured on a model that is thrown away."""

    step_seconds: float
    """Of processor time, where the machine tells it: without what other programs take."""
    evaluation_seconds: float
    """Also."""
    slowdown: float = 1.0
    """How many times longer it took by the clock, beside those programs."""

    def run_seconds(self, config: TrainingConfig, context_length: int, n_validation: int) -> float:
        """Of `config.max_steps` steps and the evaluations that are due in them."""
        steps = config.max_steps
        interval = evaluation_interval(config, steps, context_length, n_validation)
        return steps * self.step_seconds + math.ceil(steps / interval) * self.evaluation_seconds


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


def evaluations_in(seconds: float, evaluation_seconds: float) -> int:
    """How many evaluations a budget affords: at least one.

    >>> evaluations_in(300, 1.0), evaluations_in(30, 1.0), evaluations_in(30, 10.0)
    (15, 4, 1)
    """
    least, most = EVALUATIONS
    evaluation_seconds = max(evaluation_seconds, 1e-9)
    usual = min(max(int(EVALUATION_SHARE * seconds / evaluation_seconds), least), most)
    return max(min(usual, int(MOST_EVALUATION_SHARE * seconds / evaluation_seconds)), 1)


def evaluation_interval(
    config: TrainingConfig, steps: int, context_length: int, n_validation: int
) -> int:
    """Steps between evaluations, where the recipe leaves it open.

    An evaluation reads the validation text and as much training text; reading forward costs
    a third of training.
    """
    if config.evaluation_interval:
        return config.evaluation_interval
    if config.evaluations:
        return max(1, math.ceil(steps / config.evaluations))
    cost = 2 * n_validation / 3 / (config.batch_size * context_length)  # in steps
    wanted = min(max(int(EVALUATION_SHARE * steps / cost), EVALUATIONS[0]), EVALUATIONS[1])
    return max(1, math.ceil(steps / wanted))


def steps_in(
    seconds: float, speed: Speed, config: TrainingConfig, context_length: int, n_validation: int
) -> int:
    """Most steps whose time, evaluations included, stays within a budget; at least one."""
    low, high = 1, max(1, int(seconds / speed.step_seconds))
    while low < high:
        middle = (low + high + 1) // 2
        tried = replace(config, max_steps=middle)
        fits = speed.run_seconds(tried, context_length, n_validation) <= seconds
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def measure(
    recipe: Recipe,
    device: Device,
    training: TokenIds,
    validation: TokenIds,
    seconds: float = MEASURE_SECONDS,
    n_windows: int = 0,
) -> Speed:
    """The speed of a recipe.

    Args:
        recipe: what to build and throw away.
        device: where.
        training, validation: token ids.
        seconds: to spend on steps; MEASURED_STEPS are taken in any case, two if they are slow.
        n_windows: of a batch to try, where a whole one takes too long; 0 takes all.
    """
    speed = _measure(recipe, device, training, validation, seconds, n_windows)
    gc.collect()  # the model: its copies and what they were taught hold each other
    return speed


def _measure(
    recipe: Recipe,
    device: Device,
    training: TokenIds,
    validation: TokenIds,
    seconds: float,
    n_windows: int,
) -> Speed:
    whole = recipe.training.batch_size
    n_windows = min(n_windows or whole, whole)
    config = replace(recipe.training, max_steps=1 << 30)
    schedule = replace(recipe.schedule, pace=())
    trial = build(replace(recipe, training=config, schedule=schedule), device, training, validation)
    with trial.step.running():
        gradient_seconds, update_seconds, slowdown = _measure_steps(trial, n_windows, seconds)
        length = trial.context_length
        # A full batch for each worker, since few windows say too little, if that takes no seconds:
        # reading forward costs a third of a gradient.
        fitting = EVALUATION_MEASURE_SECONDS * 3 * n_windows * length / gradient_seconds
        about = min(10 * n_windows * length, trial.step.world_size * BATCH_TOKENS)
        about = min(about, max(int(8 * fitting), length))
        rounds: list[float] = []
        begin = time.perf_counter()
        # The first one loads.
        while len(rounds) < 2 or time.perf_counter() - begin < EVALUATION_MEASURE_SECONDS:
            watch, n_targets = _read_piece(trial, about)
            rounds.append(watch.processor / n_targets)
        token_seconds = min(rounds[1:])
    return Speed(
        step_seconds=gradient_seconds * whole / n_windows + update_seconds,
        evaluation_seconds=2 * token_seconds * (len(validation) - 1),
        slowdown=slowdown,
    )


def evaluation_now(training: Training) -> float:
    """Seconds that an evaluation of a run takes beside the programs that run now, from a piece."""
    watch, n_targets = _read_piece(training, training.step.world_size * BATCH_TOKENS)
    n = len(training.validation) - 1
    return watch.clock / n_targets * (n + (training.config.evaluation_sample or n))


def _read_piece(training: Training, about: int) -> tuple[Stopwatch, int]:
    """Evaluate about so many targets of the validation text: how long it took, and how many."""
    windows = sampled_windows(len(training.validation), training.context_length, about)
    with Stopwatch(training) as watch:
        n_read = training.step.score(training.validation, windows, "measurement").targets
    return watch, n_read


def _measure_steps(trial: Training, n_windows: int, seconds: float) -> tuple[float, float, float]:
    """Median seconds of the gradients of so many windows and of an update, both of processor
    time, and how many times longer they took by the clock.
    """
    gradients, updates = [], []
    begin = time.perf_counter()
    while (
        len(updates) < 2
        or time.perf_counter() - begin < seconds
        or (len(updates) < MEASURED_STEPS and time.perf_counter() - begin < MOST_MEASURE_SECONDS)
    ):
        with Stopwatch(trial) as gradient:
            batch = trial.stream.next_batch(n_windows, trial.context_length)
            computed = trial.step.backward(batch, step=0)
        # Whatever becomes of these weights, a step takes as long.
        with Stopwatch(trial) as update, suppress(FloatingPointError):
            trial.step.update(SMALL_SHARE, computed.norm)
        gradients.append(gradient)
        updates.append(update)
    # The first one allocates. A median minds no pause of a moment.
    clock, processor = (
        [median(getattr(watch, kind) for watch in row[1:]) for row in (gradients, updates)]
        for kind in ("clock", "processor")
    )
    return *processor, max(1.0, sum(clock) / sum(processor))


class Stopwatch:
    """Seconds that a block takes: by the clock, and of processor time where that can be told."""

    def __init__(self, trial: Training) -> None:
        """
        Args:
            trial: which computes in the block.
        """
        n = trial.step.world_size
        self.is_processor = trial.device.config.kind == "cpu"
        # Rank 0 has as much to do as each of the others, on threads of its own or one.
        self.n_threads = 1 if n > 1 and forks() else n * torch.get_num_threads()

    def __enter__(self) -> Self:
        self.start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.clock = time.perf_counter() - self.start[0]
        own = (time.process_time() - self.start[1]) / self.n_threads
        self.processor = max(own, 1e-9) if self.is_processor else self.clock
