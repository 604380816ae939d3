from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from folio.config import merge
from folio.device import Device, DeviceConfig
from folio.evaluation.score import Window
from folio.recipe.build import build
from folio.recipe.recipe import make_recipe
from folio.tokens.stream import Batch, TokenStream
from folio.training import evaluating, loop
from folio.training.batches import next_batch
from folio.training.config import TrainingConfig, budget_steps
from folio.training.deadline import Deadline, TimeBudget
from folio.training.loop import evaluate, note_evaluation, train, update_weights
from folio.training.parallel.step import ParallelStep
from folio.training.parts import Ending, Evaluation, Observer, Training
from folio.training.state import TrainingState
from folio.training.step import Gradient, PlainStep
from folio.workers import ProcessPool, WorkerError

TWO_THREADS = DeviceConfig(kind="cpu", precision="float32", threads=2)
CPU = Device(DeviceConfig(kind="cpu", precision="float32", threads=1), "test")
TEXT = np.tile(np.arange(10, dtype=np.uint8), 40)
TINY = {
    "preset": "gpt2",
    "model": {"vocab_size": 11, "n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 8},
    "training": {
        "batch_size": 6,
        "max_steps": 30,
        "evaluation_interval": 10,
        "log_interval": 1,
    },
    "optimizer": {"learning_rate": 1e-2},
}


MakeTraining = Callable[..., Training]


@pytest.fixture(params=["on", "off"])
def training_of(request: pytest.FixtureRequest) -> MakeTraining:
    """Settings -> a training by the parallel step, then one by the plain step."""
    if request.param == "on":
        pytest.importorskip("numba")
    device = replace(CPU, config=replace(CPU.config, fast=request.param))

    def make(**changes: Any) -> Training:
        recipe = make_recipe(merge(TINY, changes))
        return build(recipe, device, TEXT[:-60], TEXT[-60:])

    return make


def flat(tensors: Iterable[Tensor | None]) -> Tensor:
    return torch.cat([x.detach().flatten() for x in tensors if x is not None])


def computing_model(training: Training) -> nn.Module:
    """The one whose forward pass a step runs, so that hooks may be put on it."""
    step = training.step
    if isinstance(step, PlainStep):
        return step.compute
    assert isinstance(step, ParallelStep)
    step.parallel.replicas[0].backward.max_bytes = 0  # a tape asks no hook
    return step.parallel.replicas[0].model


class Listener(Observer):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.evaluations: list[tuple[int, Evaluation]] = []
        self.saves: list[int] = []
        self.endings: list[Ending] = []

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        self.losses.append(loss)

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        self.evaluations.append((state.step, evaluation))

    def save(self, state: TrainingState) -> None:
        self.saves.append(state.step)

    def ended(self, state: TrainingState, ending: Ending) -> None:
        self.endings.append(ending)


def test_training_learns_what_can_be_learned(training_of: MakeTraining):
    listener, state = Listener(), TrainingState()
    training = training_of(training={"max_steps": 90, "evaluation_interval": 40})
    assert train(training, state, listener) == "finished"
    assert listener.losses[0] == pytest.approx(math.log(11), abs=0.2)
    assert listener.losses[-1] < 0.5
    assert [step for step, _ in listener.evaluations] == [40, 80, 90] == listener.saves
    assert state.step == 90 and listener.endings == ["finished"]
    assert state.best_validation_loss == min(e.validation_loss for _, e in listener.evaluations)


def test_a_batch_of_questions_alone_moves_no_weight_and_has_no_loss(training_of: MakeTraining):
    training, listener = training_of(training={"max_steps": 60}), Listener()
    assert isinstance(training.stream, TokenStream)
    training.stream.loss_mask = np.zeros(len(TEXT) - 60, np.uint8)
    training.stream.loss_mask[-40:] = 1
    moved, update = list[int](), training.step.update
    training.step.update = lambda *how: (moved.append(1), update(*how))[1]  # pyright: ignore
    counted = [next_batch(training, step).n_targets for step in range(60)]
    train(training, TrainingState(), listener)
    assert min(listener.losses) > 0
    assert len(listener.losses) == len(moved) == np.count_nonzero(counted) < 40


def test_a_stop_is_heard_while_a_text_is_read_and_the_evaluation_comes_when_the_run_goes_on(
    training_of: MakeTraining, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(evaluating, "batch_tokens_on", lambda _: 16)  # two windows at once
    training, state, reads = training_of(training={"max_steps": 3}), TrainingState(), [0]
    score = training.step.score

    def counted(*arguments: Any) -> Any:
        reads[0] += 1
        return score(*arguments)

    monkeypatch.setattr(training.step, "score", counted)
    listener = Listener()
    assert train(training, state, listener, lambda: reads[0] >= 2) == "interrupted"
    assert reads == [2] and listener.evaluations == [] and listener.saves == [3]
    assert train(training, state, listener) == "finished"
    unstopped = Listener()
    train(training_of(training={"max_steps": 3}), TrainingState(), unstopped)
    assert listener.evaluations == unstopped.evaluations and len(listener.losses) == 3


@pytest.mark.parametrize("when", ["in the evaluation", "after it"])
def test_what_an_evaluation_used_of_the_minutes_is_saved_when_the_run_is_stopped(
    when: str, monkeypatch: pytest.MonkeyPatch
):
    budget = TimeBudget(seconds=60.0, step_seconds=1.0, evaluation_seconds=1.0, end_seconds=0.0)
    now = [1.0]
    training = build(make_recipe(TINY), CPU, TEXT[:-60], TEXT[-60:])
    training = replace(training, deadline=Deadline(budget, 3, lambda: now[0]))
    state, saved = TrainingState(), list[float]()

    def evaluate_slowly(*_: object) -> Evaluation:
        now[0] += 10.0
        if when == "in the evaluation":
            raise evaluating.StoppedError
        return Evaluation(2.0, 2.0)

    class Saves(Listener):
        def save(self, state: TrainingState) -> None:
            saved.append(state.used_seconds)
            now[0] += 5.0

    monkeypatch.setattr(loop, "evaluate", evaluate_slowly)
    assert train(training, state, Saves(), lambda: now[0] > 10.0) == "interrupted"
    assert saved == {"in the evaluation": [11.0], "after it": [11.0, 16.0]}[when]


def test_a_model_whose_certainty_costs_stays_in_doubt(training_of: MakeTraining):
    doubt = []
    for penalty in (0.0, 0.5):
        training = training_of(training={"max_steps": 90, "confidence_penalty": penalty})
        train(training, TrainingState(), Listener())
        logits = training.model.eval()(torch.from_numpy(TEXT[None, :8].astype(np.int64)))
        doubt.append(torch.distributions.Categorical(logits=logits).entropy().mean().item())
    assert doubt[0] < 0.4 and doubt[1] > 0.8


def test_the_first_steps_read_as_many_tokens_in_short_windows(training_of: MakeTraining):
    short = {"short_fraction": 0.5, "short_length": 2}
    training, shapes = training_of(schedule=short, training={"max_steps": 6}), []
    backward = training.step.backward

    def noted(batch: Batch, step: int) -> Gradient:
        shapes.append(batch.inputs.shape)
        return backward(batch, step)

    training.step.backward = noted
    train(training, TrainingState(), Listener())
    assert shapes == [(24, 2)] * 3 + [(6, 8)] * 3


@pytest.mark.parametrize("stop", [2, 4])
def test_a_run_that_was_stopped_goes_on_in_windows_of_the_same_length(
    stop: int, training_of: MakeTraining
):
    def losses(stop: int | None) -> list[float]:
        training = training_of(
            schedule={"short_fraction": 0.5, "short_length": 2}, training={"max_steps": 6}
        )
        state, listener = TrainingState(), Listener()
        if stop is not None:
            assert train(training, state, listener, lambda: state.step >= stop) == "interrupted"
        assert train(training, state, listener) == "finished"
        return listener.losses

    assert losses(stop) == losses(None)


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_a_step_is_as_long_as_the_gradients_or_as_the_limit(clip: float, training_of: MakeTraining):
    settings = {"kind": "sgd", "weight_decay": 0.0, "learning_rate": 0.1, "gradient_clip": clip}
    training = training_of(optimizer=settings)
    before = flat(training.model.parameters())
    gradient = training.step.backward(training.stream.next_batch(6), 0)
    length = flat(p.grad for p in training.model.parameters()).norm().item()
    assert gradient.norm == pytest.approx(length, rel=1e-5) and gradient.norm > 0.01
    rate = update_weights(training, 20, gradient)
    moved = (flat(training.model.parameters()) - before).norm().item()
    assert moved == pytest.approx(rate * (clip or gradient.norm), rel=1e-3)


def test_running_out_of_memory_once_does_not_change_the_loss_curve(training_of: MakeTraining):
    curves = []
    for runs_out in (False, True):
        training, listener, state = training_of(), Listener(), TrainingState()

        def look(_: object, inputs: tuple[Tensor], state: TrainingState = state) -> None:
            if state.step == 12 and len(inputs[0]) == 6:
                raise torch.OutOfMemoryError("CUDA out of memory")

        if runs_out:
            computing_model(training).register_forward_pre_hook(look)
        assert train(training, state, listener) == "finished"
        assert training.step.fitting_windows == (3 if runs_out else 0)
        curves.append(listener.losses)
    assert len(curves[0]) == 30
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_gradient_never_reaches_the_weights(value: float, training_of: MakeTraining):
    training, listener, state = training_of(), Listener(), TrainingState()
    snapshot = {}

    def poison(gradient: Tensor) -> Tensor:
        if state.step == 5:
            snapshot.update({n: p.detach().clone() for n, p in training.model.named_parameters()})
            return torch.full_like(gradient, value)
        return gradient

    computing_model(training).get_parameter("lm_head.weight").register_hook(poison)
    assert train(training, state, listener) == "non-finite"
    assert state.step == 5 and listener.saves[-1] == 5
    assert all(torch.equal(p, snapshot[n]) for n, p in training.model.named_parameters())


def test_patience_counts_rises_above_the_standard_error_and_ignores_those_within_it(
    monkeypatch: pytest.MonkeyPatch, training_of: MakeTraining
):
    losses = iter((3.0, 2.0, 2.04, 2.2, 2.04, 2.3, 1.0))
    monkeypatch.setattr(loop, "evaluate", lambda *_: Evaluation(next(losses), 1.0, 0.05))
    training = training_of(training={"patience": 2, "max_steps": 500, "evaluation_interval": 5})
    listener, state = Listener(), TrainingState()
    assert train(training, state, listener) == "patience"
    assert [step for step, _ in listener.evaluations] == [5, 10, 15, 20, 25, 30]
    assert (state.best_step, state.best_validation_loss) == (10, 2.0)


def test_a_loss_that_rises_while_windows_are_short_costs_no_patience(
    monkeypatch: pytest.MonkeyPatch, training_of: MakeTraining
):
    losses = iter((2.0, *range(3, 12)))

    def evaluated(training: Training, should_stop: object, length: int) -> Evaluation:
        return Evaluation(next(losses), 1.0, 0.05, length % training.context_length)

    monkeypatch.setattr(loop, "evaluate", evaluated)
    training = training_of(
        training={"patience": 2, "max_steps": 40, "evaluation_interval": 5},
        schedule={"short_fraction": 0.5, "short_length": 2},
    )
    listener, state = Listener(), TrainingState()
    assert train(training, state, listener) == "patience"
    assert [step for step, _ in listener.evaluations] == [5, 10, 15, 20, 25, 30, 35]
    assert (state.best_step, state.best_validation_loss, state.best_short_length) == (25, 6.0, 0)


def test_where_a_worker_dies_in_an_evaluation_the_steps_before_it_are_saved(
    monkeypatch: pytest.MonkeyPatch, training_of: MakeTraining
):
    def dies(*_: object) -> Evaluation:
        raise WorkerError("it was killed")

    monkeypatch.setattr(loop, "evaluate", dies)
    listener = Listener()
    with pytest.raises(WorkerError):
        train(training_of(), TrainingState(), listener)
    assert listener.saves == [10]


def test_the_best_loss_is_only_ever_lowered():
    state = TrainingState()
    for step, loss in enumerate((3.0, 2.0, 2.5, 1.0), 1):
        state.step = step
        note_evaluation(state, Evaluation(loss, loss))
    assert (state.best_validation_loss, state.best_step, state.stale_evaluations) == (1.0, 4, 0)


def test_an_evaluation_in_whole_contexts_is_better_than_any_in_short_windows():
    state, bests = TrainingState(), list[int]()
    for length, loss in ((2, 3.0), (2, 2.0), (2, 2.5), (0, 4.0), (2, 1.0), (0, 3.5), (0, 3.7)):
        state.step += 1
        note_evaluation(state, Evaluation(loss, loss, short_length=length))
        bests.append(state.best_step)
    assert bests == [1, 2, 2, 4, 4, 6, 6]
    assert (state.best_validation_loss, state.best_short_length) == (3.5, 0)
    assert state.stale_evaluations == 1


def test_an_evaluation_reads_windows_as_short_as_those_that_were_learned_from(
    monkeypatch: pytest.MonkeyPatch, training_of: MakeTraining
):
    training = training_of(schedule={"short_fraction": 0.7, "short_length": 2})
    read, listener = list[int](), Listener()
    score = training.step.score

    def noted(tokens: Any, windows: list[Window], *rest: Any) -> Any:
        read.append(windows[0].length)
        return score(tokens, windows, *rest)

    monkeypatch.setattr(training.step, "score", noted)
    train(training, TrainingState(evaluated_step=-1), listener)
    assert [step for step, _ in listener.evaluations] == [0, 10, 20, 30]
    assert [length for length, _ in groupby(read)] == [8, 2, 8]
    assert read.count(2) == read.count(8) == len(read) / 2


def test_the_loss_in_short_windows_is_that_of_a_model_with_as_short_a_context(
    training_of: MakeTraining,
):
    training = training_of(model={"context_length": 8})
    short = evaluate(training, length=4)
    assert short.short_length == 4 and evaluate(training, length=8).short_length == 0
    expected = evaluate(replace(training, context_length=4))
    assert short.validation_loss == expected.validation_loss != evaluate(training).validation_loss


def test_an_evaluation_has_no_dropout_and_reads_as_much_of_both_texts(training_of: MakeTraining):
    training = training_of(model={"residual_dropout": 0.5})
    assert evaluate(training) == evaluate(training)


def test_a_smaller_sample_of_the_training_text_leaves_the_validation_loss_as_it_is(
    training_of: MakeTraining,
):
    usual, less = (evaluate(training_of(training={"evaluation_sample": n})) for n in (0, 16))
    assert less.validation_loss == usual.validation_loss
    assert less.training_loss != usual.training_loss
    assert less.training_loss == pytest.approx(usual.training_loss, abs=0.5)


def test_a_sample_of_the_validation_text_is_spread_over_it_and_the_rest_is_not_read(
    training_of: MakeTraining,
):
    training = training_of(training={"validation_sample": 16})
    found, whole = evaluate(training), evaluate(training_of())
    assert found.validation_nll is not None and whole.validation_nll is not None
    read = ~np.isnan(found.validation_nll)
    assert 8 < read.sum() <= 16 and read[:4].any() and read[-4:].any()
    np.testing.assert_allclose(found.validation_nll[read], whole.validation_nll[read], rtol=1e-5)
    assert found.validation_loss == pytest.approx(whole.validation_nll[read].mean(), rel=1e-5)
    assert 0 < found.standard_error < math.inf


def test_stopping_saves_first(training_of: MakeTraining):
    listener, state = Listener(), TrainingState()
    assert train(training_of(), state, listener, lambda: state.step == 7) == "interrupted"
    assert listener.saves == [7]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({"max_steps": 7}, 7),
        ({"max_tokens": 161}, 11),
        ({"max_epochs": 0.5}, 32),
        ({"max_steps": 7, "max_tokens": 161}, 7),
        ({}, 0),
    ],
)
def test_the_smallest_budget_counts(budget: dict[str, Any], expected: int):
    assert budget_steps(TrainingConfig(batch_size=2, **budget), 8, 1010) == expected


def test_the_context_may_be_shorter_than_the_window_of_the_stream(training_of: MakeTraining):
    training = replace(training_of(), context_length=4)
    assert train(training, TrainingState(), Listener()) == "finished"


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_worker_that_dies_leaves_the_weights_before_its_step_saved():
    training = build(make_recipe(TINY), replace(CPU, config=TWO_THREADS), TEXT[:-60], TEXT[-60:])
    step = training.step
    assert isinstance(step, ParallelStep)

    class Killing(Listener):
        def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
            super().stepped(state, loss, learning_rate)
            if state.step == 5:
                self.weights = flat(training.model.parameters())
                pool = step.parallel._pool
                assert isinstance(pool, ProcessPool)
                os.kill(pool.others[0][0], signal.SIGKILL)

    listener, state = Killing(), TrainingState()
    with pytest.raises(WorkerError, match="folio resume"):
        train(training, state, listener)
    assert listener.saves == [5] and state.step == 5
    assert torch.equal(flat(training.model.parameters()), listener.weights)
