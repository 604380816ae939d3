"""Measures how fast a recipe trains on this machine, with a throwaway model."""

from __future__ import annotations

import gc
import math
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median
from typing import Self

import torch

from folio.device import Device, matrix_rate
from folio.evaluation.score import batch_tokens_on, sampled_windows
from folio.recipe.build import build
from folio.recipe.evaluations import evaluation_interval
from folio.recipe.recipe import Recipe
from folio.tokenizers.base import TokenIds
from folio.training.config import TrainingConfig
from folio.training.parts import Training
from folio.workers import forks

MATMUL_ROWS = 4096
"""Of the matmul whose rate says how fast a GPU is."""

MEASURE_SECONDS = 1.0
"""Seconds of steps to plan by. If they mislead, the plan is corrected after a fiftieth of
the time."""
MEASURED_STEPS, MOST_MEASURE_SECONDS = 4, 10.0
"""Fewest steps that are measured, unless they take longer than these seconds: then two, since a
large model may have minutes too."""
SMALL_SHARE = 0.01
"""Share of the peak learning rate used by the measured steps."""
EVALUATION_MEASURE_SECONDS = 0.5
"""Seconds of evaluations to plan by."""


@dataclass(frozen=True)
class Throughput:
    """The speed of a recipe on a machine."""

    step_seconds: float
    """Seconds per step; processor time where available, which excludes other programs."""
    evaluation_seconds: float
    """Seconds per evaluation, measured likewise."""
    slowdown: float = 1.0
    """Ratio of wall-clock time to that time, because of other programs."""

    def run_seconds(self, config: TrainingConfig, context_length: int, n_validation: int) -> float:
        """Seconds of `config.max_steps` steps and the evaluations in them."""
        steps = config.max_steps
        interval = evaluation_interval(config, steps, context_length, n_validation)
        return steps * self.step_seconds + math.ceil(steps / interval) * self.evaluation_seconds


def token_flops(recipe: Recipe) -> float:
    """Operations per token of a step by the usual count: six per weight, and attention."""
    model = recipe.model
    return (
        6 * model.n_parameters + 12 * model.n_layers * model.context_length * model.attention_width
    )


def matmul_flops(recipe: Recipe, device: Device) -> float:
    """Measure the operations per second of a matmul of the model's width, with MATMUL_ROWS rows."""
    config = device.config
    return 1e9 * matrix_rate(config.kind, config.precision, MATMUL_ROWS, recipe.model.d_model)


def steps_in(
    seconds: float,
    speed: Throughput,
    config: TrainingConfig,
    context_length: int,
    n_validation: int,
) -> int:
    """The most steps that fit into a budget with their evaluations; at least one."""
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
) -> Throughput:
    """Measure the speed of a recipe.

    Args:
        recipe: what to build and throw away.
        device: the device to measure.
        training, validation: token ids.
        seconds: time for steps; MEASURED_STEPS are taken in any case, or two if they are slow.
        n_windows: windows of a batch to try if a whole one takes too long; 0 takes all.
    """
    speed = _measure(recipe, device, training, validation, seconds, n_windows)
    gc.collect()  # the model is in reference cycles
    return speed


def _measure(
    recipe: Recipe,
    device: Device,
    training: TokenIds,
    validation: TokenIds,
    seconds: float,
    n_windows: int,
) -> Throughput:
    whole = recipe.training.batch_size
    n_windows = min(n_windows or whole, whole)
    config = replace(recipe.training, max_steps=1 << 30)
    schedule = replace(recipe.schedule, pace=())
    trial = build(replace(recipe, training=config, schedule=schedule), device, training, validation)
    with trial.step.running():
        gradient_seconds, update_seconds, slowdown = _measure_steps(trial, n_windows, seconds)
        length = trial.context_length
        # A full batch per worker, since few windows say too little, unless that takes seconds: a
        # forward pass costs a third of a gradient.
        fitting = EVALUATION_MEASURE_SECONDS * 3 * n_windows * length / gradient_seconds
        at_once = batch_tokens_on(trial.device.torch)
        about = min(10 * n_windows * length, trial.step.n_workers * at_once)
        about = min(about, max(int(8 * fitting), length))
        rounds: list[float] = []
        begin = time.perf_counter()
        # The first one loads code.
        while len(rounds) < 2 or time.perf_counter() - begin < EVALUATION_MEASURE_SECONDS:
            watch, n_targets = _read_piece(trial, about)
            rounds.append(watch.processor / n_targets)
        token_seconds = min(rounds[1:])
    return Throughput(
        step_seconds=gradient_seconds * whole / n_windows + update_seconds,
        evaluation_seconds=2 * token_seconds * (len(validation) - 1),
        slowdown=slowdown,
    )


def evaluation_now(training: Training) -> float:
    """Seconds that an evaluation takes with the programs that run now, extrapolated from a
    piece.
    """
    at_once = batch_tokens_on(training.device.torch)
    watch, n_targets = _read_piece(training, training.step.n_workers * at_once)
    config = training.config
    n = config.tokens_read(len(training.validation) - 1)
    return watch.clock / n_targets * (n + (config.evaluation_sample or n))


def _read_piece(training: Training, about: int) -> tuple[Stopwatch, int]:
    """Evaluate about `about` targets of the validation text; returns the time and their number."""
    windows = sampled_windows(len(training.validation), training.context_length, about)
    with Stopwatch(training) as watch:
        n_read = training.step.score(training.validation, windows, "measurement").targets
    return watch, n_read


def _measure_steps(trial: Training, n_windows: int, seconds: float) -> tuple[float, float, float]:
    """Median seconds of the gradients of `n_windows` windows and of an update, both in processor
    time, and the ratio of wall-clock time to it.
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
        # A step takes as long, whatever the weights are.
        with Stopwatch(trial) as update, suppress(FloatingPointError):
            trial.step.update(SMALL_SHARE, computed.norm)
        gradients.append(gradient)
        updates.append(update)
    # The first one allocates. A median ignores a short pause.
    clock, processor = (
        [median(getattr(watch, kind) for watch in row[1:]) for row in (gradients, updates)]
        for kind in ("clock", "processor")
    )
    return *processor, max(1.0, sum(clock) / sum(processor))


class Stopwatch:
    """The seconds that a block takes, by the clock and in processor time where available."""

    def __init__(self, trial: Training) -> None:
        """Prepare to time.

        Args:
            trial: the training that computes in the block.
        """
        n = trial.step.n_workers
        self.is_processor = trial.device.config.kind == "cpu"
        # Rank 0 has as much to do as every other worker, on threads of its own or one.
        self.n_threads = 1 if n > 1 and forks() else n * torch.get_num_threads()

    def __enter__(self) -> Self:
        self.start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.clock = time.perf_counter() - self.start[0]
        own = (time.process_time() - self.start[1]) / self.n_threads
        self.processor = max(own, 1e-9) if self.is_processor else self.clock
