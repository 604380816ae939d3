"""A recipe and its tokens -> the parts of a training, and the budget in steps."""

from __future__ import annotations

import copy
import gc
import math
import time
from dataclasses import dataclass, replace
from functools import partial

import torch

from folio.device import Device, choose_device
from folio.errors import UserError
from folio.evaluation.score import sampled_windows
from folio.model.gpt import GPT
from folio.model.loss import next_token_loss
from folio.recipe.recipe import Recipe
from folio.tokenizers.base import TokenIds
from folio.tokens.goldfish import CHARACTERS_BEFORE, TOKENS_BEFORE
from folio.tokens.stream import TokenStream
from folio.training.config import TrainingConfig, budget_steps
from folio.training.loop import Training, compute_gradients, update_weights
from folio.training.replicas import Replicas, usual_loss
from folio.training.updates import Optimizer

DEFAULT_MINUTES = 5.0
MEASURE_SECONDS = 3.0

EVALUATION_SHARE = 0.05
"""Of the time of a run, spent on evaluations where their interval is left open ..."""
EVALUATIONS = (4, 20)
"""... but at least so many, for a curve, and at most so many."""


def choose_for(recipe: Recipe) -> Device:
    """The device for a recipe, by products as large as those of its model."""
    model = recipe.model
    windows = recipe.training.micro_batch_size or recipe.training.batch_size
    return choose_device(recipe.device, min(windows * model.context_length, 4096), model.d_model)


def fit_vocabulary(recipe: Recipe, n_ids: int) -> Recipe:
    """Fill in the rows of the model.

    Raises:
        UserError: fewer rows than the tokenizer has ids.
    """
    rows = recipe.model.vocab_size or n_ids
    if rows < n_ids:
        raise UserError(
            f"model.vocab_size is {rows}, but the tokenizer has {n_ids} ids. "
            f"Give 0 for its size, or more rows."
        )
    return replace(recipe, model=replace(recipe.model, vocab_size=rows))


def build(recipe: Recipe, device: Device, training: TokenIds, validation: TokenIds) -> Training:
    """Put the parts together; the same recipe gives the same weights.

    Raises:
        UserError: the text is shorter than one window.
    """
    if len(validation) < 2:
        raise UserError(
            f"The validation text has {len(validation)} tokens, too few for a loss. "
            f"Give more text, or a larger --corpus.validation-fraction."
        )
    model = GPT(recipe.model, torch.Generator().manual_seed(recipe.seed)).to(device.torch)
    torch.manual_seed(recipe.seed)  # dropout on an accelerator draws from the global state
    replicas = Replicas(model, device, recipe.training.batch_size, recipe.seed)
    tokens_before = CHARACTERS_BEFORE if recipe.tokenizer.kind == "character" else TOKENS_BEFORE
    penalty = recipe.training.confidence_penalty
    replicas.loss = partial(usual_loss, confidence_penalty=penalty)
    return Training(
        model=model,
        replicas=replicas,
        optimizer=Optimizer(recipe.optimizer, model, replicas),
        stream=TokenStream(
            training,
            window=recipe.model.context_length,
            seed=recipe.seed,
            config=recipe.stream,
            lanes=recipe.training.batch_size,
            goldfish=(recipe.training.goldfish, tokens_before),
        ),
        validation=validation,
        context_length=recipe.model.context_length,
        device=device,
        config=recipe.training,
        optimizer_config=recipe.optimizer,
        schedule=recipe.schedule,
    )


@dataclass(frozen=True)
class Speed:
    """Of a recipe on a machine, measured on a model that is thrown away."""

    step_seconds: float
    evaluation_seconds: float

    def run_seconds(self, config: TrainingConfig, context_length: int, n_validation: int) -> float:
        """Of `config.max_steps` steps and the evaluations that are due in them."""
        steps = config.max_steps
        interval = evaluation_interval(config, steps, context_length, n_validation)
        return steps * self.step_seconds + math.ceil(steps / interval) * self.evaluation_seconds


def freeze_budget(
    recipe: Recipe, device: Device, training: TokenIds, validation: TokenIds
) -> tuple[Recipe, Speed | None]:
    """Turn whatever budget the recipe has into steps, so that nothing depends on a clock.

    Returns:
        The recipe with its steps. For a budget in minutes also the speed that it was turned by,
        from some seconds of steps and evaluation on a model that is thrown away.
    """
    config = recipe.training
    length = recipe.model.context_length
    steps = budget_steps(config, length, len(training) - 1)
    minutes = config.minutes or (0.0 if steps else DEFAULT_MINUTES)
    speed = None
    if minutes:
        speed = measure(recipe, device, training, validation)
        affordable = steps_in(minutes * 60, speed, config, length, len(validation))
        steps = min(steps, affordable) if steps else affordable
    interval = evaluation_interval(config, steps, length, len(validation))
    frozen = replace(
        config,
        max_steps=steps,
        max_tokens=0,
        max_epochs=0.0,
        minutes=0.0,
        evaluation_interval=interval,
        evaluations=0,
        log_interval=config.log_interval or max(1, steps // 1000),
    )
    return replace(recipe, training=frozen), speed


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
        seconds: to spend on steps; at least four are taken.
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
    trial = build(replace(recipe, training=config), device, training, validation)
    with trial.replicas.at_work():
        gradient_seconds, update_seconds = _measure_steps(trial, n_windows, seconds)
        length = trial.context_length
        windows = sampled_windows(len(validation), length, 32 * length)
        start = time.perf_counter()
        scored = trial.replicas.score(validation, windows, "measurement")
        token_seconds = (time.perf_counter() - start) / scored.targets
    return Speed(
        step_seconds=gradient_seconds * whole / n_windows + update_seconds,
        evaluation_seconds=2 * token_seconds * (len(validation) - 1),
    )


def _measure_steps(trial: Training, n_windows: int, seconds: float) -> tuple[float, float]:
    """Mean seconds of the gradients of so many windows, and of an update."""
    durations: list[tuple[float, float]] = []
    begin = time.perf_counter()
    while len(durations) < 4 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        batch = trial.stream.next_batch(n_windows, trial.context_length)
        _, norm = compute_gradients(trial, batch, step=0)
        between = time.perf_counter()
        update_weights(trial, 0, norm)
        durations.append((between - start, time.perf_counter() - between))
    steady = durations[1:]  # the first one allocates
    gradient_seconds, update_seconds = (sum(column) / len(steady) for column in zip(*steady))
    return gradient_seconds, update_seconds


def check_device(training: Training) -> None:
    """Compare the loss of one batch with the CPU's, since wrong kernels go unnoticed.

    Raises:
        UserError: they differ by more than the precision explains.
    """
    if training.device.config.kind == "cpu":
        return
    begin = training.stream.place
    batch = training.stream.next_batch(min(4, training.config.batch_size))
    training.stream.place = begin
    losses = []
    for model in (training.replicas.copies[0].model, copy.deepcopy(training.model).cpu()):
        place = next(model.parameters()).device
        inputs, targets = (torch.from_numpy(rows).to(place) for rows in batch)
        model.eval()
        with torch.no_grad():
            losses.append(next_token_loss(model(inputs), targets).item())
        model.train()
    tolerance = 0.001 if training.device.config.precision == "float32" else 0.02
    if not abs(losses[0] - losses[1]) <= tolerance * abs(losses[1]):
        raise UserError(
            f"{training.device.torch} computes a loss of {losses[0]:.4f} where the CPU computes "
            f"{losses[1]:.4f}: this device cannot be trusted. Give --device.kind cpu."
        )
