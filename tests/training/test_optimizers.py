"""The rules written out, against torch.optim; and those of the parallel step, against them."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from folio import jit
from folio.device import Device, DeviceConfig
from folio.errors import UserError
from folio.testing import tiny_gpt
from folio.training import optimizers
from folio.training.config import OptimizerConfig
from folio.training.groups import parameter_groups
from folio.training.optimizers import OPTIMIZERS, Optimizer, matrix_heights, orthogonalize
from folio.training.parallel.data_parallel import DataParallel
from folio.training.parallel.updates import ParallelOptimizer
from tests.conftest import turn_kernels

Precision = Literal["float32", "bfloat16"]
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "adamw": [
        {"learning_rate": 0.01, "weight_decay": 0.3, "epsilon": 0.01},
        {"learning_rate": 0.01, "beta1": 0.0, "beta2": 0.0},
        {"learning_rate": 0.01, "beta1": 1 - 2e-8, "beta2": 1 - 2e-8},  # 1 in float32
    ],
    "sgd": [
        {"learning_rate": 0.01, "weight_decay": 0.3},
        {"learning_rate": 0.01, "weight_decay": 0.3, "momentum": 0.9},
    ],
    "muon": [
        {"matrix_learning_rate": 0.1, "matrix_weight_decay": 0.5},
        {"matrix_learning_rate": 0.1, "matrix_beta2": 1.0},
        {"matrix_learning_rate": 0.1, "matrix_beta2": 1 - 2e-8, "matrix_momentum": 0.0},
        {"matrix_learning_rate": 0.1, "matrix_weight_decay": 0.5, "cautious_decay": False},
    ],
}
"""Of each entry of OPTIMIZERS what is worth a comparison; one that is not here has its defaults."""
CASES = [(kind, settings) for kind in OPTIMIZERS for settings in SETTINGS.get(kind, [{}])]
every_case = pytest.mark.parametrize(
    ("kind", "settings"), CASES, ids=[f"{k}-{i}" for i, (k, _) in enumerate(CASES)]
)
every_kind = pytest.mark.parametrize("kind", OPTIMIZERS)


def plain(kind: str, **settings: Any) -> tuple[nn.Module, Optimizer]:
    model = tiny_gpt(initialization_std=0.3)
    return model, Optimizer(config_of(kind, **settings), model)


def config_of(kind: str, **settings: Any) -> OptimizerConfig:
    return OptimizerConfig(kind=kind, **settings)  # type: ignore[arg-type]


def draw_gradients(model: nn.Module, seed: int, scale: float = 1.0) -> None:
    draw = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        gradient = scale * torch.randn(p.shape, generator=draw)
        p.grad = gradient if p.grad is None else p.grad.copy_(gradient)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def torchs_own(config: OptimizerConfig, model: nn.Module) -> list[torch.optim.Optimizer]:
    """The same by torch.optim; vectors do not decay."""
    named = parameter_groups(model)
    hidden = list(named["hidden"].values())
    tables, vectors = (list(named[group].values()) for group in ("embedding", "vector"))
    spared = {"params": vectors, "weight_decay": 0.0}
    decayed = {"params": tables, "weight_decay": config.weight_decay}
    if config.kind != "muon":
        decayed["params"] = tables + hidden
    if config.kind == "sgd":
        return [torch.optim.SGD([decayed, spared], config.learning_rate, config.momentum)]
    betas = config.beta1, config.beta2
    adamw = torch.optim.AdamW([decayed, spared], config.learning_rate, betas, config.epsilon)
    if config.kind == "adamw":
        return [adamw]
    muon = torch.optim.Muon(
        hidden, config.matrix_learning_rate, config.matrix_weight_decay, config.matrix_momentum
    )
    return [adamw, muon]


@every_case
def test_a_rule_moves_the_weights_as_torchs_own_does(
    kind: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    if kind == "muon":
        # torch has one polynomial for all iterations, divides by the root of the sum of squares,
        # and knows neither NorMuon, cautious decay, nor three matrices in one parameter.
        for name in ("SQUARE_POLYNOMIALS", "LONG_POLYNOMIALS"):
            monkeypatch.setattr(optimizers, name, 5 * [(3.4445, -4.7750, 2.0315)])
        monkeypatch.setattr(optimizers, "largest_singular_value", lambda s: s.trace().sqrt())
        whole = lambda _, parameters: [(len(p),) for p in parameters]  # noqa: E731
        monkeypatch.setattr(optimizers, "matrix_heights", whole)
        settings = settings | {"matrix_beta2": 1.0, "cautious_decay": False}
    (ours, optimizer), (theirs, _) = plain(kind, **settings), plain(kind)
    config = config_of(kind, **settings)
    reference = torchs_own(config, theirs)
    rates = [[group["lr"] for group in each.param_groups] for each in reference]
    for step in range(4):
        share = 1 - step / 10
        for model in (ours, theirs):
            draw_gradients(model, step)
        optimizer.step(share)
        for each, peaks in zip(reference, rates):
            for group, peak in zip(each.param_groups, peaks):
                group["lr"] = share * peak
            each.step()
    if kind == "muon":  # torch iterates in bfloat16
        assert (flat(ours) - flat(theirs)).norm() < 0.01 * flat(theirs).norm()
    else:
        torch.testing.assert_close(flat(ours), flat(theirs), rtol=1e-5, atol=1e-6)


def test_a_momentum_of_muon_that_float32_takes_for_1_is_refused():
    with pytest.raises(UserError, match=r"matrix_momentum must be 0 to 0\.99999, got 0\.99999998"):
        config_of("muon", matrix_momentum=1 - 2e-8)
    assert config_of("muon", matrix_momentum=0.99999).matrix_momentum == 0.99999


@every_case
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_rule_of_the_parallel_step_moves_the_weights_as_the_plain_one_does(
    kind: str, settings: dict[str, Any], precision: Precision, monkeypatch: pytest.MonkeyPatch
):
    if not jit.available():
        pytest.skip("the parallel step needs kernels")
    turn_kernels(monkeypatch, on=True)
    ours, theirs = (tiny_gpt(initialization_std=0.3) for _ in range(2))
    device = Device(DeviceConfig(kind="cpu", precision=precision, threads=2), "test")
    config = config_of(kind, **settings)
    workers = DataParallel(ours, device, max_world_size=2, seed=0)
    parallel = ParallelOptimizer(config, ours, workers)
    optimizer = Optimizer(config, theirs)
    for step in range(3):
        for model in (ours, theirs):
            draw_gradients(model, step, scale=10.0 ** (-4 * step))
        parallel.step(1 - step / 10)
        optimizer.step(1 - step / 10)
    # Rounding lifts what has hardly any length, of which random gradients have much.
    tolerance, of_state = (0.06, 0.3) if (kind, precision) == ("muon", "bfloat16") else (3e-5, 3e-5)
    assert (flat(ours) - flat(theirs)).norm() <= tolerance * flat(theirs).norm()
    assert parallel.tensors.keys() == optimizer.tensors.keys()
    for name, other in optimizer.tensors.items():
        one = parallel.tensors[name]
        assert one.shape == other.shape
        assert (one - other).norm() <= of_state * other.norm(), name


@every_kind
def test_a_step_that_would_make_weights_infinite_leaves_them_as_they_were(kind: str):
    model, optimizer = plain(kind, learning_rate=0.1, matrix_learning_rate=0.1, momentum=0.5)
    for seed in range(2):
        draw_gradients(model, seed)
        optimizer.step(1.0)
    before = flat(model)
    for lr_scale, spoiled in ((1e39, None), (1.0, math.inf), (1.0, math.nan)):
        draw_gradients(model, 2)
        if spoiled is not None:
            gradient = next(model.parameters()).grad
            assert gradient is not None
            gradient[0, 0] = spoiled
        with pytest.raises(FloatingPointError):
            optimizer.step(lr_scale)
        assert torch.equal(flat(model), before)
        assert all(tensor.isfinite().all() for tensor in optimizer.tensors.values())
    assert all(x == 2 for name, x in optimizer.tensors.items() if name.endswith("steps"))
    draw_gradients(model, 3)
    optimizer.step(1.0)  # and from there it goes on
    assert flat(model).isfinite().all() and not torch.equal(flat(model), before)


@every_kind
def test_a_loaded_optimizer_goes_on_as_the_one_that_was_saved(kind: str):
    whole, (first, saved) = plain(kind, momentum=0.9), plain(kind, momentum=0.9)
    for seed in range(4):
        if seed == 2:
            then, loaded = plain(kind, momentum=0.9)
            loaded.load({name: x.clone() for name, x in saved.tensors.items()})
            then.load_state_dict(first.state_dict())
            first, saved = then, loaded
        for model, optimizer in (whole, (first, saved)):
            draw_gradients(model, seed)
            optimizer.step(1.0)
    assert torch.equal(flat(first), flat(whole[0]))
    tensors = saved.tensors
    name, tensor = next((n, x) for n, x in tensors.items() if x.dim())
    for others in ({}, tensors | {"hidden.other": tensor}, tensors | {name: tensor[:-1]}):
        with pytest.raises(UserError, match=r"another optimizer .* folio train"):
            saved.load(others)


@pytest.mark.parametrize("shape", [(32, 32), (96, 32), (32, 160)])
@pytest.mark.parametrize("exponent", [-110, -41, 0, 40, 120])
def test_orthogonalized_matrices_keep_their_directions_and_lose_their_lengths(
    shape: tuple[int, int], exponent: int
):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(x * 2.0**exponent)
    values = torch.linalg.svdvals(found)
    assert values.max() < 1.61 and values.median() > 0.5
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    along = torch.diagonal(u.T @ found @ vt.T).sort(descending=True)[0]
    torch.testing.assert_close(along, values, atol=1e-3, rtol=0)
    assert not orthogonalize(torch.zeros(shape)).any()


def test_every_parameter_is_in_one_group_and_queries_keys_and_values_are_three_matrices():
    model = tiny_gpt(tied_head=False)
    groups = parameter_groups(model)
    names = [name for members in groups.values() for name in members]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    for group, members in groups.items():
        for name, parameter in members.items():
            is_table = "embedding" in name or name in ("lm_head.weight", "positions.weight")
            expected = "embedding" if is_table else "hidden"
            assert group == (expected if parameter.dim() > 1 else "vector"), name
    hidden = groups["hidden"]
    heights = dict(zip(hidden, matrix_heights(model, list(hidden.values()))))
    assert heights["blocks.0.attention.qkv_proj.weight"] == (12, 12, 12)
    assert heights["blocks.0.feed_forward.up_proj.weight"] == (48,)
