"""Who edits the plain step, or freezes a parameter, trains what they wrote."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from folio import accelerator
from folio.device import Device, DeviceConfig
from folio.errors import UserError
from folio.fast.written_for import DIGESTS
from folio.model.gpt import GPT
from folio.recipe import build
from folio.recipe.check import check
from folio.recipe.recipe import make_recipe
from folio.training import step as step_module
from folio.training.step import PlainStep
from tests.training.test_step import TINY, batch_of, training_of, weights_of

pytest.importorskip("numba")


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have "cuda" be the processor."""
    monkeypatch.setattr(accelerator, "own_device", lambda kind: torch.device("cpu"))


def device_of(kind: Any, fast: Any = "on", precision: Any = "float32") -> Device:
    return Device(DeviceConfig(kind=kind, precision=precision, threads=1, fast=fast), "test")


def said_of(training: Any) -> list[str]:
    said: list[str] = []
    check(training, make_recipe(TINY), said.append)
    return said


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("name", ["step", "gradients", "objective"])
def test_an_edited_file_of_the_step_is_what_trains_and_is_told_of(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
):
    assert type(training_of(device_of(kind)).step) is not PlainStep
    monkeypatch.setitem(DIGESTS, f"folio.training.{name}", "another")
    training = training_of(device_of(kind))
    assert type(training.step) is PlainStep
    (line,) = said_of(training)
    assert line.startswith(f"folio/training/{name}.py was changed, so the plain step trains, in")
    assert not said_of(training_of(device_of(kind, fast="off")))


def test_a_function_in_the_place_of_the_steps_own_is_what_trains(monkeypatch: pytest.MonkeyPatch):
    def stop(parameters: list[nn.Parameter], norm: float, max_norm: float) -> None:
        for p in parameters:
            p.grad = torch.zeros_like(p)

    monkeypatch.setattr(step_module, "clip_gradients", stop)
    training = training_of(device_of("cpu"), optimizer={"kind": "sgd", "weight_decay": 0.0})
    before = weights_of(training)
    training.step.update(1.0, training.step.backward(batch_of(4), 0).norm)
    assert torch.equal(weights_of(training), before)


def test_a_model_that_several_processes_divide_does_not_train_past_an_edited_step(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(DIGESTS, "folio.training.step", "another")
    recipe = make_recipe({**TINY, "training": {"sharding": "full"}})
    with pytest.raises(UserError, match=r"fsdp_step.py, but folio/training/step.py was changed"):
        build.make_step(nn.Linear(1, 1), device_of("cpu", "off"), recipe, cast(Any, object()))


def test_a_frozen_parameter_stays_as_it_is_and_is_told_of(monkeypatch: pytest.MonkeyPatch):
    def partly_frozen(*given: Any) -> GPT:
        model = GPT(*given)
        model.final_norm.requires_grad_(False)
        return model

    monkeypatch.setattr(build, "GPT", partly_frozen)
    training = training_of(device_of("cpu"))
    before = weights_of(training)
    training.step.update(1.0, training.step.backward(batch_of(4), 0).norm)
    assert (training.model.get_parameter("final_norm.weight") == 1).all()
    assert not torch.equal(weights_of(training), before)
    (line,) = said_of(training)
    assert line.startswith("final_norm.weight is frozen, so the plain step trains, in float32")


@pytest.mark.parametrize(
    "device",
    [
        device_of("cpu", "off"),
        device_of("cpu", "off", "bfloat16"),
        device_of("cpu"),
        device_of("cuda"),
    ],
    ids=["plain", "rounded", "parallel", "accelerated"],
)
def test_a_parameter_that_takes_no_part_in_the_loss_is_named(
    device: Device, monkeypatch: pytest.MonkeyPatch
):
    def with_a_spare(*given: Any) -> GPT:
        model = GPT(*given)
        model.blocks[0].register_parameter("spare", nn.Parameter(torch.zeros(3)))
        return model

    monkeypatch.setattr(build, "GPT", with_a_spare)
    step = training_of(device).step
    with pytest.raises(UserError, match=r"take part in the loss, but blocks\.0\.spare did not"):
        step.backward(batch_of(4), 0)
