"""`AcceleratedStep`: what PlainStep computes, on the processor in place of a GPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from folio import accelerator
from folio.device import Device, DeviceConfig
from folio.errors import UserError
from folio.fast.written_for import DIGESTS
from folio.model.gpt import GPT
from folio.recipe.recipe import make_recipe
from folio.tokens.stream import Batch
from folio.training.accelerated import step as step_module
from folio.training.accelerated.head import PaddedHead
from folio.training.accelerated.step import AcceleratedStep
from folio.training.loop import train
from folio.training.low_rank import load_model_tensors, merged
from folio.training.state import TrainingState
from folio.training.step import PlainStep
from tests.counting import counting
from tests.graphs import graphs
from tests.training.test_step import Nobody, batch_of, training_of, weights_of


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have "cuda" be the processor."""
    monkeypatch.setattr(accelerator, "own_device", lambda kind: torch.device("cpu"))


def gpu(precision: Any = "float32", fast: Any = "on") -> Device:
    return Device(DeviceConfig(kind="cuda", precision=precision, threads=1, fast=fast), "test")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_accelerated_step_follows_the_plain_one(kind: str, precision: str):
    changes = {"optimizer": {"kind": kind}, "training": {"micro_batch_size": 3}}
    both = [training_of(gpu(precision, fast), **changes) for fast in ("off", "on")]
    assert [type(training.step) for training in both] == [PlainStep, AcceleratedStep]
    losses = []
    for training in both:
        observer = Nobody()
        assert train(training, TrainingState(), observer) == "finished"
        losses.append((*observer.losses, *observer.evaluations))
    tolerance = 1e-5 if precision == "float32" else 2e-3
    assert losses[0] == pytest.approx(losses[1], rel=tolerance)
    names = [list(training.step.optimizer.tensors) for training in both]
    assert names[0] == names[1]
    assert {n: x.shape for n, x in merged(both[0].model).items()} == {
        n: x.shape for n, x in merged(both[1].model).items()
    }


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_goes_on_to_the_same_bytes(precision: str):
    changes: dict[str, Any] = {"model": {"residual_dropout": 0.3}}
    whole = training_of(gpu(precision), **changes)
    train(whole, TrainingState(), Nobody())
    first, state = training_of(gpu(precision), **changes), TrainingState()
    assert train(first, state, Nobody(), lambda: state.step == 5) == "interrupted"
    record = state.record(torch.device("cpu"))
    saved = {n: x.clone() for n, x in first.step.optimizer.tensors.items()}
    then = training_of(gpu(precision), **changes)
    load_model_tensors(then.model, merged(first.model))
    then.step.optimizer.load(saved)
    assert train(then, TrainingState.restore(record, torch.device("cpu")), Nobody()) == "finished"
    assert torch.equal(weights_of(then), weights_of(whole))


def test_only_the_compute_copy_has_padded_rows():
    training = training_of(gpu("bfloat16"))
    step = training.step
    assert isinstance(step, AcceleratedStep)
    compute, model = cast(GPT, step.compute), cast(GPT, training.model)
    assert isinstance(compute.lm_head, PaddedHead)
    assert (len(compute.lm_head.weight), len(model.lm_head.weight)) == (128, 11)
    step.verify(batch_of(2))
    before = step.backward(batch_of(4), 0)
    step.update(1.0, before.norm)
    assert not compute.lm_head.weight[11:].any()
    assert torch.equal(compute.lm_head.weight[:11], model.lm_head.weight.bfloat16())


def test_who_listens_to_the_model_hears_its_logits_at_each_step(monkeypatch: pytest.MonkeyPatch):
    both = [training_of(gpu(fast=fast)) for fast in ("off", "on")]
    heard: list[torch.Size] = []

    def double(model: Any, given: Any, logits: torch.Tensor) -> torch.Tensor:
        heard.append(logits.shape)
        return 2 * logits

    with graphs(monkeypatch) as captured:
        before = [both[1].step.backward(batch_of(4), 0) for _ in range(3)][-1]
        (graph,), n_replays = captured, captured[0].n_replays
        hooks = [training.model.register_forward_hook(double) for training in both]
        expected = both[0].step.backward(batch_of(4), 0)
        assert expected.loss > 1.001 * before.loss
        for _ in range(2):
            assert both[1].step.backward(batch_of(4), 0) == pytest.approx(expected, rel=1e-5)
            both[1].step.verify(batch_of(4))
        assert heard == 3 * [(4, 8, 11)] and graph.n_replays == n_replays
        for hook in hooks:
            hook.remove()
        assert both[1].step.backward(batch_of(4), 0) == pytest.approx(before, rel=1e-5)
        assert graph.n_replays == n_replays + 1


def test_a_loss_of_the_users_own_is_taken():
    training = training_of(gpu())
    usual: Callable[..., Any] = training.step.loss
    expected = training.step.backward(batch_of(4), 0)
    training.step.loss = lambda *given: 2 * usual(*given)
    found = training.step.backward(batch_of(4), 0)
    assert found == pytest.approx([2 * x for x in expected], rel=1e-5)


def test_a_loss_of_the_users_own_is_compiled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)
    training = training_of(gpu())
    model, configs = copy.deepcopy(training.model), (training.config, training.optimizer_config)
    compiled = AcceleratedStep(model, gpu(), *configs, compiled=True)
    usual: Callable[..., Any] = training.step.loss
    # So little that a capture is not taken for a wrong one.
    for step in (training.step, compiled):
        step.loss = lambda *given: 1.02 * usual(*given)
    with graphs(monkeypatch) as captured:
        found = [compiled.backward(batch_of(4), 0) for _ in range(3)][-1]
    assert len(captured) == 1 and compiled._add.is_compiled
    assert found == pytest.approx(training.step.backward(batch_of(4), 0), rel=1e-5)


def test_an_edited_loss_is_what_trains(monkeypatch: pytest.MonkeyPatch):
    expected = training_of(gpu()).step.backward(batch_of(4), 0)
    usual = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda *given, **named: 2 * usual(*given, **named))
    monkeypatch.setitem(DIGESTS, "folio.model.loss", "another")
    step = training_of(gpu()).step
    assert isinstance(step, AcceleratedStep)
    assert step.backward(batch_of(4), 0) == pytest.approx([2 * x for x in expected], rel=1e-5)


def test_a_step_that_does_not_fit_has_fewer_windows_at_once():
    training = training_of(gpu())
    step, expected = training.step, training.step.backward(batch_of(7), 0)
    assert isinstance(step, AcceleratedStep)
    read: list[int] = []

    def full(module: Any, given: tuple[torch.Tensor, ...]) -> None:
        read.append(len(given[0]))
        if len(given[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    cast(GPT, step.compute).blocks[0].register_forward_pre_hook(full)
    assert step.backward(batch_of(7), 0) == pytest.approx(expected, rel=1e-5)
    assert read == [7, 4, 2, 2, 2, 1] and step.fitting_windows == 2


@pytest.mark.parametrize(("preset", "most"), [("gpt2", 510), ("modern", 1010)])
def test_a_step_of_124_m_parameters_waits_twice_and_starts_few_kernels(
    preset: str, most: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(accelerator, "own_device", lambda kind: torch.device("meta"))
    shape = {"n_layers": 12, "n_heads": 12, "d_model": 768, "context_length": 1024}
    recipe = make_recipe({"preset": preset, "model": {**shape, "vocab_size": 50_257}})
    with torch.device("meta"):
        model = GPT(recipe.model)
    step = AcceleratedStep(model, gpu("bfloat16"), recipe.training, recipe.optimizer)
    rows = np.zeros((16, 1024), np.int64)
    with counting(monkeypatch) as found:
        gradient = step.backward(Batch(rows, rows), 0)
        step.update(1.0, gradient.norm)
    assert len(found.waits) == 2  # for loss and norm, and whether the weights are finite
    assert found.n_kernels <= most


@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
def test_a_replayed_run_has_the_bytes_of_one_that_is_not(kind: str, monkeypatch: Any):
    changes: dict[str, Any] = {
        "optimizer": {"kind": kind, "momentum": 0.5},
        "training": {"micro_batch_size": 2},
        "model": {"residual_dropout": 0.3},
    }
    plain = training_of(gpu("bfloat16"), **changes)
    train(plain, TrainingState(), Nobody())
    with graphs(monkeypatch) as captured:
        replayed = training_of(gpu("bfloat16"), **changes)
        train(replayed, TrainingState(), Nobody())
    assert torch.equal(weights_of(replayed), weights_of(plain))
    n_rules = {"adamw": 3, "muon": 3, "sgd": 0}[kind]
    assert len(captured) == 1 + n_rules  # micro-batches of a shape, and each rule
    assert max(graph.n_replays for graph in captured) >= 15  # two micro-batches of eight steps


def test_a_model_that_changes_after_it_was_captured_is_noticed(monkeypatch: pytest.MonkeyPatch):
    with graphs(monkeypatch) as captured:
        training = training_of(gpu(), model={"scale_embeddings": True, "residual_dropout": 0.3})
        batches = [batch_of(4) for _ in range(3)]
        for batch in batches:
            training.step.backward(batch, 0)
        assert len(captured) == 1
        training.step.verify(batches[0])
        cast(GPT, training.model).embedding_scale = 9.0
        with pytest.raises(UserError, match=r"a replay is off by .* --device\.fast off"):
            training.step.verify(batches[0])


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # which dynamo does itself
@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_a_compiled_step_is_one_graph_which_is_compiled_once(preset: str, monkeypatch: Any):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(step_module, "BACKEND", "aot_eager")
    plain = training_of(gpu("bfloat16"), preset=preset)
    model, configs = copy.deepcopy(plain.model), (plain.config, plain.optimizer_config)
    losses = []
    with graphs(monkeypatch) as captured:
        compiled = AcceleratedStep(model, gpu("bfloat16"), *configs, compiled=True)
        for step in (compiled, plain.step):
            sizes = [3 if i == 11 else 5 for i in range(20)]
            losses.append([step.backward(batch_of(n), 0).loss for n in sizes])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    assert len(captured) == 2, "one of each step; the short batch runs as it is written"
