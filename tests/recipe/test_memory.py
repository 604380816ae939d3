"""What a training takes, counted beforehand, and how it is made to fit."""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from folio.device import Device, DeviceConfig, machine_memory
from folio.errors import UserError
from folio.evaluation.score import BATCH_TOKENS, exact_windows, score
from folio.fast.accelerate import accelerate
from folio.fast.int8 import Int8Weight
from folio.fast.layers import FastLinear
from folio.fast.loss import next_token_loss, penalized_loss
from folio.model.config import ActivationKind, ModelConfig
from folio.model.gpt import GPT
from folio.process import memory_in_use, peak_memory
from folio.recipe import memory
from folio.recipe.build import build
from folio.recipe.memory import (
    attention_bytes,
    evaluation_bytes,
    feed_forward_bytes,
    fit_memory,
    memory_before,
    memory_limit,
    peak_memory_bytes,
    plain_step_bytes,
    step_bytes,
    weight_bytes,
    windows_that_fit,
)
from folio.recipe.parameter_memory import gathered_bytes
from folio.recipe.presets import FAMILIES
from folio.recipe.recipe import Recipe, make_recipe, read_recipe
from folio.recipe.resume import resume_run
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.training.config import SHARDINGS, Sharding
from folio.training.parallel.step import ParallelStep
from tests.conftest import INT8, NEEDS_INT8


def cpu(threads: int = 1, precision: str = "float32") -> Device:
    return Device(DeviceConfig(kind="cpu", precision=precision, threads=threads), "test")  # type: ignore[arg-type]


def kept_bytes(model: GPT, tokens: torch.Tensor) -> int:
    """What torch itself keeps for the backward pass of a loss, weights and inputs left out."""
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = next_token_loss(model(tokens), tokens)
    loss.backward()
    return sum(kept.values())


def peak_of(found: profile) -> int:
    """The most bytes that were taken and not yet given back while a profiler looked on.

    It also hears of memory being given back that was taken while an earlier one looked on, in
    another test; a size of which nothing is left is such.
    """
    assert found.profiler is not None and found.profiler.kineto_results is not None
    events: list[Any] = found.profiler.kineto_results.events()  # torch says nothing of `nbytes`
    left, held, most = Counter[int](), 0, 0
    for n in (e.nbytes() for e in events if e.name() == "[memory]"):
        if n > 0 or left[-n]:
            left[abs(n)] += 1 if n > 0 else -1
            held += n
            most = max(most, held)
    return most


def in_bytes(config: ModelConfig) -> GPT:
    """A model that learns with products in int8."""
    model = accelerate(GPT(config).bfloat16())
    for module in model.blocks.modules():
        if isinstance(module, FastLinear):
            weight = module.weight.detach()
            module.int8_weight = Int8Weight(weight, lambda n, dtype: torch.zeros(n, dtype=dtype))
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"residual_dropout": 0.1, "attention_dropout": 0.1},
        {"n_kv_heads": 2},
        {"activation": "relu2"},
        {"activation": "gelu_tanh"},
        {"head_dim": 24},
        {"norm_placement": "both"},
        {"norm_placement": "post"},
        {"norm_placement": "none"},
        {"context_length": 200},
    ],
    ids=lambda changes: ",".join(changes) or "plain",
)
def test_a_block_keeps_as_much_as_torch_keeps(family: str, changes: dict[str, object]):
    shape = {"vocab_size": 5, "context_length": 64, "n_layers": 1, "n_heads": 4, "d_model": 64}
    table = FAMILIES[family]["model"] | shape | changes
    few, more = (ModelConfig(**(table | {"n_layers": n})) for n in (1, 3))
    tokens = torch.zeros(4, few.context_length, dtype=torch.int64)
    measured = (
        sum(
            sign * kept_bytes(accelerate(GPT(shape)), tokens)
            for sign, shape in ((1, more), (-1, few))
        )
        / 2
    )
    counted = tokens.numel() * (attention_bytes(few, 4, 4) + feed_forward_bytes(few, 4, 4))
    assert counted == pytest.approx(measured, rel=0.02)


@NEEDS_INT8
@pytest.mark.parametrize("activation", ["swiglu", "gelu", "gelu_tanh", "relu2", "relu"])
def test_matrices_that_learn_in_bytes_keep_bytes(activation: ActivationKind):
    pytest.importorskip("numba")
    shape = ModelConfig(vocab_size=5, n_heads=4, d_model=64, bias=False, activation=activation)
    few, more = (replace(shape, n_layers=n) for n in (1, 3))
    tokens = torch.zeros(4, 64, dtype=torch.int64)
    measured = (kept_bytes(in_bytes(more), tokens) - kept_bytes(in_bytes(few), tokens)) / 2
    counted = tokens.numel() * (attention_bytes(few, 2, 1) + feed_forward_bytes(few, 2, 1))
    assert counted == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize(
    "loss", [partial(next_token_loss, reduction="sum"), partial(penalized_loss, penalty=0.1)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_takes_the_gradient_of_the_logits(
    loss: Callable[..., torch.Tensor], dtype: torch.dtype
):
    pytest.importorskip("numba")
    model = ModelConfig(context_length=64, n_layers=1, n_heads=1, d_model=8)
    counted, without = (
        step_bytes(replace(model, vocab_size=n), dtype.itemsize, 1, 4) for n in (1000, 0)
    )
    logits = torch.zeros(1, 64, 1000, dtype=dtype, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss(logits, torch.zeros(1, 64, dtype=torch.int64)).backward()
    peak = peak_of(profiler)
    assert logits.nbytes + peak == pytest.approx(counted - without, rel=0.02)


@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", INT8])
def test_the_weights_and_what_the_optimizer_remembers_are_counted(kind: str, precision: str):
    recipe = make_recipe(
        {"model": {"vocab_size": 50}, "optimizer": {"kind": kind, "momentum": 0.9}}
    )
    device = cpu(2, precision)
    tokens = np.zeros(recipe.model.context_length + 1, np.uint8)
    training = build(
        replace(recipe, training=replace(recipe.training, max_steps=1)), device, tokens, tokens
    )
    assert isinstance(training.step, ParallelStep)
    parallel = training.step.parallel
    training.step.backward(training.stream.next_batch(2, 8), step=0)
    tensors = [
        parallel.parameters.master,
        parallel.parameters.gradients,
        parallel.parameters.compute,
    ]
    tensors += [copy.gradients for copy in parallel.replicas]
    tensors += list(training.step.optimizer.tensors.values())
    for int8_weight in parallel._int8_weights.values():
        tensors += [int8_weight.forward_factor.matrix, int8_weight.backward_factor.matrix]
    held = sum({t.data_ptr(): t.nbytes for t in tensors}.values())
    # The rest lives for a moment: the gradients of each copy by themselves, and a float32 sum.
    passing = 2 * device.dtype.itemsize + {"adamw": 0, "muon": 4, "sgd": 4}[kind]
    counted = held + passing * recipe.model.n_parameters
    assert weight_bytes(recipe, device, 2) == pytest.approx(counted, rel=0.02)


def test_the_copy_that_a_checkpoint_in_the_background_is_written_from_is_counted():
    recipe = make_recipe({"model": {"vocab_size": 50}})
    beside = replace(recipe, training=replace(recipe.training, save_in_background="on"))
    before, with_copy = (weight_bytes(r, cpu(1, "float32"), 1) for r in (recipe, beside))
    weights_and_both_means = 3 * 4 * recipe.model.n_parameters
    assert with_copy - before == weights_and_both_means


def windows_at_once(recipe: Recipe, n: int) -> Recipe:
    return replace(recipe, training=replace(recipe.training, micro_batch_size=n))


def test_windows_are_halved_until_they_fit():
    recipe = make_recipe(
        {"size": "mini", "model": {"vocab_size": 100}, "training": {"batch_size": 8}}
    )
    whole = peak_memory_bytes(recipe, cpu(), 0)
    assert windows_that_fit(recipe, cpu(), whole, 0) == (recipe, whole)
    needed = {n: peak_memory_bytes(windows_at_once(recipe, n), cpu(), 0) for n in (4, 2, 1)}
    assert sorted([whole, *needed.values()], reverse=True) == [whole, *needed.values()]
    for n, n_bytes in needed.items():
        assert windows_that_fit(recipe, cpu(), n_bytes, 0) == (windows_at_once(recipe, n), n_bytes)
    assert windows_that_fit(recipe, cpu(), 1, 0)[0] == windows_at_once(recipe, 1)
    fewest = windows_that_fit(recipe, cpu(4), 1, 0)[0]
    assert fewest == windows_at_once(recipe, 4), "one for each thread"


def test_kernels_that_are_still_to_be_compiled_count_once_for_each_process(
    monkeypatch: pytest.MonkeyPatch,
):
    def peak(threads: int, must: bool) -> int:
        monkeypatch.setattr(memory, "must_compile", lambda: must)
        recipe = make_recipe({"model": {"vocab_size": 100}})
        return peak_memory_bytes(recipe, cpu(threads), 0)

    assert peak(1, True) - peak(1, False) == memory.COMPILING_BYTES
    assert peak(2, True) - peak(2, False) == 2 * memory.COMPILING_BYTES


def test_what_an_earlier_training_of_the_process_has_loaded_is_not_counted_again(
    monkeypatch: pytest.MonkeyPatch,
):
    kept = 20_000_000
    held = iter([300_000_000, 300_000_000 + memory.LIBRARY_BYTES + kept, 305_000_000])
    monkeypatch.setattr(memory, "_held_at_first", 0, raising=False)
    monkeypatch.setattr(memory, "memory_in_use", lambda: next(held))
    assert memory_before() == 300_000_000
    assert memory_before() == 300_000_000 + kept, "what it did not give back counts"
    assert memory_before() == 300_000_000


def test_small_micro_batches_are_still_those_of_all_workers():
    def peak(micro_batch_size: int) -> int:
        training = {"batch_size": 8, "micro_batch_size": micro_batch_size}
        recipe = make_recipe({"model": {"vocab_size": 100}, "training": training})
        return peak_memory_bytes(recipe, cpu(4), 0)

    assert peak(1) == peak(4) < peak(8), "each of four workers has one at a time"


def test_windows_that_the_recipe_gives_are_left_alone():
    recipe = make_recipe({"model": {"vocab_size": 100}, "training": {"micro_batch_size": 6}})
    assert windows_that_fit(recipe, cpu(), 1, 0)[0] == recipe


def test_processes_of_a_machine_share_its_memory_and_what_they_divide():
    recipe = make_recipe({"model": {"vocab_size": 100}, "device": {"fast": "off"}})
    assert memory_limit(recipe, cpu(), 4) == memory_limit(recipe, cpu()) // 4
    plain, n = replace(cpu(), config=replace(cpu().config, fast="off")), recipe.model.n_parameters

    def with_sharding(sharding: Sharding) -> Recipe:
        return replace(recipe, training=replace(recipe.training, sharding=sharding))

    none, optimizer, full = (weight_bytes(with_sharding(s), plain, 1, 4) for s in SHARDINGS)
    assert none == weight_bytes(recipe, plain, 1) + 4 * n, "gradients side by side"
    assert none - optimizer == 12 * n * 3 // 4
    whole = 4 * n  # that the first one has for checkpoints
    gathered = gathered_bytes(with_sharding("full"), 4, 4)
    assert recipe.optimizer.kind == "muon" and full == whole + 28 * n // 4 + gathered


def test_what_cannot_fit_is_one_line_that_says_what_to_do():
    recipe = make_recipe(
        {"size": "baby", "model": {"vocab_size": 100}, "device": {"memory_gigabytes": 0.01}}
    )
    with pytest.raises(UserError, match=r"needs about .* 0\.0 GB are allowed\. Give .* --size"):
        fit_memory(recipe, cpu(), 0)
    with pytest.raises(UserError, match=r"Give a smaller --training\.micro-batch-size, --size"):
        fit_memory(windows_at_once(recipe, 4), cpu(), 0)


def tiny(book: Path, **changes: object) -> Recipe:
    return make_recipe(
        {
            "corpus": {"sources": [str(book)]},
            "model": {"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16},
            "training": {"batch_size": 8, "max_steps": 12, "evaluation_interval": 4},
            "device": {"kind": "cpu", "threads": 1, "precision": "float32"},
        },
        changes,  # type: ignore[arg-type]
    )


def test_a_limit_changes_the_windows_at_once_and_not_the_losses(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    adamw = {"kind": "adamw"}  # Muon magnifies the rounding of sums in another order
    free = train_recipe(tiny(book, optimizer=adamw), "free", Watcher())

    def one_megabyte_a_window(recipe: Recipe, *_: object) -> int:
        return 1_000_000 * (recipe.training.micro_batch_size or recipe.training.batch_size)

    monkeypatch.setattr("folio.recipe.memory.peak_memory_bytes", one_megabyte_a_window)
    limits = {"memory_gigabytes": 0.003}
    limited = train_recipe(tiny(book, optimizer=adamw, device=limits), "limited", Watcher())
    text = limited.run.recipe_file.read_text()
    assert "micro_batch_size = 0\n" in free.run.recipe_file.read_text()
    assert "micro_batch_size = 2\n" in text and "batch_size = 8\n" in text
    losses = [[e["loss"] for e in r.run.events("step")] for r in (free, limited)]
    assert len(losses[0]) == 12
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_a_forked_process_takes_for_itself_counts():
    shared = np.ones(40_000_000 // 8)
    (ready, tell_ready), (leave, tell_leave) = os.pipe(), os.pipe()
    if (pid := os.fork()) == 0:
        shared.sum()  # no copy of it is made
        kept, given_back = np.ones(30_000_000 // 8), np.ones(60_000_000 // 8)
        del given_back
        os.write(tell_ready, b"!")
        os.read(leave, 1)
        kept.sum()
        os._exit(0)
    os.read(ready, 1)
    alone, both = peak_memory(), peak_memory([pid])
    os.write(tell_leave, b"!")
    os.waitpid(pid, 0)
    assert 85_000_000 < both - alone < 120_000_000


def test_memory_is_that_of_this_process():
    before = memory_in_use()
    with mmap.mmap(-1, 50_000_000) as block:  # from the system, not of what was freed and kept
        block.write(bytes(len(block)))
        # What writes holds as much for a moment, so the peak may be higher than what is held.
        assert memory_in_use() - before > 40_000_000
        assert peak_memory() >= memory_in_use() > len(block)
    assert machine_memory() > peak_memory()


@pytest.mark.parametrize("vocab_size", [8192, 30_000])
def test_what_an_evaluation_takes_is_what_torch_takes(vocab_size: int):
    shape = {"vocab_size": vocab_size, "n_layers": 2, "d_model": 32, "context_length": 128}
    config = make_recipe({"model": shape}).model
    model = accelerate(GPT(config, torch.Generator().manual_seed(0)))
    tokens = np.random.default_rng(0).integers(0, vocab_size, BATCH_TOKENS + 1).astype(np.uint32)
    windows = exact_windows(len(tokens), 128)
    score(model, tokens, windows, "exact")  # what is allocated once
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        score(model, tokens, windows, "exact")
    assert peak_of(found) == pytest.approx(evaluation_bytes(config, 4), rel=0.5)


@pytest.mark.parametrize(
    ("family", "width", "precision"),
    [("gpt2", 64, "float32"), ("modern", 128, "float32"), ("gpt2", 64, "bfloat16")],
)
def test_what_the_plain_step_takes_is_what_torch_takes(family: str, width: int, precision: str):
    shape = {"vocab_size": 300, "n_layers": 3, "n_heads": 4, "d_model": width}
    recipe = make_recipe(
        {"preset": family, "model": shape | {"context_length": 64}, "training": {"batch_size": 4}}
    )
    device = cpu(precision=precision)
    device = replace(device, config=replace(device.config, fast="off"))
    tokens = np.random.default_rng(0).integers(0, 300, 2000).astype(np.uint16)
    training = build(recipe, device, tokens[:-200], tokens[-200:])
    batch = training.stream.next_batch(4, 64)
    training.step.backward(batch, 0)  # what is allocated once
    training.step.update(0.1, 1.0)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        training.model.zero_grad(set_to_none=True)
        training.step.backward(batch, 0)
    peak = peak_of(found)
    n = recipe.model.n_parameters
    freed = 4 * n  # gradients, which were there before
    gradients = 4 * n + (4 * n if precision == "bfloat16" else 0)
    counted = plain_step_bytes(recipe.model, device.dtype, 4) + gradients
    # What products of bfloat16 take beside their results differs from run to run.
    assert freed + peak == pytest.approx(counted, rel=0.35 if precision == "bfloat16" else 0.2)


def test_windows_that_folio_chose_for_another_limit_are_chosen_anew_when_a_run_goes_on(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    def half_a_megabyte_a_window(recipe: Recipe, *_: object) -> int:
        return 500_000 * (recipe.training.micro_batch_size or recipe.training.batch_size)

    def windows_with(gigabytes: float, **training: int) -> int:
        changes = {"device": {"memory_gigabytes": gigabytes}, "training": training}
        resume_run(run, changes, Watcher())
        return read_recipe(run).training.micro_batch_size

    monkeypatch.setattr("folio.recipe.memory.peak_memory_bytes", half_a_megabyte_a_window)
    limits = {"memory_gigabytes": 0.002}
    run = train_recipe(tiny(book, device=limits), "moved", Watcher()).run
    assert read_recipe(run).training.micro_batch_size == 4
    assert windows_with(0.001, max_steps=13) == 2
    assert windows_with(0.003, max_steps=14) == 4
    assert windows_with(0.004, max_steps=15) == 0, "the whole batch"
    with monkeypatch.context() as patched:
        patched.setattr("folio.recipe.memory.memory_limit", lambda *_: 500_000)
        resume_run(run, {"training": {"max_steps": 16}}, Watcher())
        assert read_recipe(run).training.micro_batch_size == 1, "the same device with less memory"
    assert windows_with(0.004, max_steps=17, micro_batch_size=2) == 2
    assert windows_with(0.003, max_steps=18) == 2, "which the user chose"


def test_windows_that_the_user_chose_stay_when_a_run_goes_on(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    given = {"batch_size": 8, "max_steps": 12, "evaluation_interval": 4, "micro_batch_size": 3}
    run = train_recipe(tiny(book, training=given), "given", Watcher()).run
    monkeypatch.setattr("folio.recipe.memory.peak_memory_bytes", lambda *_: 3_000_000)
    changes = {"training": {"max_steps": 13}, "device": {"memory_gigabytes": 0.002}}
    with pytest.raises(UserError, match=r"smaller --training\.micro-batch-size"):
        resume_run(run, changes, Watcher())
