"""Trainings and verbs on a pretended accelerator (tests/pretended.py)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from folio import accelerator
from folio.cli.main import main
from folio.config import merge
from folio.device import Device, DeviceConfig, choose_device, device_of
from folio.errors import UserError
from folio.evaluation import score as score_module
from folio.evaluation.score import exact_score
from folio.explain.look import look_at
from folio.recall.secrets import _Scorer
from folio.recipe import train as train_module
from folio.recipe.build import build
from folio.recipe.finish import Result
from folio.recipe.recipe import make_recipe
from folio.recipe.resume import resume_run
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.opening import open_run
from folio.testing import tiny_gpt
from folio.tokens.text import TokenText
from folio.training.batches import peek
from folio.training.loop import update_weights
from tests.pretended import Accelerator, pretended

TINY = {
    "preset": "gpt2",
    "tokenizer": {"kind": "character"},
    "model": {"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16},
    "training": {"batch_size": 4, "max_steps": 4, "evaluation_interval": 2, "log_interval": 1},
    "device": {"kind": "cpu", "precision": "float32", "threads": 1, "fast": "off"},
}
GPU = {"device": {"kind": "mps", "fast": "on"}}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Accelerator]:
    with pretended(monkeypatch) as device:
        yield device


def trained(
    book: Path, name: str, changes: Any = None, should_stop: Callable[[], bool] = lambda: False
) -> Result:
    table = merge(TINY, {"corpus": {"sources": [str(book)]}}, changes or {})
    return train_recipe(make_recipe(table), name, Watcher(), should_stop)


def losses(result: Result) -> list[float]:
    steps = [event["loss"] for event in result.run.events("step")]
    return steps + [event["validation_loss"] for event in result.run.events("evaluation")]


def test_a_run_on_an_accelerator_is_that_of_a_processor(book: Path, gpu: Accelerator):
    there, here = trained(book, "there", GPU), trained(book, "here")
    assert losses(there) == pytest.approx(losses(here), rel=1e-5)
    plain = trained(book, "plain", merge(GPU, {"device": {"fast": "off"}}))
    assert losses(plain) == pytest.approx(losses(here), rel=1e-5)
    assert there.sample == here.sample and len(there.held_out) == 1
    said = []
    for device in ("cpu", "mps"):  # what a model is asked afterwards it answers on either
        opened = open_run(there.run, "best", device_of(device))
        score, _ = opened.score(opened.validation()[:200])
        look = look_at(opened, "The 3rd line")
        ids = np.array(opened.validation()[:20])
        scorer = _Scorer(opened, TokenText(ids, opened.tokenizer), 1.0)
        ids = ids.astype(np.int64)
        bits = scorer._bits(ids[:4], [ids[4:9], ids[9:12]])
        said.append([score.nats, *look.surprisal[1:], *bits])
    assert said[0] == pytest.approx(said[1], rel=1e-4)


def test_a_run_goes_on_with_another_device(book: Path, gpu: Accelerator):
    whole = losses(trained(book, "whole"))
    for first, then in ((GPU, "cpu"), ({}, "mps")):
        count = itertools.count()
        name = f"to-{then}"
        run = trained(book, name, first, should_stop=lambda count=count: next(count) == 2).run
        result = resume_run(run, {"device": {"kind": then}}, Watcher())
        assert result is not None and losses(result) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("fast", ["on", "off"])
@pytest.mark.parametrize(
    ("kind", "precision"), [("adamw", "float32"), ("muon", "bfloat16"), ("sgd", "float16")]
)
def test_a_step_waits_for_the_device_twice(kind: str, precision: Any, fast: Any, gpu: Accelerator):
    recipe = make_recipe(
        merge(TINY, {"preset": "modern", "model": {"vocab_size": 11}, "optimizer": {"kind": kind}})
    )
    device = Device(DeviceConfig(kind="mps", precision=precision, threads=1, fast=fast), "test")
    text = np.random.default_rng(0).integers(0, 11, 300).astype(np.uint8)
    training = build(recipe, device, text, text)
    assert next(training.model.parameters()).device.type == "meta"
    for step in range(2):
        before = gpu.waits
        gradient = training.step.backward(peek(training), step)
        update_weights(training, step, gradient)
    assert gpu.waits - before == 2  # for loss and norm, and whether the weights are finite


def test_an_evaluation_waits_once_for_all_that_it_reads(
    gpu: Accelerator, monkeypatch: pytest.MonkeyPatch
):
    model, text = tiny_gpt(), (np.arange(200) % 11).astype(np.uint8)
    expected = exact_score(model, text, 8)
    monkeypatch.setattr(score_module, "ACCELERATOR_BATCH_TOKENS", 32)
    monkeypatch.setattr(score_module, "FLOAT32_LOGITS", 5 * 11)  # five rows at a time
    model.to("meta")
    before = gpu.waits
    found = exact_score(model, text, 8)  # seven forward passes
    assert gpu.waits - before == 1
    assert found.nats == pytest.approx(expected.nats, rel=1e-5) and found.targets == 199
    monkeypatch.setattr(score_module, "READ_TOGETHER", 3)
    before = gpu.waits
    assert exact_score(model, text, 8).nats == pytest.approx(expected.nats, rel=1e-5)
    assert gpu.waits - before == 3


# ---- CUDA, as far as it can be said without it --------------------------------------------


@pytest.mark.parametrize(("capability", "precision"), [((9, 0), "bfloat16"), ((7, 5), "float16")])
def test_a_card_computes_in_what_its_tensor_cores_take(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    config = choose_device(DeviceConfig(kind="cuda")).config
    assert (config.precision, config.fast) == (precision, "on")
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    choose_device(DeviceConfig(kind="cuda", precision="float32"))
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"


def test_each_process_of_a_machine_has_a_card_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    device = Device(DeviceConfig(kind="cuda", precision="float32", threads=1), "test")
    assert device.torch == torch.device("cuda", 3)
    assert accelerator.own_device("mps") == torch.device("mps")


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (UserError("out of memory"), False),
    ],
)
def test_what_says_that_memory_ran_out_is_known(error: Exception, is_memory: bool):
    assert accelerator.ran_out_of_memory(error) == is_memory


def test_memory_that_runs_out_anywhere_ends_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def full(*arguments: Any, **settings: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nMore.")

    monkeypatch.setattr(train_module, "settle", full)
    with pytest.raises(SystemExit) as stopped:
        main(["train", "python-docs", "--training.max-steps", "1"])
    said = capfd.readouterr().err
    assert stopped.value.code == 2 and said.startswith("error: Memory ran out (CUDA out of memory")
    assert said.count("\n") == 1 and "--training.micro-batch-size" in said


def test_an_evaluation_that_does_not_fit_reads_fewer_windows_at_once():
    model, text = tiny_gpt(), (np.arange(200) % 11).astype(np.uint8)
    read: list[int] = []

    def full(module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        read.append(len(arguments[0]))
        if len(arguments[0]) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")

    expected = exact_score(model, text, 8)
    with model.register_forward_pre_hook(full):
        found = exact_score(model, text, 8)
    assert found.nats == pytest.approx(expected.nats, rel=1e-5) and found.targets == 199
    assert read == [25, 12, 6, 6, 6, 6, 1]
