"""The training loop. It tells an Observer what happens; it prints, draws and saves nothing.

What a step computes and how, `step.py` says; the loop says when.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from folio.run.diagnosis import stale_evaluations
from folio.training.batches import evaluated_length, next_batch, peek
from folio.training.evaluating import StoppedError, evaluate, is_evaluation_due
from folio.training.parts import Ending, Evaluation, Observer, Training
from folio.training.schedule import lr_scale_at
from folio.training.state import RunClock, TrainingState
from folio.training.step import Gradient
from folio.workers import WorkerError


def train(
    training: Training,
    state: TrainingState,
    observer: Observer,
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[], bool] = lambda: False,
) -> Ending:
    """Train from `state` to the end of the budget; model and `state` are updated in place.

    Args:
        training: the parts of the run.
        state: where to begin.
        observer: receives the events.
        should_stop: called after each step, and during evaluations; True ends the run as
            `interrupted`.
        should_save: called after each step; True makes a checkpoint.

    Returns:
        Why it ended. After `non-finite` the weights are those before the bad step.

    Raises:
        WorkerError: a worker died or hung.
        UserError: at an evaluation, something else was trained than the model.
    """
    with training.step.running():
        ending = _train(training, state, observer, should_stop, should_save)
        observer.ended(state, ending)
    return ending


def _train(
    training: Training,
    state: TrainingState,
    observer: Observer,
    should_stop: Callable[[], bool],
    should_save: Callable[[], bool],
) -> Ending:
    config, pace, deadline = training.config, training.pace, training.deadline
    training.stream.place = state.place
    training.step.refresh()  # the weights may be those of a checkpoint
    clock = RunClock(state, deadline)

    def save() -> None:
        clock.read()
        observer.save(state)

    while True:
        if deadline is not None and (plan := deadline.decide(state.step, pace)):
            observer.paced(plan)
            pace.append(plan)

        if is_evaluation_due(training, state.step) and state.step > state.evaluated_step:
            try:
                evaluation = _measure(training, state, should_stop)
            except (StoppedError, WorkerError) as error:  # it comes when the run goes on
                save()
                if isinstance(error, WorkerError):
                    raise
                return "interrupted"
            clock.read()
            observer.evaluated(state, evaluation)
            save()
            if deadline is not None:
                deadline.evaluated(evaluation.short_length > 0)
        # Also where a run was killed after it had lost its patience.
        if config.patience and state.stale_evaluations >= config.patience:
            return "patience"
        if state.step >= pace.last:
            return "finished"
        if should_stop():
            save()
            return "interrupted"

        batch = next_batch(training, state.step)
        try:
            gradient = training.step.backward(batch, state.step)
        except WorkerError:  # the weights are those before the step
            save()
            raise
        try:
            learning_rate = update_weights(training, state.step, gradient)
        except FloatingPointError:  # the weights are those before the step
            training.stream.place = state.place
            save()
            return "non-finite"

        state.step += 1
        state.tokens += batch.n_targets
        state.place = training.stream.place
        state.gradient_norm, state.loss_scale = gradient.norm, training.step.loss_scale
        clock.read()
        if deadline is not None:
            deadline.stepped()
        if batch.n_targets:  # all of it may be questions
            observer.stepped(state, gradient.loss, learning_rate)
        if should_save() or (config.save_interval and state.step % config.save_interval == 0):
            save()


def _measure(
    training: Training, state: TrainingState, should_stop: Callable[[], bool]
) -> Evaluation:
    """Evaluate, and note it; errors as of `evaluate`."""
    training.step.verify(peek(training, state.step))
    evaluation = evaluate(training, should_stop, evaluated_length(training, state.step))
    note_evaluation(state, evaluation)
    return evaluation


def note_evaluation(state: TrainingState, evaluation: Evaluation) -> None:
    """Keep the best loss, and count the evaluations that are worse than it.

    An evaluation in windows of the context length is better than any in short ones. Those have no
    part in the count, since the model has not learned yet what comes later in a window.
    """
    state.evaluated_step = state.step
    loss, short_length = evaluation.validation_loss, evaluation.short_length
    best = state.best_validation_loss
    if state.best_short_length and not short_length:
        best = math.inf
    elif short_length and not state.best_short_length and math.isfinite(best):
        best = -math.inf
    stale, error = state.stale_evaluations, evaluation.standard_error
    state.stale_evaluations = 0 if short_length else stale_evaluations(stale, loss, best, error)
    if loss < best:
        state.best_validation_loss, state.best_step = loss, state.step
        state.best_short_length = short_length


def update_weights(training: Training, step: int, gradient: Gradient) -> float:
    """Move the weights at the learning rate of this step, and return that rate.

    Raises:
        FloatingPointError: loss, gradient or weights would not be finite; the weights are those
            before the step.
    """
    if not all(map(math.isfinite, gradient)):
        raise FloatingPointError("the loss or a gradient is not finite")
    pace = training.pace
    lr_scale = lr_scale_at(training.schedule, pace.progress(step + 1) - 1, pace.planned)
    if gradient.norm:  # else no target counted, and old momentum is no reason to move
        training.step.update(lr_scale, gradient.norm)
    return lr_scale * training.optimizer_config.learning_rate
