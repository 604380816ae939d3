"""Several processes that train together: one curve, whatever their number."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed

from folio.config import merge
from folio.device import Device
from folio.errors import UserError
from folio.recipe.build import build
from folio.recipe.recipe import make_recipe
from folio.tokens.ignored import IGNORED
from folio.tokens.stream import Batch, StreamConfig, TokenStream
from folio.training.distributed import DistributedStep, Processes
from folio.training.loop import train
from folio.training.parts import Training
from folio.training.state import TrainingState
from folio.training.step import Gradient
from folio.workers import ProcessPool, WorkerError, forks
from tests.training.test_loop import Listener

pytestmark = pytest.mark.skipif(not forks(), reason="processes are forked here")
TEXT = np.random.default_rng(0).integers(0, 11, 700).astype(np.uint8)
TINY = {
    "model": {"vocab_size": 11, "n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 8},
    "training": {"batch_size": 6, "max_steps": 6, "evaluation_interval": 3, "log_interval": 1},
    "optimizer": {"learning_rate": 1e-2, "momentum": 0.9},
}
KINDS: dict[str, dict[str, Any]] = {
    "adamw plain": {"preset": "gpt2", "device": {"fast": "off"}},
    "sgd bfloat16": {
        "preset": "gpt2",
        "device": {"fast": "off", "precision": "bfloat16"},
        "optimizer": {"kind": "sgd"},
    },
    "muon fast": {"preset": "modern"},
}


def training_of(group: Processes | None = None, /, **changes: Any) -> Training:
    fixed = {"device": {"kind": "cpu", "precision": "float32", "threads": 1, "fast": "on"}}
    recipe = make_recipe(merge(TINY, fixed, changes))
    device = Device(recipe.device, "test")
    return build(recipe, device, TEXT[:-80], TEXT[-80:], group=group)


def together(
    n: int, folder: Path, work: Callable[[Processes], Any], timeout_seconds: float = 120
) -> list[Any]:
    """The answers of n processes, of which this is the first."""

    def phase(rank: int, message: Any) -> Any:
        store = distributed.FileStore(str(folder / "store"), n)  # pyright: ignore[reportPrivateImportUsage]
        wait = timedelta(seconds=timeout_seconds)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=n, timeout=wait)
        try:
            return work(Processes(rank, n, store))
        finally:
            if distributed.is_initialized():  # a whole run has left it
                distributed.destroy_process_group()

    pool = ProcessPool(n, [[phase]], lambda: None)
    try:
        return pool.run(0, [None] * n)
    finally:
        pool.close()


def distribute(
    training: Training, group: Processes, *asked: Callable[[], bool]
) -> tuple[Training, DistributedStep]:
    step = DistributedStep(training.step, training.model, group, 3, 11, *asked)
    return replace(training, step=step), step


def outcome(training: Training, listener: Listener) -> tuple[Any, ...]:
    weights = torch.cat([p.detach().flatten() for p in training.model.parameters()])
    evaluations = [(e.validation_loss, e.standard_error) for _, e in listener.evaluations]
    return weights.numpy().tobytes(), listener.losses, evaluations


@pytest.mark.parametrize(("kind", "n"), [("adamw plain", 2), ("sgd bfloat16", 4), ("muon fast", 3)])
def test_any_number_of_processes_gives_one_curve(kind: str, n: int, tmp_path: Path):
    alone, listener = training_of(**KINDS[kind]), Listener()
    train(alone, TrainingState(), listener)
    _, losses, evaluations = outcome(alone, listener)

    def work(group: Processes) -> Any:
        training, own = training_of(**KINDS[kind]), Listener()
        training, step = distribute(training, group)
        assert train(training, TrainingState(), own, lambda: step.stopping) == "finished"
        return outcome(training, own)

    first, *others = together(n, tmp_path, work)
    assert all(other == first for other in others)
    rel = 2e-3 if "bfloat16" in kind else 1e-4
    assert first[1] == pytest.approx(losses, rel=rel)
    assert np.ravel(first[2]) == pytest.approx(np.ravel(evaluations), rel=rel)


class Reading:
    """A step that keeps what it is given; its loss is the mean of the targets."""

    def __init__(self) -> None:
        self.read: list[Any] = []

    def backward(self, batch: Batch, step: int) -> Gradient:
        self.read.append(batch.inputs)
        return Gradient(float(batch.targets[batch.targets != IGNORED].mean()), 0.0)


@settings(max_examples=15)
@given(st.sampled_from(["shuffled", "sequential"]), st.integers(1, 7), st.integers(1, 9))
def test_the_rows_of_all_processes_are_together_those_of_one(
    order: Any, world_size: int, batch_size: int
):
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.grad = torch.zeros(1, 1)
    steps = [cast(Any, Reading()) for _ in range(world_size)]
    groups = [
        SimpleNamespace(rank=rank, world_size=world_size, all_reduce=lambda row: None)
        for rank in range(world_size)
    ]
    all_of_them = [
        DistributedStep(step, model, cast(Any, group), 3, 11) for step, group in zip(steps, groups)
    ]
    text = np.arange(43, dtype=np.uint8)  # 11 windows, the last one shorter, so of many epochs
    stream = TokenStream(text, 4, 5, StreamConfig(order=order), lanes=min(batch_size, 3))
    for number in range(9):
        batch = stream.next_batch(batch_size, 4)
        losses = [step.backward(batch, number).loss for step in all_of_them]
        mean = batch.targets[batch.targets != IGNORED].mean()
        assert sum(losses) == pytest.approx(mean, rel=1e-5)
        rows = np.concatenate([step.read.pop() for step in steps if step.read])
        assert np.array_equal(rows, batch.inputs)


def test_a_process_without_windows_moves_its_weights_as_the_others_do(tmp_path: Path):
    changes = KINDS["adamw plain"] | {"training": {"batch_size": 2}}

    def work(group: Processes) -> Any:
        training, own = training_of(**changes), Listener()
        training, _ = distribute(training, group)
        train(training, TrainingState(), own)
        return outcome(training, own)

    first, *others = together(3, tmp_path, work)
    assert all(other == first for other in others)
    listener = Listener()
    train(training_of(**changes), TrainingState(), listener)
    assert first[1] == pytest.approx(listener.losses, rel=1e-4)


def test_all_stop_after_the_same_step_where_one_is_asked_to(tmp_path: Path):
    def work(group: Processes) -> Any:
        training, state = training_of(**KINDS["adamw plain"]), TrainingState()
        training, step = distribute(training, group, lambda: group.rank == 1 and state.step == 3)
        listener = Listener()
        ending = train(training, state, listener, lambda: step.stopping)
        return ending, state.step, listener.saves

    assert together(2, tmp_path, work) == [("interrupted", 4, [3, 4])] * 2


def test_all_save_after_the_same_step_where_the_clock_of_one_says_so(tmp_path: Path):
    def work(group: Processes) -> Any:
        training, state = training_of(**KINDS["adamw plain"]), TrainingState()
        is_due = [lambda: False, lambda: group.rank == 1 and state.step == 3]
        training, step = distribute(training, group, *is_due)
        listener = Listener()
        train(training, state, listener, should_save=lambda: step.saving)
        return listener.saves

    assert together(2, tmp_path, work) == [[3, 4, 6]] * 2


def test_all_end_at_the_step_where_one_has_no_finite_gradient(tmp_path: Path):
    def work(group: Processes) -> Any:
        training, state = training_of(**KINDS["adamw plain"]), TrainingState()
        training, step = distribute(training, group)
        usual = step.loss
        if group.rank == 1:
            step.loss = lambda *args: usual(*args) * (float("nan") if state.step == 2 else 1.0)
        return train(training, state, Listener()), state.step, outcome(training, Listener())[0]

    first, second = together(2, tmp_path, work)
    assert first == second and first[:2] == ("non-finite", 2)


def test_memory_that_runs_out_in_one_process_changes_nothing_for_the_others(tmp_path: Path):
    def work(group: Processes) -> Any:
        training, listener = training_of(**KINDS["adamw plain"]), Listener()
        training, step = distribute(training, group)
        usual = step.loss

        def full(model: Any, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            if group.rank == 1 and len(inputs) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return usual(model, inputs, targets)

        step.loss = full
        train(training, TrainingState(), listener)
        return step.fitting_windows, listener.losses

    alone = Listener()
    train(training_of(**KINDS["adamw plain"]), TrainingState(), alone)
    (first, losses), (second, _) = together(2, tmp_path, work)
    assert (first, second) == (0, 1)
    assert losses == pytest.approx(alone.losses, rel=1e-4)


def test_processes_that_have_come_apart_are_told_so(tmp_path: Path):
    def work(group: Processes) -> str:
        training, _ = distribute(training_of(**KINDS["adamw plain"]), group)
        with torch.no_grad():
            next(training.model.parameters())[0, 0] += 1e-6 * group.rank
        with pytest.raises(UserError, match="come to different weights"):
            train(training, TrainingState(), Listener())
        return "told"

    assert together(2, tmp_path, work) == ["told", "told"]


def test_a_process_that_dies_is_named_and_the_weights_are_saved(tmp_path: Path):
    def work(group: Processes) -> Any:
        training, state = training_of(**KINDS["adamw plain"]), TrainingState()
        training, step = distribute(training, group)
        usual = step.loss

        def dies(*args: Any) -> torch.Tensor:
            if group.rank == 1 and state.step == 2:
                os._exit(9)
            return usual(*args)

        step.loss = dies
        listener = Listener()
        with pytest.raises(WorkerError, match=r"Process 1 of the 2 .* torchrun"):
            train(training, state, listener)
        return listener.saves

    with pytest.raises(WorkerError, match="ended with status 9"):  # of the pool, for its part
        together(2, tmp_path, lambda group: saves.extend(work(group)))
    assert saves == [2]


@pytest.mark.torture
def test_a_process_that_hangs_is_named_and_the_weights_are_saved(tmp_path: Path):
    hung = tmp_path / "hung"

    def work(group: Processes) -> Any:
        training, state = training_of(**KINDS["adamw plain"]), TrainingState()
        training, step = distribute(training, group)
        usual = step.loss

        def hangs(*args: Any) -> torch.Tensor:
            if group.rank == 1 and state.step == 2:
                hung.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGSTOP)
            return usual(*args)

        step.loss = hangs
        listener = Listener()
        with pytest.raises(WorkerError, match=r"Process 1 of the 2 .* died or hung"):
            train(training, state, listener)
        assert listener.saves == [2]
        os.kill(int(hung.read_text()), signal.SIGKILL)

    with pytest.raises(WorkerError, match="ended with status 9"):  # of the pool, for its part
        together(2, tmp_path, work, timeout_seconds=10)


saves: list[int] = []
