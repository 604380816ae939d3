"""`PlainStep`: what everybody knows, and what the parallel step must compute too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from folio import jit
from folio.config import merge
from folio.device import Device, DeviceConfig
from folio.fast.accelerate import FAST
from folio.recipe.build import build
from folio.recipe.presets import FAMILIES, SIZES
from folio.recipe.recipe import make_recipe
from folio.testing import tiny_gpt
from folio.tokens.ignored import IGNORED
from folio.tokens.stream import Batch
from folio.training import step as step_module
from folio.training.config import OptimizerConfig, TrainingConfig
from folio.training.loop import train, update_weights
from folio.training.low_rank import load_model_tensors, merged
from folio.training.parallel.step import ParallelStep
from folio.training.parts import Training
from folio.training.state import TrainingState
from folio.training.step import PlainStep, Step

Precision = Literal["float32", "bfloat16", "float16"]
TEXT = np.random.default_rng(0).integers(0, 11, 600).astype(np.uint8)
TINY = {
    "preset": "gpt2",
    "model": {"vocab_size": 11, "n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 8},
    "training": {"batch_size": 4, "max_steps": 8, "evaluation_interval": 3, "log_interval": 1},
}


def cpu(fast: Literal["on", "off"] = "off", precision: Precision = "float32") -> Device:
    config = DeviceConfig(kind="cpu", precision=precision, threads=1, fast=fast)
    return Device(config, "test")


def plain(model: nn.Module, precision: Precision = "float32", **settings: Any) -> PlainStep:
    device = cpu(precision=precision)
    return PlainStep(model, device, TrainingConfig(**settings), OptimizerConfig(kind="sgd"))


def batch_of(n_windows: int) -> Batch:
    rows = np.random.default_rng(1).integers(0, 11, (n_windows, 9))
    targets = rows[:, 1:].copy()
    targets[-1, 3:] = IGNORED  # a short window weighs by its targets
    return Batch(rows[:, :-1], targets)


def gradients_of(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def training_of(device: Device, **changes: Any) -> Training:
    return build(make_recipe(merge(TINY, changes)), device, TEXT[:-60], TEXT[-60:])


def weights_of(training: Training) -> Tensor:
    return torch.cat([p.detach().flatten() for p in training.model.parameters()])


class Nobody:
    """An observer that keeps the losses and what a checkpoint would hold."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.evaluations: list[float] = []

    def stepped(self, state: Any, loss: float, learning_rate: float) -> None:
        self.losses.append(loss)

    def evaluated(self, state: Any, evaluation: Any) -> None:
        self.evaluations.append(evaluation.validation_loss)

    def paced(self, plan: Any) -> None: ...

    def save(self, state: Any) -> None: ...

    def ended(self, state: Any, ending: Any) -> None: ...


@pytest.mark.parametrize("micro_batch_size", [0, 1, 3, 7])
def test_the_gradient_is_that_of_the_mean_over_all_targets(micro_batch_size: int):
    model, batch = tiny_gpt(initialization_std=0.2), batch_of(7)
    inputs, targets = (torch.from_numpy(x) for x in batch)
    expected = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    expected_gradient = torch.autograd.grad(expected, list(model.parameters()))
    step = plain(model, micro_batch_size=micro_batch_size)
    for _ in range(2):  # the second begins from nothing
        found = step.backward(batch, 0)
    theirs = torch.cat([x.flatten() for x in expected_gradient])
    torch.testing.assert_close(gradients_of(model), theirs, rtol=1e-4, atol=1e-6)
    assert found.loss == pytest.approx(expected.item(), rel=1e-5)
    assert found.norm == pytest.approx(theirs.norm().item(), rel=1e-5)


def test_a_batch_without_targets_teaches_nothing():
    model = tiny_gpt()
    inputs, targets = batch_of(2)
    assert plain(model).backward(Batch(inputs, 0 * targets + IGNORED), 0) == (0, 0)
    assert not gradients_of(model).any()


def test_bfloat16_computes_with_rounded_weights_and_moves_those_in_float32():
    gradients = {}
    for precision in ("float32", "bfloat16"):
        model = tiny_gpt(initialization_std=0.2)
        step = plain(model, precision)
        step.backward(batch_of(6), 0)
        gradients[precision] = gradients_of(model)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    error = (gradients["bfloat16"] - gradients["float32"]).norm() / gradients["float32"].norm()
    assert 1e-5 < error < 0.03
    step.update(1.0, 1.0)
    for own, master in zip(step.compute.parameters(), model.parameters()):
        assert torch.equal(own, master.bfloat16()) and not torch.equal(own.float(), master)


def test_float16_loses_no_gradient_that_is_too_small_or_too_large(
    monkeypatch: pytest.MonkeyPatch,
):
    def gradient(precision: Precision, scale: float) -> Tensor:
        monkeypatch.setattr(step_module, "FLOAT16_SCALE", scale)
        model = tiny_gpt(initialization_std=0.2)
        step = plain(model, precision)
        usual = step.loss
        step.loss = lambda *given: usual(*given) * 1e-5
        step.backward(batch_of(6), 0)
        return gradients_of(model)

    usual_scale = step_module.FLOAT16_SCALE
    expected = gradient("float32", 1.0)

    def error(scale: float) -> float:
        return ((gradient("float16", scale) - expected).norm() / expected.norm()).item()

    assert error(usual_scale) < 0.005
    assert error(2.0**60) < 0.005  # which overflows, and is halved
    assert error(1.0) > 0.05  # which is what the scale is for


def test_no_layer_is_replaced():
    step = training_of(cpu(precision="bfloat16")).step
    assert isinstance(step, PlainStep)
    assert not {type(layer) for layer in step.compute.modules()} & set(FAST.values())


@pytest.fixture(params=["adamw", "sgd", "muon"])
def both_steps(request: pytest.FixtureRequest) -> list[Training]:
    if not jit.available():
        pytest.skip("the parallel step needs kernels")
    changes = {"optimizer": {"kind": request.param, "learning_rate": 0.01, "momentum": 0.5}}
    return [training_of(cpu(fast), **changes) for fast in ("off", "on")]


def test_the_parallel_step_follows_the_plain_one(both_steps: list[Training]):
    assert [type(training.step) for training in both_steps] == [PlainStep, ParallelStep]
    losses = []
    for training in both_steps:
        observer = Nobody()
        assert train(training, TrainingState(), observer) == "finished"
        losses.append((*observer.losses, *observer.evaluations))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch.testing.assert_close(*map(weights_of, both_steps), rtol=1e-2, atol=1e-4)


def test_a_run_goes_on_with_the_other_step(both_steps: list[Training]):
    for first, then in (both_steps, both_steps[::-1]):
        state = TrainingState()
        train(first, state, Nobody(), lambda state=state: state.step == 3)
        load_model_tensors(then.model, merged(first.model))
        then.step.optimizer.load({n: x.clone() for n, x in first.step.optimizer.tensors.items()})
        then.step.refresh()
        batch = batch_of(4)
        found = [both(training, batch) for training in (first, then)]
        assert found[0] == pytest.approx(found[1], rel=1e-4)


def both(training: Training, batch: Batch) -> tuple[float, float]:
    """The loss before an update, and after it."""
    gradient = training.step.backward(batch, 5)
    update_weights(training, 5, gradient)
    return gradient.loss, training.step.backward(batch, 6).loss


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon"])
def test_a_plain_run_that_was_stopped_goes_on_to_the_same_bytes(kind: str, precision: Precision):
    changes: dict[str, Any] = {
        "optimizer": {"kind": kind, "momentum": 0.9},
        "model": {"residual_dropout": 0.3},
    }
    whole = training_of(cpu(precision=precision), **changes)
    train(whole, TrainingState(), Nobody())

    first, state = training_of(cpu(precision=precision), **changes), TrainingState()
    assert train(first, state, Nobody(), lambda: state.step == 5) == "interrupted"
    record = state.record(torch.device("cpu"))
    saved = {n: x.clone() for n, x in first.step.optimizer.tensors.items()}
    then = training_of(cpu(precision=precision), **changes)
    load_model_tensors(then.model, merged(first.model))
    then.step.optimizer.load(saved)
    restored = TrainingState.restore(record, torch.device("cpu"))
    assert train(then, restored, Nobody()) == "finished"
    assert torch.equal(weights_of(then), weights_of(whole))


@pytest.mark.parametrize("size", ["nano", "micro"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_preset_trains_without_the_fast_floor(family: str, size: str):
    assert size in SIZES
    recipe = make_recipe(
        {
            "preset": family,
            "size": size,
            "model": {"vocab_size": 11, "n_layers": 1, "context_length": 16},
            "training": {"max_steps": 2, "evaluation_interval": 2, "log_interval": 1},
            "device": {"fast": "off"},
        }
    )
    training = build(
        recipe,
        replace(cpu(), config=replace(recipe.device, kind="cpu", precision="float32", threads=1)),
        TEXT[:-60],
        TEXT[-60:],
    )
    observer = Nobody()
    assert train(training, TrainingState(), observer) == "finished"
    assert len(observer.losses) == 2 and np.isfinite(observer.losses).all()


def test_every_member_of_the_protocol_is_there_for_both():
    names = {name for name in vars(Step) if not name.startswith("_")} | set(Step.__annotations__)
    for kind in (PlainStep, ParallelStep):
        step = training_of(cpu("on" if kind is ParallelStep else "off")).step
        assert not [name for name in names if not hasattr(step, name)]
