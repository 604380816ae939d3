"""The training loop. It tells an Observer what happens; it prints, draws and saves nothing.

What a step computes and how, `step.py` says; the loop says when.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from folio.device import Device
from folio.evaluation.score import exact_windows, sampled_windows
from folio.evaluation.uncertainty import ratio_error
from folio.run.diagnosis import stale_evaluations
from folio.tokenizers.base import TokenIds
from folio.tokens.mixture import Mixture
from folio.tokens.stream import Batch, TokenStream
from folio.training.config import OptimizerConfig, TrainingConfig
from folio.training.deadline import Deadline
from folio.training.pace import Knot, Pace
from folio.training.schedule import ScheduleConfig, learning_rate_share
from folio.training.state import TrainingState
from folio.training.step import Gradient, Step
from folio.workers import WorkerError

Ending = Literal["finished", "patience", "interrupted", "non-finite"]


@dataclass(frozen=True)
class Evaluation:
    """Losses at one step, both without dropout, in nats per token."""

    validation_loss: float
    """Exact: the whole validation text."""
    training_loss: float
    """On windows spread over the training text, always the same: as many tokens, or
    `training.evaluation_sample`."""
    standard_error: float = 0.0
    """Of the validation loss, over its texts."""
    validation_nll: NDArray[np.float32] | None = field(default=None, compare=False)
    """(N - 1,) float32 nats of each validation target, in order."""


class Observer(Protocol):
    """Learns what happens, in order."""

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        """After each optimizer step; `loss` is that of its batch, before the step."""

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        """After each evaluation; `state` knows already whether it was the best."""

    def paced(self, knot: Knot) -> None:
        """The steps to go were planned anew; to be on the disk before this returns."""

    def save(self, state: TrainingState) -> None:
        """A moment from which a run can be resumed."""

    def ended(self, state: TrainingState, ending: Ending) -> None:
        """Nothing follows."""


@dataclass(frozen=True)
class Training:
    """The parts of a run, put together."""

    model: nn.Module
    """Holds the weights, in float32."""
    step: Step
    """Moves them."""
    stream: TokenStream | Mixture
    validation: TokenIds
    context_length: int
    device: Device
    config: TrainingConfig
    """With max_steps and the intervals above 0."""
    optimizer_config: OptimizerConfig
    schedule: ScheduleConfig
    pace: Pace
    """Says after how many steps the run ends; longer once the clock has decided anew."""
    deadline: Deadline | None = None
    """Decides so in a run with a budget in minutes."""
    validation_cluster: NDArray[np.integer] | None = None
    """(N,) to which cluster of texts each validation token belongs, counted from 0; None takes
    each token for a text of its own."""


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

    Raises:
        WorkerError: a worker died or hung.
        UserError: at an evaluation, something else was trained than the model.
    """
    with training.step.running():
        return _train(training, state, observer, should_stop)


def _train(
    training: Training, state: TrainingState, observer: Observer, should_stop: Callable[[], bool]
) -> Ending:
    config, stream, pace = training.config, training.stream, training.pace
    deadline = training.deadline
    stream.place = state.place
    training.step.refresh()  # the weights may be those of a checkpoint
    clock = _Clock(state)

    while True:
        if deadline is not None and (knot := deadline.decide(state.step, pace)):
            observer.paced(knot)
            pace.append(knot)

        if is_evaluation_due(training, state.step) and state.step > state.evaluated_step:
            training.step.verify(peek(training))
            evaluation = evaluate(training)
            note_evaluation(state, evaluation)
            clock.read()
            observer.evaluated(state, evaluation)
            observer.save(state)
            if deadline is not None:
                deadline.evaluated()
            if config.patience and state.stale_evaluations >= config.patience:
                return _end("patience", state, observer)
        if state.step >= pace.last:
            return _end("finished", state, observer)
        if should_stop():
            observer.save(state)
            return _end("interrupted", state, observer)

        batch = stream.next_batch(config.batch_size, training.context_length)
        try:
            gradient = compute_gradient(training, batch, state.step)
        except WorkerError:  # the weights are those before the step
            observer.save(state)
            raise
        try:
            require_finite(gradient)
            learning_rate = update_weights(training, state.step, gradient)
        except FloatingPointError:  # the weights are those before the step
            stream.place = state.place
            observer.save(state)
            return _end("non-finite", state, observer)

        state.step += 1
        state.tokens += batch.n_targets
        state.place = stream.place
        clock.read()
        if deadline is not None:
            deadline.stepped()
            state.used_seconds = deadline.used()
        observer.stepped(state, gradient.loss, learning_rate)
        if config.save_interval and state.step % config.save_interval == 0:
            observer.save(state)


def is_evaluation_due(training: Training, step: int) -> bool:
    """Whether the losses are measured after so many steps: at intervals, or at shares of a pace
    whose steps nobody knows beforehand; at the end in any case, and before the first step, where
    the weights have learned already."""
    config, pace = training.config, training.pace
    if step in (0, pace.last):
        return True
    if config.evaluation_interval:
        return step % config.evaluation_interval == 0
    done = [pace.evaluations_done(s, config.evaluations) for s in (max(step - 1, 0), step)]
    return done[0] < done[1]


def evaluate(training: Training) -> Evaluation:
    """Exact loss of the validation text, and loss of a sample of the training text."""
    length, tokens = training.context_length, training.stream.tokens
    validation, windows = training.validation, exact_windows(len(training.validation), length)
    n_sampled = training.config.evaluation_sample or len(validation) - 1
    sampled = sampled_windows(len(tokens), length, n_sampled)
    step = training.step
    nll: list[NDArray[np.float32]] = []
    exact = step.score(validation, windows, "exact", nll)
    validation_nll = np.concatenate(nll)
    error = exact.standard_error
    if training.validation_cluster is not None:
        cluster = training.validation_cluster[1:]
        error = ratio_error(np.bincount(cluster, validation_nll), np.bincount(cluster))
    sample = step.score(tokens, sampled, "sample")
    return Evaluation(exact.nats_per_token, sample.nats_per_token, error, validation_nll)


def note_evaluation(state: TrainingState, evaluation: Evaluation) -> None:
    """Keep the best loss, and count the evaluations since."""
    state.evaluated_step = state.step
    loss, best = evaluation.validation_loss, state.best_validation_loss
    state.stale_evaluations = stale_evaluations(
        state.stale_evaluations, loss, best, evaluation.standard_error
    )
    if loss < best:
        state.best_validation_loss, state.best_step = loss, state.step


def peek(training: Training) -> Batch:
    """Read the next batch, and leave the stream where it is."""
    stream, place = training.stream, training.stream.place
    batch = stream.next_batch(training.config.batch_size, training.context_length)
    stream.place = place
    return batch


def compute_gradient(training: Training, batch: Batch, step: int) -> Gradient:
    """Compute the gradient of a batch."""
    return training.step.backward(batch, step)


def require_finite(gradient: Gradient) -> None:
    """Raise FloatingPointError where the loss or the gradient is infinite or no number."""
    if not all(map(math.isfinite, gradient)):
        raise FloatingPointError("the loss or a gradient is not finite")


def update_weights(training: Training, step: int, gradient: Gradient) -> float:
    """Move the weights at the learning rate of this step, and return that rate.

    Raises:
        FloatingPointError: weights would not be finite; they are those before the step.
    """
    pace = training.pace
    progress = pace.progress(step + 1) - 1
    lr_scale = learning_rate_share(training.schedule, progress, pace.planned)
    training.step.update(lr_scale, gradient.norm)
    return lr_scale * training.optimizer_config.learning_rate


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
