"""Processes that divide an optimizer: no bit of a weight tells that they did."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from folio.config import merge
from folio.errors import UserError
from folio.recipe.recipe import make_recipe
from folio.recipe.together import Gathered
from folio.training import optimizers
from folio.training.config import TrainingConfig
from folio.training.distributed import Processes
from folio.training.loop import train
from folio.training.low_rank import load_model_tensors, merged
from folio.training.optimizers import OPTIMIZERS, Optimizer, Rule
from folio.training.parts import Training
from folio.training.sharded_optimizer import ShardedOptimizer
from folio.training.state import TrainingState
from folio.workers import forks
from tests.training.test_distributed import distribute, outcome, together, training_of
from tests.training.test_loop import Listener

pytestmark = pytest.mark.skipif(not forks(), reason="processes are forked here")
PLAIN = {"preset": "modern", "device": {"fast": "off"}}
KINDS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": {"kind": "adamw"}},
    "sgd": {"optimizer": {"kind": "sgd"}},
    "muon": {"optimizer": {"kind": "muon"}},
    "bfloat16": {"device": {"precision": "bfloat16"}, "optimizer": {"kind": "muon"}},
}
SHARDING = {"training": {"sharding": "optimizer"}}


def settings(kind: str, *more: dict[str, Any]) -> dict[str, Any]:
    return merge(PLAIN, KINDS[kind], *more)


@contextmanager
def state_of(training: Training) -> Generator[dict[str, Tensor]]:
    """What a checkpoint gets of the optimizer; in the first process."""
    optimizer = training.step.optimizer
    is_sharded = isinstance(optimizer, ShardedOptimizer)
    with optimizer.gathered() if is_sharded else nullcontext():
        yield optimizer.tensors


def trained(group: Processes, changes: dict[str, Any], **how: Any) -> tuple[Any, ...]:
    """Weights, losses and evaluations, then the state of the optimizer where it is whole."""
    training, listener = training_of(group, **changes), Listener()
    train(distribute(training, group)[0], TrainingState(), listener)
    with state_of(training) as tensors:
        state = {name: x.clone() for name, x in tensors.items()} if group.rank == 0 else {}
    return *outcome(training, listener), state


@pytest.mark.parametrize(("kind", "n"), [("adamw", 3), ("sgd", 2), ("muon", 3), ("bfloat16", 2)])
def test_weights_losses_and_the_gathered_state_are_those_of_an_undivided_group_to_the_bit(
    kind: str, n: int, tmp_path: Path
):
    def work(group: Processes) -> Any:
        return trained(group, settings(kind)), trained(group, settings(kind, SHARDING))

    ((*whole, state), (*divided, gathered)), *others = together(n, tmp_path, work)
    assert divided == whole
    assert all(theirs[:3] == tuple(whole) for _, theirs in others)
    assert gathered.keys() == state.keys()
    for name, tensor in state.items():
        assert gathered[name].equal(tensor), name


def goes_on(
    group: Processes | None, changes: dict[str, Any], saved: tuple[Any, Any, TrainingState]
) -> Any:
    weights, state, at = saved
    training, listener = training_of(group, **changes), Listener()
    load_model_tensors(training.model, weights)
    training.step.optimizer.load(state)
    going = distribute(training, group)[0] if group else training
    train(going, TrainingState(step=at.step, place=at.place), listener)
    return outcome(training, listener)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_what_two_began_one_and_three_go_on_with_as_if_nothing_had_been_divided(
    kind: str, tmp_path: Path
):
    shorter = {"training": {"max_steps": 3}}

    def begin(group: Processes) -> Any:
        training, state = training_of(group, **settings(kind, SHARDING, shorter)), TrainingState()
        train(distribute(training, group)[0], state, Listener())
        with state_of(training) as tensors:
            saved = {name: x.clone() for name, x in tensors.items()} if not group.rank else {}
        return {n: x.clone() for n, x in merged(training.model).items()}, saved, state

    saved, _ = together(2, tmp_path, begin)

    def work(group: Processes) -> Any:
        divided, whole = settings(kind, SHARDING), settings(kind)
        return goes_on(group, divided, saved) == goes_on(group, whole, saved)

    (tmp_path / "three").mkdir()
    assert together(3, tmp_path / "three", work) == [True] * 3
    assert goes_on(None, settings(kind, SHARDING), saved) == goes_on(None, settings(kind), saved)


@pytest.mark.parametrize(("kind", "n"), [("adamw", 3), ("muon", 2)])
def test_each_process_has_its_share_of_the_state_in_bytes(kind: str, n: int, tmp_path: Path):
    changes = settings(kind, SHARDING, {"model": {"n_layers": 2, "d_model": 32}})

    def work(group: Processes) -> int:
        optimizer = training_of(group, **changes).step.optimizer
        assert isinstance(optimizer, ShardedOptimizer)
        assert not any(x.is_meta for x in optimizer.state.values())
        return sum(x.untyped_storage().nbytes() for x in optimizer.state.values())

    found = together(n, tmp_path, work)
    whole = training_of(None, **changes).step.optimizer
    assert isinstance(whole, Optimizer)
    total = sum(x.nbytes for x in whole.tensors.values())
    # Whole matrices do not come out even: half of one more, at most.
    assert total <= sum(found) <= total + 100
    assert max(found) <= total / n * (1.01 if kind == "adamw" else 1.1)


def test_a_step_that_would_not_be_finite_in_one_process_changes_no_weight_in_any(tmp_path: Path):
    def work(group: Processes) -> Any:
        training = training_of(group, **settings("muon", SHARDING))
        optimizer = training.step.optimizer
        assert isinstance(optimizer, ShardedOptimizer)
        before = torch.cat([p.detach().flatten() for p in training.model.parameters()])
        for p in training.model.parameters():
            p.grad = torch.ones_like(p)
        if group.rank == 1:
            shard = optimizer.exchange.placed[1][0][1]  # type: ignore[attr-defined]
            first = optimizer.exchange.placed[1][0][0]  # type: ignore[attr-defined]
            first.grad.view(-1)[shard.start] = float("nan")
        with pytest.raises(FloatingPointError):
            optimizer.step(1.0)
        after = torch.cat([p.detach().flatten() for p in training.model.parameters()])
        return after.equal(before), all(x.isfinite().all() for x in optimizer.state.values())

    assert together(2, tmp_path, work) == [(True, True)] * 2


class Pulling(Rule):
    """Moves all weights by the mean of all gradients, which no part of them has."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.state = {"sum": [torch.ones(5)]}

    def step(self, lr_scale: float) -> None:
        mean = torch.stack([optimizers.gradient_of(p).mean() for p in self.parameters]).mean()
        self.state["sum"][0] += mean
        for p in self.parameters:
            p -= lr_scale * 0.01 * mean


def test_a_rule_that_looks_at_all_gradients_sees_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(OPTIMIZERS, "pulling", Pulling)
    changes = merge(PLAIN, {"optimizer": {"kind": "pulling"}})

    def work(group: Processes) -> Any:
        return trained(group, changes), trained(group, merge(changes, SHARDING))

    ((*whole, state), (*divided, gathered)), _ = together(2, tmp_path, work)
    assert divided == whole
    assert gathered.keys() == state.keys() == {"hidden.sum", "embedding.sum", "vector.sum"}
    assert all(gathered[name].equal(x) for name, x in state.items())


def test_before_training_the_whole_state_is_that_of_a_new_optimizer(tmp_path: Path):
    def work(group: Processes) -> Any:
        training = training_of(group, **settings("muon", SHARDING))
        return {name: x.clone() for name, x in training.step.optimizer.tensors.items()}

    expected = training_of(None, **settings("muon")).step.optimizer.tensors
    for found in together(2, tmp_path, work):
        assert {name: x.tolist() for name, x in found.items()} == {
            name: x.tolist() for name, x in expected.items()
        }


def test_where_a_process_is_gone_nothing_is_saved_since_its_part_is_gone_too(tmp_path: Path):
    def work(group: Processes) -> Any:
        training, listener = training_of(group, **settings("adamw", SHARDING)), Listener()
        parts = training.step.optimizer
        assert isinstance(parts, ShardedOptimizer)
        observer = Gathered(listener, parts, group)
        observer.save(TrainingState(step=1))
        group.is_broken = True
        observer.save(TrainingState(step=2))
        return listener.saves

    assert together(2, tmp_path, work) == [[1], [1]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": {"fast": "on"}}, "--device.fast off"),
        ({"start": {"run": "a", "lora": 4}, "optimizer": {"kind": "adamw"}}, "start.lora"),
    ],
)
def test_the_fast_step_and_low_rank_corrections_are_not_divided(
    changes: dict[str, Any], words: str
):
    with pytest.raises(UserError, match=words):
        make_recipe(merge(SHARDING, changes))


def test_a_page_needs_the_model_that_no_process_has():
    with pytest.raises(UserError, match=r"training\.page"):
        TrainingConfig(sharding="full", page=True)
