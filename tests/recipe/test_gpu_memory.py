"""What a training takes of a GPU's memory, and how it is made to fit."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing._internal.distributed.fake_pg import FakeStore

from folio import accelerator
from folio.device import Device, DeviceConfig
from folio.errors import UserError
from folio.recipe.build import build
from folio.recipe.gpu_memory import SPARE, gpu_bytes, kept_bytes, passing_bytes, token_bytes
from folio.recipe.memory import fit_memory, memory_limit, windows_that_fit
from folio.recipe.parameter_memory import gathered_bytes, parameter_bytes
from folio.recipe.recipe import Recipe, make_recipe
from folio.training.accelerated.step import AcceleratedStep
from folio.training.config import SHARDINGS
from folio.training.distributed import Processes
from folio.training.optimizers import Optimizer

SMALL = {"n_layers": 12, "n_heads": 12, "d_model": 768, "context_length": 1024}


def gpu(precision: Any = "bfloat16", fast: Any = "on") -> Device:
    return Device(DeviceConfig(kind="cuda", precision=precision, threads=1, fast=fast), "test")


def small(**changes: Any) -> Recipe:
    table = {"preset": "gpt2", "model": {**SMALL, "vocab_size": 50_257}}
    return make_recipe(table, {"training": {"batch_size": 64}}, changes)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A card of 24 GB, of which others and torch hold some."""
    held = {"free": 22 * 10**9, "reserved": 3 * 10**9, "allocated": 10**9}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (held["free"], 24 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: held["reserved"])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: held["allocated"])
    return held


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "optimizer", [{"kind": "adamw"}, {"kind": "sgd", "momentum": 0.9}, {"kind": "sgd"}]
)
def test_a_parameter_takes_what_the_step_holds(
    optimizer: dict[str, Any], precision: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(accelerator, "own_device", lambda kind: torch.device("cpu"))
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 64, "context_length": 16, "vocab_size": 256}
    recipe = make_recipe({"preset": "gpt2", "model": shape, "optimizer": optimizer})
    device, tokens = gpu(precision), np.zeros(100, np.uint8)
    step = build(recipe, device, tokens, tokens).step
    assert isinstance(step, AcceleratedStep) and isinstance(step.optimizer, Optimizer)
    kept = [x for now, before in step.optimizer._kept for x in (*now, *before)]
    tensors = [*kept, step._gradients, *step.optimizer.tensors.values(), *step.compute.parameters()]
    held = sum({x.untyped_storage().data_ptr(): x.nbytes for x in tensors}.values())
    # The rest lives for a moment: gradients of the compute copy, and those side by side.
    size = device.dtype.itemsize
    counted = parameter_bytes(recipe, size) + passing_bytes(device) - 2 * size
    counted *= recipe.model.n_parameters
    assert held == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_a_token_takes_what_torch_keeps_of_it(preset: str):
    shape = {"n_layers": 3, "n_heads": 2, "d_model": 64, "context_length": 160, "vocab_size": 128}
    model = make_recipe({"preset": preset, "model": shape}).model
    counted = token_bytes(model, gpu("float32")) * model.context_length
    logits = 2 * 4 * 128 * 160  # of a plain head, which are not the blocks'
    assert counted == pytest.approx(kept_bytes(model, torch.float32), abs=logits)
    assert token_bytes(model, gpu()) == pytest.approx(token_bytes(model, gpu("float32")) / 2, abs=1)


def test_124_m_parameters_take_what_was_counted_on_the_meta_device():
    model = small().model  # the count: about 26 kB a layer
    assert token_bytes(model, gpu()) / model.n_layers == pytest.approx(26_000, rel=0.1)


def test_a_card_has_what_is_free_and_what_torch_keeps(card: dict[str, int]):
    assert memory_limit(small(), gpu()) == 24 * 10**9
    assert memory_limit(small(device={"memory_gigabytes": 5.0}), gpu()) == 5 * 10**9


def test_windows_are_halved_until_they_fit_into_a_card(card: dict[str, int]):
    recipe, lines = small(), list[str]()
    fitting, needed = fit_memory(recipe, gpu(), 0, lines.append)
    assert fitting.training.micro_batch_size in (16, 32) and needed <= 24 * 10**9
    assert "windows at once" in lines[0]
    twice = 2 * fitting.training.micro_batch_size
    training = replace(recipe.training, micro_batch_size=twice)
    assert gpu_bytes(replace(recipe, training=training), gpu()) > 24 * 10**9
    plain, _ = windows_that_fit(recipe, gpu(fast="off"), 24 * 10**9, 0)
    assert 0 < plain.training.micro_batch_size < fitting.training.micro_batch_size


def test_a_model_that_is_too_large_for_a_card_is_told_in_a_line(card: dict[str, int]):
    recipe = small(model={"n_layers": 400})
    with pytest.raises(UserError, match=r"with 1 window at once; 24\.0 GB are allowed") as told:
        fit_memory(recipe, gpu(), 0)
    assert "threads" not in str(told.value) and "sharding" not in str(told.value)


def processes(n: int) -> Processes:
    return Processes(0, n, FakeStore())


def test_of_several_processes_each_takes_its_share_of_windows_and_of_what_is_divided():
    def taken(n: int, **training: Any) -> int:
        recipe = small(training={"batch_size": 8 // n, **training})
        same_windows = replace(recipe, training=replace(recipe.training, batch_size=8))
        assert gpu_bytes(same_windows, plain, n) == gpu_bytes(recipe, plain) + round(
            SPARE * apart(same_windows, n)
        )
        return gpu_bytes(same_windows, plain, n)

    def apart(recipe: Recipe, n: int) -> float:
        several = parameter_bytes(recipe, 2, n) * recipe.model.n_parameters
        several += gathered_bytes(recipe, 2, n)
        return several - parameter_bytes(recipe, 2) * recipe.model.n_parameters

    plain = gpu(fast="off")
    none, optimizer, full = (taken(4, sharding=sharding) for sharding in SHARDINGS)
    n = small().model.n_parameters
    assert none - optimizer == pytest.approx(SPARE * 12 * n * 3 / 4, abs=2)
    assert full < optimizer < none


@pytest.mark.parametrize(
    ("n", "sharding", "less"),
    [(2, "none", "full"), (4, "none", "optimizer"), (2, "optimizer", "full")],
)
def test_a_card_that_several_processes_do_not_fit_into_is_told_what_to_divide(
    n: int, sharding: str, less: str, card: dict[str, int]
):
    large = {"n_layers": 120}  # 890 M parameters
    device = gpu(fast="on" if sharding == "none" else "off")
    recipe = replace(small(model=large, training={"sharding": sharding}), device=device.config)
    with pytest.raises(UserError) as told:
        fit_memory(recipe, device, 0, group=processes(n))
    promised = re.search(
        rf"Give --training.sharding {less} \((.*) GB\), a smaller", str(told.value)
    )
    assert promised is not None
    recipe = small(model=large, training={"sharding": less}, device={"fast": "off"})
    fitting, needed = fit_memory(recipe, gpu(fast="off"), 0, group=processes(n))
    assert fitting.training.micro_batch_size < 64 / n and needed <= 24 * 10**9
    assert promised[1] == f"{needed / 1e9:.1f}"


def test_windows_that_are_halved_are_those_of_a_share(card: dict[str, int]):
    lines = list[str]()
    fitting, _ = fit_memory(small(), gpu(), 0, lines.append, processes(8))
    assert fitting == small() and not lines, "8 windows each fit"
    fitting, _ = fit_memory(small(), gpu(), 0, lines.append, processes(1))
    assert fitting.training.micro_batch_size in (16, 32)
    card["free"] = 5 * 10**9
    fitting, _ = fit_memory(small(), gpu(), 0, lines.append, processes(4))
    assert fitting.training.micro_batch_size in (1, 2, 4)
    assert lines[-1].endswith("to the batch of 64, of which each process has 16")
