"""Processes that divide a model: the curve of one process, and its checkpoint."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed
from torch.profiler import ProfilerActivity, profile
from torch.testing._internal.distributed.fake_pg import FakeStore

from folio.config import merge
from folio.errors import UserError
from folio.model.gpt import GPT
from folio.recipe import build
from folio.training.distributed import Processes
from folio.training.fsdp_rows import rows_of
from folio.training.fsdp_step import FSDPStep
from folio.training.loop import train
from folio.training.low_rank import load_model_tensors, merged
from folio.training.parts import Training
from folio.training.state import TrainingState
from folio.workers import WorkerError, forks
from tests.recipe.test_memory import peak_of
from tests.training import test_distributed
from tests.training.test_distributed import training_of
from tests.training.test_loop import Listener

pytestmark = pytest.mark.skipif(not forks(), reason="processes are forked here")
FULL = {"preset": "modern", "device": {"fast": "off"}, "training": {"sharding": "full"}}
KINDS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": {"kind": "adamw"}},
    "sgd": {"optimizer": {"kind": "sgd"}, "preset": "gpt2"},
    "muon": {"optimizer": {"kind": "muon"}},
    "bfloat16": {"device": {"precision": "bfloat16"}},
    # five windows each for two processes: micro-batches of 2, 2 and 1, of which one has a filler
    "micro-batches": {"training": {"batch_size": 9, "micro_batch_size": 2}},
}


@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 9))
def test_the_rows_of_all_processes_are_those_of_torch_chunk(rows: int, width: int, n: int):
    weights = torch.arange(rows * width).view(rows, width)
    chunks = [chunk.flatten().tolist() for chunk in weights.chunk(n)]
    chunks += [[]] * (n - len(chunks))
    found = [slice(*rows_of(weights.shape, rank, n)) for rank in range(n)]
    assert [weights.view(-1)[each].tolist() for each in found] == chunks


def together(n: int, folder: Path, work: Callable[[Processes], Any]) -> list[Any]:
    """The answers of n processes. A fork must not inherit what is left of an earlier group: to free
    that it would wait for threads which only its parent has.
    """
    import_module("torch.distributed.fsdp")  # once, not in each of them
    gc.collect()
    return test_distributed.together(n, folder, work)


def saved(training: Training) -> tuple[dict[str, Any], ...]:
    """What a checkpoint has of weights and optimizer."""
    tensors = merged(training.model), training.step.optimizer.tensors
    return tuple({name: x.numpy().copy() for name, x in some.items()} for some in tensors)


def step_of(training: Training) -> FSDPStep:
    assert isinstance(training.step, FSDPStep)
    return training.step


def run(group: Processes, changes: dict[str, Any], state: TrainingState, last: int = 100) -> Any:
    """Losses and evaluations; and where they are gathered, weights and optimizer."""
    training, listener = training_of(group, **changes), Listener()
    train(training, state, listener, lambda: state.step >= last)
    with step_of(training).gathered():
        tensors = saved(training) if group.rank == 0 else None
    return losses_of(listener), tensors


def losses_of(listener: Listener) -> Any:
    evaluations = [(e.validation_loss, e.standard_error) for _, e in listener.evaluations]
    return listener.losses, np.ravel(evaluations).tolist()


@pytest.mark.parametrize(
    ("kind", "n"), [("adamw", 3), ("sgd", 2), ("muon", 3), ("bfloat16", 2), ("micro-batches", 2)]
)
def test_losses_weights_and_state_are_those_of_one_process(kind: str, n: int, tmp_path: Path):
    changes, listener = merge(FULL, KINDS[kind]), Listener()
    alone = training_of(None, **changes)
    train(alone, TrainingState(), listener)

    def work(group: Processes) -> Any:
        return run(group, changes, TrainingState())

    (losses, tensors), *others = together(n, tmp_path, work)
    assert all(theirs == losses for theirs, _ in others)
    rel = 1e-2 if kind == "bfloat16" else 1e-4
    for found, expected in zip(losses, losses_of(listener)):
        assert found == pytest.approx(expected, rel=rel)
    for found, expected in zip(tensors, saved(alone)):
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            apart = np.abs(found[name] - values).max() / np.abs(values).max()
            # Muon makes more of what rounds off, and squares twice as much.
            assert apart <= (0.3 if kind == "bfloat16" else 1e-3), name


def test_a_layer_of_own_code_that_is_frozen_stays_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def partly_frozen(*given: Any) -> GPT:
        model = GPT(*given)
        model.final_norm.requires_grad_(False)
        return model

    monkeypatch.setattr(build, "GPT", partly_frozen)
    changes, listener = merge(FULL, KINDS["adamw"]), Listener()
    train(training_of(None, **changes), TrainingState(), listener)
    (losses, (weights, _)), _ = together(2, tmp_path, lambda g: run(g, changes, TrainingState()))
    assert losses[0] == pytest.approx(listener.losses, rel=1e-4)
    assert (weights["final_norm.weight"] == 1).all()


def test_what_two_began_one_process_and_three_go_on_with(tmp_path: Path):
    changes, listener, state = merge(FULL, KINDS["muon"]), Listener(), TrainingState()
    train(training_of(None, **changes), TrainingState(), listener)
    expected = listener.losses[3:]
    begun = together(2, tmp_path, lambda group: (run(group, changes, state, 3), state))
    ((_, tensors), at), _ = begun
    weights, optimizer = ({n: torch.from_numpy(x) for n, x in some.items()} for some in tensors)

    def go_on(group: Processes | None) -> list[float]:
        training, own = training_of(group, **changes), Listener()
        load_model_tensors(training.model, weights)
        training.step.optimizer.load(optimizer)
        train(training, TrainingState(step=at.step, place=at.place), own)
        return own.losses

    assert go_on(None) == pytest.approx(expected, rel=1e-4)
    (tmp_path / "three").mkdir()
    for losses in together(3, tmp_path / "three", go_on):
        assert losses == pytest.approx(expected, rel=1e-4)


def test_each_process_has_its_share_of_weights_gradients_and_state_in_bytes(tmp_path: Path):
    changes = merge(FULL, KINDS["adamw"], {"model": {"n_layers": 2, "d_model": 32}})

    def work(group: Processes) -> Any:
        training = training_of(group, **changes)
        step = step_of(training)
        train(training, TrainingState(), Listener())
        own = [p.to_local() for p in step.parameters]  # type: ignore[attr-defined]
        gradients = [p.grad.to_local() for p in step.parameters]  # type: ignore[union-attr]
        held = *own, *gradients, *step.optimizer.state.values()
        is_divided = all(p is q for p, q in zip(step.parameters, step.compute.parameters()))
        assert is_divided, "a layer is whole beyond the step"
        return sum(x.nbytes for x in held), next(training.model.parameters()).is_meta

    n_bytes, is_freed = zip(*together(3, tmp_path, work))
    total = 4 * 4 * sum(p.numel() for p in training_of(None, **changes).model.parameters())
    assert sum(n_bytes) == pytest.approx(total, rel=0.001)  # and counts of steps
    assert max(n_bytes) <= total / 3 * 1.1  # the first ones have a row more
    assert is_freed == (False, True, True)


@pytest.mark.parametrize("positions", ["rope", "sinusoidal"])
def test_all_begin_with_the_weights_and_tables_of_one_process_to_the_bit(
    positions: str, tmp_path: Path
):
    changes = merge(FULL, {"model": {"positions": positions, "tied_head": True, "n_layers": 2}})
    alone = training_of(None, **changes).model

    def work(group: Processes) -> Any:
        training = training_of(group, **changes)
        is_there = [not p.is_meta for p in training.model.parameters()]
        step = step_of(training)
        step.refresh()
        weights = [p.full_tensor().detach().numpy() for p in step.parameters]  # type: ignore[attr-defined]
        return is_there, weights, [x.numpy() for x in step.compute.buffers()]

    for rank, (is_there, weights, tables) in enumerate(together(3, tmp_path, work)):
        assert set(is_there) == {rank == 0}
        for found, expected in zip(weights, alone.parameters(), strict=True):
            assert np.array_equal(found, expected.detach().numpy())
        for found, expected in zip(tables, alone.buffers(), strict=True):
            assert np.array_equal(found, expected.numpy())
        assert tables


@pytest.mark.parametrize(("rank", "most"), [(0, 4 * 1.1), (1, 0.5)])
def test_only_the_first_process_ever_has_the_whole_model(rank: int, most: float):
    """Of 64 processes each has 16 / 64 bytes a weight, with AdamW and before its first gradient."""
    shape = {"n_layers": 8, "d_model": 64, "vocab_size": 256}
    changes = merge(FULL, KINDS["adamw"], {"model": shape})
    distributed.init_process_group("fake", rank=rank, world_size=64, store=FakeStore())
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            training = training_of(Processes(rank, 64, FakeStore()), **changes)
            training.step.refresh()
    finally:
        distributed.destroy_process_group()
    n_weights = sum(p.numel() for p in training.model.parameters())
    own = 16 / 64 if rank == 0 else 0
    assert peak_of(found) < (most + own) * n_weights


def test_a_step_that_would_not_be_finite_changes_no_weight(tmp_path: Path):
    changes = merge(FULL, KINDS["muon"])

    def work(group: Processes) -> Any:
        training = training_of(group, **changes)
        step = step_of(training)
        step.refresh()
        before = [p.to_local().clone() for p in step.parameters]  # type: ignore[attr-defined]
        batch = training.stream.next_batch(6, 8)
        norm = step.backward(batch, 0).norm
        with pytest.raises(FloatingPointError):
            step.update(1e38, norm)
        return all(
            p.to_local().equal(old)  # type: ignore[attr-defined]
            for p, old in zip(step.parameters, before)
        )

    assert together(2, tmp_path, work) == [True, True]


def test_all_stop_after_the_same_step_where_one_is_asked_to(tmp_path: Path):
    def work(group: Processes) -> Any:
        training, state, listener = training_of(group, **FULL), TrainingState(), Listener()
        step = step_of(training)
        step.should_stop = lambda: group.rank == 1 and state.step == 3
        ending = train(training, state, listener, lambda: step.stopping)
        return ending, state.step, listener.saves

    assert together(2, tmp_path, work) == [("interrupted", 4, [3, 4])] * 2


def test_all_save_after_the_same_step_where_the_clock_of_one_says_so(tmp_path: Path):
    def work(group: Processes) -> Any:
        training, state, listener = training_of(group, **FULL), TrainingState(), Listener()
        step = step_of(training)
        step.should_save = lambda: group.rank == 1 and state.step == 3
        train(training, state, listener, should_save=lambda: step.saving)
        return listener.saves

    assert together(2, tmp_path, work) == [[3, 4, 6]] * 2


def test_a_process_that_dies_within_a_block_is_named(tmp_path: Path):
    def work(group: Processes) -> None:
        training, state = training_of(group, **FULL), TrainingState()
        step = step_of(training)
        usual = step.loss

        def dies(*args: Any) -> torch.Tensor:
            if group.rank == 1 and state.step == 2:
                os._exit(9)
            return usual(*args)

        step.loss = dies
        with pytest.raises(WorkerError, match=r"Process 1 of the 2 .* torchrun"):
            train(training, state, Listener())
        told.append(group.is_broken)

    with pytest.raises(WorkerError, match="ended with status 9"):  # of the pool, for its part
        together(2, tmp_path, work)
    assert told == [True]


told: list[bool] = []


def test_float16_is_refused(tmp_path: Path):
    def work(group: Processes) -> str:
        with pytest.raises(UserError, match="float16"):
            training_of(group, **merge(FULL, {"device": {"precision": "float16"}}))
        distributed.barrier()  # whoever leaves while another still connects is an error there
        return "told"

    assert together(2, tmp_path, work) == ["told", "told"]


def test_a_parameter_that_takes_no_part_in_the_loss_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def with_a_spare(*given: Any) -> GPT:
        model = GPT(*given)
        model.blocks[0].register_parameter("spare", torch.nn.Parameter(torch.zeros(4)))
        return model

    monkeypatch.setattr(build, "GPT", with_a_spare)

    def work(group: Processes) -> str:
        with pytest.raises(UserError, match=r"but blocks\.0\.spare did not"):
            train(training_of(group, **FULL), TrainingState(), Listener())
        distributed.barrier()
        return "told"

    assert together(2, tmp_path, work) == ["told", "told"]


def test_a_tied_head_stays_tied(tmp_path: Path):
    def work(group: Processes) -> bool:
        training = training_of(group, **merge(FULL, {"model": {"tied_head": True}}))
        train(training, TrainingState(), Listener())
        model: Any = step_of(training).compute
        return model.lm_head.weight is model.token_embedding.weight

    assert together(2, tmp_path, work) == [True, True]
