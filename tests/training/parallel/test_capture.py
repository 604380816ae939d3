"""What is replayed is what autograd computes, to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from folio.device import Device, DeviceConfig
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.recipe.presets import FAMILIES
from folio.recipe.recipe import make_recipe
from folio.tokens.ignored import IGNORED
from folio.training.parallel.capture import CapturedStep
from folio.training.parallel.data_parallel import DataParallel
from tests.conftest import INT8

SHAPES = {
    "gpt2": FAMILIES["gpt2"]["model"],
    "modern": FAMILIES["modern"]["model"],
    "untied, grouped, norms at both ends": {
        "tied_head": False,
        "n_kv_heads": 1,
        "norm_placement": "both",
        "activation": "relu2",
        "positions": "sinusoidal",
    },
}


def config_of(shape: str) -> ModelConfig:
    size = {
        "vocab_size": 30,
        "n_layers": 2,
        "n_heads": 2,
        "d_model": 64,
        "context_length": 130,  # three blocks of queries
        "embedding_dropout": 0.1,
        "residual_dropout": 0.2,
        "attention_dropout": 0.3,
    }
    return make_recipe({"model": {**size, **SHAPES[shape]}}).model


def batch(n_windows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.randint(30, (n_windows, 131), generator=torch.Generator().manual_seed(seed))
    targets = ids[:, 1:].clone()
    targets[-1, seed * 20 :] = IGNORED  # as many as the seed says
    return ids[:, :-1].contiguous(), targets, 1 / (targets != IGNORED).sum()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", INT8])
def test_a_replayed_step_gives_the_bytes_that_autograd_gives(shape: str, precision: str):
    device = Device(DeviceConfig(kind="cpu", precision=precision, threads=1), "test")  # type: ignore[arg-type]
    model = GPT(config_of(shape), torch.Generator().manual_seed(1))
    parallel = DataParallel(model, device, 4, seed=1)
    (replica,) = parallel.replicas
    for seed in (1, 2):  # captured, then replayed
        for n_windows in (4, 3):
            given = batch(n_windows, seed)
            replica.generator.manual_seed(seed)
            loss = replica.backward(*given).clone()
            replayed = replica.gradients.clone()
            after = replica.generator.get_state()

            replica.generator.manual_seed(seed)
            assert torch.equal(replica.backward.function(*given), loss)
            assert torch.equal(replica.gradients, replayed)
            assert torch.equal(replica.generator.get_state(), after)
        parallel.parameters.master.mul_(1.1)  # a replay reads the weights as they are
        parallel.refresh()
    assert [g.capture.can_replay for g in replica.backward.graphs.values()] == [True, True]


def counted(compute: Callable[[Tensor], Tensor]) -> tuple[CapturedStep, list[None]]:
    calls: list[None] = []

    def function(x: Tensor) -> Tensor:
        calls.append(None)
        return compute(x)

    return CapturedStep(function, max_bytes=1000), calls


def test_a_function_is_called_once_for_each_shape_until_it_is_reset():
    captured, calls = counted(lambda x: x + 1)
    assert [captured(torch.tensor([x])).item() for x in (1.0, 2.0, 3.0)] == [2, 3, 4]
    assert captured(torch.ones(2)).tolist() == [2, 2]
    assert len(calls) == 2
    captured.reset()
    captured(torch.ones(2))
    assert len(calls) == 3


def branch(x: Tensor) -> Tensor:
    return x + 1 if x.sum() > 0 else x - 1


def rows_above(x: Tensor) -> Tensor:
    return x[x > 0]


@pytest.mark.parametrize(
    "compute", [branch, rows_above, lambda x: (x[:, None] + torch.ones(1000)).mean(1)]
)
def test_what_looks_at_numbers_or_takes_much_memory_is_computed_each_time(
    compute: Callable[[Tensor], Tensor],
):
    captured, calls = counted(compute)
    for x in (torch.tensor([1.0, -2.0, 3.0]), torch.tensor([-1.0, -2.0, 0.0])):
        assert torch.equal(captured(x), compute(x))
    assert len(calls) == 2


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x.sort().values,  # two results
        lambda x: torch.stack([x, 2 * x]).flatten(),
        lambda x: x.to(torch.float64).clone(),
        lambda x: torch.zeros(3).add_(x).cumsum(0),
        lambda x: x.view(3, 1).expand(3, 2).reshape(-1),
        lambda x: nn.functional.cross_entropy(x[None], torch.tensor([1])),
        lambda x: x + 1 - torch.tensor([1.0, 2.0, 3.0]) - torch.from_numpy(np.arange(3)),
    ],
)
def test_all_kinds_of_operations_are_replayed(compute: Callable[[Tensor], Tensor]):
    captured, calls = counted(compute)
    for seed in range(3):
        x = torch.randn(3, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(captured(x), compute(x))
    assert len(calls) == 1


def test_an_error_during_a_capture_leaves_no_graph():
    captured, _ = counted(lambda x: x @ x)
    with pytest.raises(RuntimeError):
        captured(torch.ones(2, 3))
    assert not captured.graphs
    assert captured(torch.ones(3)).item() == 3
