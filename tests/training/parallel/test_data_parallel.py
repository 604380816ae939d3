"""Replicas side by side compute what one model computes; the weights exist once."""

from __future__ import annotations

import copy
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from folio.device import Device, DeviceConfig
from folio.evaluation.score import exact_windows, score
from folio.model.loss import next_token_loss
from folio.process import memory_in_use
from folio.testing import tiny_gpt
from folio.tokens.ignored import IGNORED
from folio.tokens.stream import Batch
from folio.training.gradients import gradient_of
from folio.training.parallel import data_parallel
from folio.training.parallel.data_parallel import DataParallel, add_up
from folio.workers import ProcessPool, ThreadPool
from tests.conftest import NEEDS_INT8, turn_kernels

pytest.importorskip("numba")

TOKENS = np.arange(200, dtype=np.uint8) * 7 % 11


def cpu(threads: int = 2, precision: str = "float32") -> Device:
    return Device(DeviceConfig(kind="cpu", precision=precision, threads=threads), "test")  # type: ignore[arg-type]


def batch_of(n_windows: int) -> Batch:
    where = np.arange(n_windows)[:, None] * 13 + np.arange(8)
    inputs, targets = TOKENS[where].astype(np.int64), TOKENS[where + 1].astype(np.int64)
    targets[-1, 3:] = IGNORED  # a short window weighs by its targets
    return Batch(inputs, targets)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("micro_batch_size", [0, 1, 2, 4, 5])
def test_gradients_equal_those_of_one_model_with_the_whole_batch(
    threads: int, micro_batch_size: int
):
    model, batch = tiny_gpt(initialization_std=0.2), batch_of(7)
    alone = copy.deepcopy(model)
    loss = next_token_loss(alone(torch.from_numpy(batch.inputs)), torch.from_numpy(batch.targets))
    loss.backward()
    parallel = DataParallel(model, cpu(threads), 7, seed=1)
    for _ in range(2):  # a second batch begins from nothing
        found = parallel.backward(batch, micro_batch_size, step=0)
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    square = sum(gradient_of(p).square().sum().item() for p in alone.parameters())
    assert found.squared_norm == pytest.approx(square, rel=1e-5)
    for ours, theirs in zip(model.parameters(), alone.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_shard_of_all_gradients_is_added_up_and_measured(dtype: torch.dtype, is_first: bool):
    rows = torch.randn(3, 9000, generator=torch.Generator().manual_seed(0)).to(dtype)
    total, span = torch.ones(9000), slice(4500, 8999)
    square = add_up(rows, total, span, is_first)
    assert square == pytest.approx(total[span].square().sum().item(), rel=1e-5)
    assert total[:4500].sum() + total[8999:].sum() == 4501, "as they were"
    expected = rows[:, span].double().sum(0) + (0 if is_first else 1)
    torch.testing.assert_close(total[span].double(), expected, rtol=1e-5, atol=1e-5)


ERRORS = {
    "accelerator": torch.OutOfMemoryError("CUDA out of memory"),
    "torch": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    "numpy": MemoryError("Unable to allocate 64.0 GiB for an array"),
}


class Full:
    """A copy that has no room for so many windows at once, which no test machine is short of."""

    def __init__(self, model: torch.nn.Module, windows: int, error: Exception) -> None:
        self.windows, self.error, self.asked = windows, error, []
        self.hook = model.register_forward_pre_hook(self.look)

    def look(self, _: object, inputs: tuple[torch.Tensor]) -> None:
        self.asked.append(len(inputs[0]))
        if len(inputs[0]) >= self.windows:
            raise self.error


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_out_of_memory_halves_the_windows_and_not_the_gradient(error: Exception):
    model, batch = tiny_gpt(initialization_std=0.2), batch_of(7)
    whole, halved = (DataParallel(copy.deepcopy(model), cpu(1), 7, seed=1) for _ in range(2))
    full = Full(halved.replicas[0].model, 3, error)
    halved.replicas[0].backward.max_bytes = 0  # a replay asks no hook
    expected = whole.backward(batch, 0, step=0)
    for _ in range(2):
        assert halved.backward(batch, 0, step=0) == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(
            halved.parameters.gradients, whole.parameters.gradients, rtol=1e-4, atol=1e-6
        )
    # 7, then 4, then 2 at a time; the second batch knows.
    assert full.asked == [7, 4, 2, 2, 2, 1, 2, 2, 2, 1] and halved.fitting_windows == 2


def test_memory_that_is_too_small_for_one_window_is_an_error():
    parallel = DataParallel(tiny_gpt(), cpu(1), 4, seed=1)
    Full(parallel.replicas[0].model, 1, ERRORS["torch"])
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        parallel.backward(batch_of(4), 0, step=0)


def test_another_error_is_raised_at_once():
    parallel = DataParallel(tiny_gpt(), cpu(1), 4, seed=1)
    full = Full(parallel.replicas[0].model, 1, RuntimeError("shapes do not agree"))
    with pytest.raises(RuntimeError, match="shapes do not agree"):
        parallel.backward(batch_of(4), 0, step=0)
    assert full.asked == [4]


def test_bfloat16_gradients_are_near_those_of_float32():
    gradients = {}
    for precision in ("float32", "bfloat16"):
        model = tiny_gpt(initialization_std=0.2)
        parallel = DataParallel(model, cpu(precision=precision), 6, seed=1)
        parallel.backward(batch_of(6), 0, step=0)
        gradients[precision] = parallel.parameters.gradients
        assert next(model.parameters()).dtype == gradients[precision].dtype == torch.float32
    error = (gradients["bfloat16"] - gradients["float32"]).norm() / gradients["float32"].norm()
    assert 1e-5 < error < 0.03


@NEEDS_INT8
def test_replicas_learn_in_int8_and_are_evaluated_without(monkeypatch: pytest.MonkeyPatch):
    turn_kernels(monkeypatch, on=True)
    found = {}
    for precision in ("bfloat16", "int8"):
        parallel = DataParallel(
            tiny_gpt(initialization_std=0.2), cpu(precision=precision), 6, seed=1
        )
        nats = parallel.score(TOKENS, exact_windows(len(TOKENS), 8), "").nats
        parallel.backward(batch_of(6), 0, step=0)
        found[precision] = (nats, parallel.parameters.gradients)
    (nats, gradients), (nats_in_bytes, gradients_in_bytes) = found.values()
    assert nats_in_bytes == nats
    assert 1e-5 < (gradients_in_bytes - gradients).norm() / gradients.norm() < 0.03


@NEEDS_INT8
def test_a_refresh_quantizes_the_weights_anew(monkeypatch: pytest.MonkeyPatch):
    turn_kernels(monkeypatch, on=True)
    model = tiny_gpt(initialization_std=0.2)
    parallel = DataParallel(model, cpu(precision="int8"), 6, seed=1)
    with torch.no_grad():
        parallel.parameters.master.mul_(1.5)
    parallel.refresh()
    fresh = DataParallel(copy.deepcopy(model), cpu(precision="int8"), 6, seed=1)
    for each in (parallel, fresh):
        each.backward(batch_of(6), 0, step=0)
    assert torch.equal(parallel.parameters.gradients, fresh.parameters.gradients)


def test_there_are_no_more_replicas_than_windows():
    assert [len(DataParallel(tiny_gpt(), cpu(n), 3, 0).replicas) for n in (1, 2, 8)] == [1, 2, 3]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_replicas_see_new_weights_after_a_refresh(precision: str):
    model = tiny_gpt()
    parallel = DataParallel(model, cpu(precision=precision), 2, seed=1)
    with torch.no_grad():
        model.lm_head.weight.fill_(0.5)
    parallel.refresh()
    heads = [c.model.get_parameter("lm_head.weight") for c in parallel.replicas]
    assert all((weight == 0.5).all() for weight in heads)


def test_dropout_depends_on_seed_step_and_window_alone():
    def gradients(seed: int, step: int) -> torch.Tensor:
        parallel = DataParallel(tiny_gpt(residual_dropout=0.5), cpu(), 4, seed)
        parallel.backward(batch_of(4), 0, step)
        return parallel.parameters.gradients

    assert torch.equal(gradients(1, 2), gradients(1, 2))
    assert not torch.equal(gradients(1, 2), gradients(1, 3))
    assert not torch.equal(gradients(1, 2), gradients(2, 2))


def test_replicas_that_read_the_same_draw_different_masks():
    model = tiny_gpt(residual_dropout=0.5)
    parallel = DataParallel(model, cpu(), 2, seed=1)
    batch = batch_of(1)
    parallel.backward(Batch(*(np.concatenate((r, r)) for r in batch)), 0, step=0)
    one, other = (c.gradients for c in parallel.replicas)
    assert not torch.equal(one, other)


def test_the_score_is_that_of_one_model():
    model = tiny_gpt(initialization_std=0.3)
    windows = exact_windows(len(TOKENS), 8)
    expected = score(model, TOKENS, windows, "exact")
    found = DataParallel(model, cpu(3), 4, 0).score(TOKENS, windows, "exact")
    assert found.targets == expected.targets == len(TOKENS) - 1
    assert found.nats == pytest.approx(expected.nats, rel=1e-6)
    assert found.squares == pytest.approx(expected.squares, rel=1e-6)
    assert (found.counts == expected.counts).all()


@pytest.fixture(params=[ProcessPool, ThreadPool])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_parallel, "make_pool", request.param)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_workers_compute_what_the_replicas_do_one_after_the_other(precision: str):
    windows = exact_windows(len(TOKENS), 8)
    found = []
    for running in (False, True):
        parallel = DataParallel(tiny_gpt(residual_dropout=0.5), cpu(3, precision), 7, seed=1)
        with parallel.running() if running else nullcontext():
            loss = parallel.backward(batch_of(7), 0, step=0)
            parallel.parameters.master.mul_(0.5)
            parallel.refresh()  # the workers see it
            loss += parallel.backward(batch_of(7), 4, step=1)
            found.append((loss, parallel.parameters.gradients, parallel.score(TOKENS, windows, "")))
    (loss, gradients, score_alone), (loss_at_work, gradients_at_work, score_at_work) = found
    assert loss == loss_at_work
    assert torch.equal(gradients, gradients_at_work)
    assert score_alone.nats == score_at_work.nats


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize(
    ("short_of_memory", "error"), list(zip([0, 1, 1], ERRORS.values())), ids=ERRORS
)
def test_a_worker_out_of_memory_halves_the_windows_of_all(short_of_memory: int, error: Exception):
    model, batch = tiny_gpt(initialization_std=0.2), batch_of(7)
    whole, halved = (DataParallel(copy.deepcopy(model), cpu(2), 7, seed=1) for _ in range(2))
    expected = whole.backward(batch, 0, step=0)
    Full(halved.replicas[short_of_memory].model, 3, error)
    with halved.running():
        for _ in range(2):
            found = halved.backward(batch, 0, step=0)
            assert found == pytest.approx(expected, rel=1e-5)
            torch.testing.assert_close(
                halved.parameters.gradients, whole.parameters.gradients, rtol=1e-4, atol=1e-6
            )
    assert halved.fitting_windows == 4, "two for each"


@pytest.mark.usefixtures("pool")
def test_torchs_own_threads_rest_while_the_workers_run():
    before = torch.get_num_threads()
    parallel = DataParallel(tiny_gpt(), cpu(2), 2, 0)
    count = parallel.task(lambda *_: torch.get_num_threads())
    with parallel.running():
        assert count([0, 1]) == [1, 1]
    assert torch.get_num_threads() == before


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted as Linux does")
def test_a_step_finds_the_memory_that_the_one_before_it_freed():
    import resource

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    batch = Batch(*(np.tile(rows, (32, 1)) for rows in batch_of(8)))
    parallel = DataParallel(tiny_gpt(d_model=64, n_layers=2), cpu(1), 256, 0)
    parallel.replicas[0].backward.max_bytes = 0  # a replay allocates nothing
    with parallel.running():
        counts = [faults()]
        for step in range(13):
            parallel.backward(batch, 0, step)
            counts.append(faults())
        # Pages of 4 kB: the first step takes 10,000, and each that gives its memory back 2,000.
        # Now and then the heap still grows by a piece; how large a piece, the system says.
        assert np.median(np.diff(counts[4:])) < 1000
        held = memory_in_use()
    assert memory_in_use() < held - 25e6, "at the end it is given back"


@pytest.mark.usefixtures("pool")
def test_an_error_in_a_worker_reaches_the_caller_and_the_workers_go_on():
    parallel = DataParallel(tiny_gpt(), cpu(2), 2, 0)
    divide = parallel.task(lambda _, item: 1 / item)
    with parallel.running():
        for items in ([1, 0], [0, 1]):
            with pytest.raises(ZeroDivisionError):
                divide(items)
        assert divide([1, 2]) == [1, 0.5]


def test_a_batch_without_targets_teaches_nothing():
    parallel = DataParallel(tiny_gpt(), cpu(), 2, 0)
    inputs, targets = batch_of(2)
    parallel.parameters.gradients.fill_(1)
    assert parallel.backward(Batch(inputs, 0 * targets + IGNORED), 0, 0) == (0, 0)
    assert not parallel.parameters.gradients.any()
