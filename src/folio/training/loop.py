"""The training loop. It tells an Observer what happens; it prints, draws and saves nothing.

Shapes:  B windows in a batch · T context length · V vocabulary
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import nn

from folio.device import Device
from folio.evaluation.score import exact_windows, sampled_windows
from folio.tokenizers.base import TokenIds
from folio.tokens.stream import IGNORED, Batch, TokenStream
from folio.training.config import TrainingConfig
from folio.training.optimizers import OptimizerConfig
from folio.training.replicas import Replicas
from folio.training.schedule import ScheduleConfig, learning_rate_share
from folio.training.state import TrainingState
from folio.training.updates import Optimizer

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
    replicas: Replicas
    """What computes; `model` holds the weights."""
    optimizer: Optimizer
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
    with training.replicas.at_work():
        return _train(training, state, observer, should_stop)


def _train(
    training: Training, state: TrainingState, observer: Observer, should_stop: Callable[[], bool]
) -> Ending:
    config, stream = training.config, training.stream
    stream.place = state.place
    training.replicas.refresh()
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

        batch = stream.next_batch(config.batch_size, training.context_length)
        loss, norm = compute_gradients(training, batch, state.step)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            stream.place = state.place
            observer.save(state)
            return _end("non-finite", state, observer)
        learning_rate = update_weights(training, state.step, norm)

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
    validation, windows = training.validation, exact_windows(len(training.validation), length)
    sampled = sampled_windows(len(tokens), length, len(validation) - 1)
    replicas = training.replicas
    return Evaluation(
        replicas.score(validation, windows, "exact").nats_per_token,
        replicas.score(tokens, sampled, "sample").nats_per_token,
    )


def note_evaluation(state: TrainingState, evaluation: Evaluation) -> None:
    """Keep the best loss, and count the evaluations since."""
    state.evaluated_step = state.step
    state.stale_evaluations += 1
    if evaluation.validation_loss < state.best_validation_loss:
        state.best_validation_loss = evaluation.validation_loss
        state.best_step = state.step
        state.stale_evaluations = 0


def compute_gradients(training: Training, batch: Batch, step: int) -> tuple[float, float]:
    """The gradients of a batch into the training's weights.

    Returns:
        The mean loss of the batch in nats, and the norm of all gradients together.
    """
    micro_batch_size = training.config.micro_batch_size
    loss, square = training.replicas.accumulate_gradients(batch, micro_batch_size, step)
    return loss, math.sqrt(square)


def update_weights(training: Training, step: int, norm: float) -> float:
    """Take an optimizer step at the rate of this step, and return that rate.

    Args:
        training: the parts.
        step: which.
        norm: of all gradients together, above which they are clipped.
    """
    share = learning_rate_share(training.schedule, step, training.config.max_steps)
    training.optimizer.step(share, norm)
    return share * training.optimizer_config.learning_rate


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
