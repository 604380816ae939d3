"""The training loop. It tells an Observer what happens; it prints, draws and saves nothing.

Shapes:  B windows in a batch · T context length · V vocabulary
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn

from folio.device import Device
from folio.evaluation.score import exact_windows, sampled_windows, score
from folio.model.loss import next_token_loss
from folio.tokenizers.base import TokenIds
from folio.tokens.stream import IGNORED, Batch, TokenStream
from folio.training.config import TrainingConfig
from folio.training.optimizers import OptimizerConfig
from folio.training.schedule import ScheduleConfig, learning_rate_share
from folio.training.state import TrainingState

Ending = Literal["finished", "patience", "interrupted", "non-finite"]


@dataclass(frozen=True)
class Evaluation:
    """Losses at one step, both without dropout, in nats per token."""

    validation_loss: float
    """Exact: the whole validation text."""
    training_loss: float
    """On windows spread over the training text, as many tokens; always the same."""


class Observer(Protocol):
    """Learns what happens, in order."""

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        """After each optimizer step; `loss` is that of its batch, before the step."""

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        """After each evaluation; `state` knows already whether it was the best."""

    def save(self, state: TrainingState) -> None:
        """A moment from which a run can be resumed."""

    def ended(self, state: TrainingState, ending: Ending) -> None:
        """Nothing follows."""


@dataclass(frozen=True)
class Training:
    """The parts of a run, put together."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    stream: TokenStream
    validation: TokenIds
    context_length: int
    device: Device
    config: TrainingConfig
    """With max_steps and the intervals above 0."""
    optimizer_config: OptimizerConfig
    schedule: ScheduleConfig


def train(
    training: Training,
    state: TrainingState,
    observer: Observer,
    should_stop: Callable[[], bool] = lambda: False,
) -> Ending:
    """Train from `state` to the end of the budget; the model and `state` change in place.

    Args:
        training: the parts.
        state: where to begin.
        observer: is told what happens.
        should_stop: asked after each step; True ends the run as `interrupted`.

    Returns:
        Why it ended. After `non-finite` the weights are those before the bad step.
    """
    config, stream = training.config, training.stream
    stream.place = state.place
    training.model.train()
    clock = _Clock(state)

    while True:
        due = state.step % config.evaluation_interval == 0 or state.step == config.max_steps
        if due and state.step > state.evaluated_step:
            evaluation = evaluate(training)
            note_evaluation(state, evaluation)
            clock.read()
            observer.evaluated(state, evaluation)
            observer.save(state)
            if config.patience and state.stale_evaluations >= config.patience:
                return _end("patience", state, observer)
        if state.step >= config.max_steps:
            return _end("finished", state, observer)
        if should_stop():
            observer.save(state)
            return _end("interrupted", state, observer)

        learning_rate = set_learning_rate(training, state.step)
        batch = stream.next_batch(config.batch_size, training.context_length)
        loss = accumulate_gradients(training, batch)
        norm = clip_gradients(training)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            training.optimizer.zero_grad(set_to_none=True)
            stream.place = state.place
            observer.save(state)
            return _end("non-finite", state, observer)
        training.optimizer.step()
        training.optimizer.zero_grad(set_to_none=True)

        state.step += 1
        state.tokens += int((batch.targets != IGNORED).sum())
        state.place = stream.place
        clock.read()
        observer.stepped(state, loss, learning_rate)
        if config.save_interval and state.step % config.save_interval == 0:
            observer.save(state)


def evaluate(training: Training) -> Evaluation:
    """Exact loss of the validation text, and loss of as much training text."""
    length, tokens = training.context_length, training.stream.tokens
    with training.device.autocast():
        validation = score(
            training.model,
            training.validation,
            exact_windows(len(training.validation), length),
            "exact",
        )
        windows = sampled_windows(len(tokens), length, len(training.validation) - 1)
        sample = score(training.model, tokens, windows, "sample")
    return Evaluation(validation.nats_per_token, sample.nats_per_token)


def note_evaluation(state: TrainingState, evaluation: Evaluation) -> None:
    """Keep the best loss, and count the evaluations since."""
    state.evaluated_step = state.step
    state.stale_evaluations += 1
    if evaluation.validation_loss < state.best_validation_loss:
        state.best_validation_loss = evaluation.validation_loss
        state.best_step = state.step
        state.stale_evaluations = 0


def set_learning_rate(training: Training, step: int) -> float:
    """Give every parameter group the rate of this step, and return it."""
    share = learning_rate_share(training.schedule, step, training.config.max_steps)
    learning_rate = training.optimizer_config.learning_rate * share
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate
    return learning_rate


def accumulate_gradients(training: Training, batch: Batch) -> float:
    """Add up the gradients of a batch, some windows at a time.

    Each window weighs by its targets, so that the sum is the gradient of the mean loss of
    the whole batch, short windows and a short last group included.

    Returns:
        That mean loss, in nats.
    """
    size = training.config.micro_batch_size or len(batch.inputs)
    n_targets = int((batch.targets != IGNORED).sum())
    total = 0.0
    for first in range(0, len(batch.inputs), size):
        inputs = torch.from_numpy(batch.inputs[first : first + size]).to(training.device.torch)
        targets = torch.from_numpy(batch.targets[first : first + size]).to(training.device.torch)
        with training.device.autocast():
            logits = training.model(inputs)  # (B, T, V)
        loss = next_token_loss(logits, targets, reduction="sum") / n_targets
        loss.backward()
        total += loss.item()
    return total


def clip_gradients(training: Training) -> float:
    """Scale all gradients down together where their norm is above the limit.

    Returns:
        The norm before.
    """
    limit = training.optimizer_config.gradient_clip or math.inf
    return torch.nn.utils.clip_grad_norm_(training.model.parameters(), limit).item()


def _end(ending: Ending, state: TrainingState, observer: Observer) -> Ending:
    observer.ended(state, ending)
    return ending


class _Clock:
    """Adds the time since the last reading to a state."""

    def __init__(self, state: TrainingState) -> None:
        self.state, self.last = state, time.perf_counter()

    def read(self) -> None:
        now = time.perf_counter()
        self.state.seconds += now - self.last
        self.last = now
