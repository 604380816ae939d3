"""The sharded rules: what they do beyond the plain ones that test_optimizers.py has beside them."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from folio.device import Device, DeviceConfig
from folio.errors import UserError
from folio.testing import tiny_gpt
from folio.training.optimizers import OPTIMIZERS, SGD, Optimizer, OptimizerConfig
from folio.training.parallel import muon
from folio.training.parallel.data_parallel import DataParallel
from folio.training.parallel.muon import inverse_norms, orthogonalize
from folio.training.parallel.updates import ParallelOptimizer, UnshardedRule
from tests.conftest import INT8, NEEDS_INT8

pytest.importorskip("numba")

Precision = Literal["float32", "bfloat16", "int8"]


def parts_of(
    precision: Precision = "float32", **config: Any
) -> tuple[nn.Module, DataParallel, ParallelOptimizer]:
    model = tiny_gpt(initialization_std=0.3)
    device = Device(DeviceConfig(kind="cpu", precision=precision, threads=2), "test")
    parallel = DataParallel(model, device, max_world_size=2, seed=0)
    return model, parallel, ParallelOptimizer(OptimizerConfig(**config), model, parallel)


def moves_of(beta2: float, gradients: list[Tensor]) -> list[Tensor]:
    """What Muon does to the first matrix of a feed-forward layer, step by step."""
    model, parallel, optimizer = parts_of(
        kind="muon", matrix_beta2=beta2, matrix_weight_decay=0.0, matrix_momentum=0.0
    )
    matrix = next(p for p in model.parameters() if len(p) == 48 and p.dim() == 2)
    assert matrix.grad is not None
    moves = []
    for gradient in gradients:
        before = matrix.detach().clone()
        parallel.parameters.gradients.fill_(1.0)
        matrix.grad.copy_(gradient)
        optimizer.step(1.0)
        moves.append(before - matrix.detach())
    return moves


def test_neurons_move_as_far_as_they_did_lately_and_all_together_as_without():
    draw = torch.Generator().manual_seed(0)
    gradients = list(torch.randn(3, 48, 12, generator=draw))
    plain, scaled = moves_of(1.0, gradients), moves_of(0.9, gradients)
    mean_square = torch.zeros(48, 1)
    for move, found in zip(plain, scaled):
        mean_square = 0.9 * mean_square + 0.1 * move.square().mean(1, keepdim=True)
        expected = move / mean_square.sqrt()
        expected *= move.norm() / expected.norm()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert torch.equal(moves_of(0.9, [torch.zeros(48, 12)])[0], torch.zeros(48, 12))
    # Where nothing is remembered, all neurons move equally far.
    lengths = moves_of(0.0, gradients)[0].norm(dim=1)
    assert lengths.std() < 1e-4 * lengths.mean() < 0.01 * plain[0].norm(dim=1).std()


def test_decay_spares_the_weights_that_the_gradient_makes_larger():
    hidden = {}
    for decay, cautious in ((0.0, True), (0.3, True), (0.3, False)):
        _, parallel, optimizer = parts_of(
            kind="muon",
            matrix_learning_rate=0.1,
            matrix_weight_decay=decay,
            cautious_decay=cautious,
        )
        row = parallel.parameters.groups["hidden"]
        before = row.detach().clone()
        parallel.parameters.gradients.normal_(generator=torch.Generator().manual_seed(0))
        optimizer.step(0.5)
        hidden[decay, cautious] = row.detach()
    moved = hidden[0.0, True] - before
    decayed = before * 0.5 * 0.1 * 0.3
    shrinking = moved * before < 0
    assert 0.3 < shrinking.float().mean() < 0.7
    expected = {(0.3, True): decayed * shrinking, (0.3, False): decayed}
    for case, loss in expected.items():
        torch.testing.assert_close(hidden[0.0, True] - hidden[case], loss, rtol=1e-3, atol=1e-6)


@NEEDS_INT8
def test_muon_moves_nearly_the_same_in_int8():
    rows = []
    for precision in ("bfloat16", "int8"):
        _, parallel, optimizer = parts_of(precision, kind="muon", matrix_learning_rate=0.1)
        before = parallel.parameters.groups["hidden"].detach().clone()
        parallel.parameters.gradients.normal_(generator=torch.Generator().manual_seed(0))
        optimizer.step(1.0)
        rows.append(parallel.parameters.groups["hidden"].detach() - before)
    assert 0 < (rows[1] - rows[0]).norm() < 0.1 * rows[0].norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalized_matrices_keep_their_directions_and_lose_their_lengths(dtype: torch.dtype):
    draw = torch.Generator().manual_seed(0)
    shapes = ((3, 32, 32), (2, 96, 32), (1, 32, 160))
    stacks = [torch.randn(shape, generator=draw) for shape in shapes]
    exact = dtype == torch.float32
    square, *long = [x.to(dtype) for x in stacks]
    for matrices, found in zip(stacks, orthogonalize([square]) + orthogonalize(long)):
        assert found.dtype == dtype and found.shape == matrices.shape
        values = torch.linalg.svdvals(found.float())
        assert values.max() < (1.61 if exact else 1.75) and values.median() > 0.5
        u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
        along = torch.diagonal(u.mT @ found.float() @ vt.mT, dim1=1, dim2=2)
        along = along.sort(descending=True)[0]
        torch.testing.assert_close(along, values, atol=1e-3 if exact else 0.2, rtol=0)
    # A matrix without a gradient stays, and leaves the others as they are.
    for matrices in ([square], long):
        matrices[0][1] = 0
        found = orthogonalize(matrices)[0]
        assert found[0].any() and not found[1].any()


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e3])
def test_a_matrix_is_divided_by_hardly_more_than_its_largest_singular_value(scale: float):
    x = scale * torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))
    x[1] *= 10
    x[2] = 0
    square = x @ x.mT
    largest = torch.linalg.svdvals(x)[:, 0]
    inverse = inverse_norms(square, square @ square)
    ratios = 1 / (inverse * largest)[:2]
    assert (ratios >= 1).all() and (ratios < 1.2).all()
    assert inverse[2] == 0


@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon"])
def test_a_loaded_optimizer_goes_on_as_the_one_that_was_saved(kind: str):
    pairs = [parts_of(kind=kind, momentum=0.9) for _ in range(2)]
    for step in range(4):
        if step == 2:
            pairs[1] = parts_of(kind=kind, momentum=0.9)
            pairs[1][2].load({n: t.clone() for n, t in pairs[0][2].tensors.items()})
            pairs[1][1].parameters.master.copy_(pairs[0][1].parameters.master)
        for _, parallel, optimizer in pairs:
            parallel.parameters.gradients.normal_(generator=torch.Generator().manual_seed(step))
            optimizer.step(1.0)
    one, other = (parallel.parameters.master for _, parallel, _ in pairs)
    assert torch.equal(one, other)
    tensors = pairs[0][2].tensors
    name, tensor = next(iter(tensors.items()))
    for others in ({}, tensors | {"hidden.other": tensor}, tensors | {name: tensor[:-1]}):
        with pytest.raises(UserError, match=r"another optimizer .* folio train"):
            pairs[0][2].load(others)


@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon"])
def test_gradients_above_the_limit_are_scaled_to_it(kind: str):
    scaled, scaling = (parts_of(kind=kind, gradient_clip=0.5) for _ in range(2))
    for _, parallel, _ in (scaled, scaling):
        parallel.parameters.gradients.normal_(generator=torch.Generator().manual_seed(1))
    scaled[1].parameters.gradients.mul_(0.5 / 4)
    scaled[2].step(1.0, norm=0.4)  # below the limit, so that they stay
    scaling[2].step(1.0, norm=4.0)
    torch.testing.assert_close(scaling[1].parameters.master, scaled[1].parameters.master)
    for name, tensor in scaled[2].tensors.items():
        torch.testing.assert_close(scaling[2].tensors[name], tensor)


@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon"])
def test_the_replicas_read_the_weights_as_they_moved(kind: str):
    _, parallel, optimizer = parts_of("bfloat16", kind=kind, learning_rate=0.1)
    for replica in parallel.replicas:
        before = {name: p.detach().clone() for name, p in replica.model.named_parameters()}
        parallel.parameters.gradients.normal_(generator=torch.Generator().manual_seed(1))
        optimizer.step(1.0)
        assert torch.equal(parallel.parameters.compute, parallel.parameters.master.bfloat16())
        for name, parameter in replica.model.named_parameters():
            assert parameter.dtype == torch.bfloat16 and not torch.equal(parameter, before[name])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_replayed_muon_moves_to_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, precision: Precision
):
    found = []
    for max_bytes in (0, muon.MAX_BYTES):
        monkeypatch.setattr(muon, "MAX_BYTES", max_bytes)
        _, parallel, optimizer = parts_of(precision, kind="muon", gradient_clip=0.5)
        draw = torch.Generator().manual_seed(0)
        for step in range(4):
            parallel.parameters.gradients.normal_(generator=draw)
            optimizer.step(1 - step / 10, norm=1.0 + step)
        rows = parallel.parameters.master, parallel.parameters.compute, *optimizer.tensors.values()
        found.append([row.clone() for row in rows])
    assert all(torch.equal(one, other) for one, other in zip(*found))


def draw_matrices(kind: str, scale: float, shape: tuple[int, ...]) -> Tensor:
    """Matrices that are hard to divide by their length, of a scale."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draw)
    match kind:
        case "one row":
            x[:, 1:] = 0
        case "one number":
            x = torch.zeros(shape)
            x[:, 0, 0] = 1
        case "rank 1":
            x = x[:, :, :1] * x[:, :1, :]
        case "mixed scales":
            x *= torch.logspace(0, -30, shape[1])[:, None]
        case _:
            pass
    return x * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["random", "one row", "one number", "rank 1", "mixed scales"])
def test_orthogonalizing_a_matrix_does_not_depend_on_its_scale(kind: str, dtype: torch.dtype):
    for shape in ((2, 24, 24), (2, 16, 40), (2, 40, 16)):
        expected = orthogonalize([draw_matrices(kind, 1.0, shape).to(dtype)])[0].float()
        largest = torch.linalg.matrix_norm(expected, 2)
        assert (largest > 0.3).all() and (largest < 1.8).all()
        for exponent in (-110, -60, -41, -31, -12, 12, 40, 100, 120):
            scaled = draw_matrices(kind, 2.0**exponent, shape).to(dtype)
            found = orthogonalize([scaled])[0].float()
            tolerance = 1e-3 if dtype == torch.float32 else 0.05
            assert (found - expected).norm() <= tolerance * expected.norm(), (shape, exponent)
        for nothing in (0.0, 1e-45, 1e-39):  # what is denormal counts as 0
            found = orthogonalize([torch.full(shape, nothing).to(dtype)])[0]
            assert not found.any()


@NEEDS_INT8
def test_orthogonalizing_in_int8_does_not_depend_on_the_scale():
    x = torch.randn(2, 64, 160, generator=torch.Generator().manual_seed(0))
    expected = orthogonalize([x.bfloat16()], in_int8=True)[0]
    for exponent in (-110, -31, 40, 120):
        found = orthogonalize([(x * 2.0**exponent).bfloat16()], in_int8=True)[0]
        assert torch.equal(found, expected)
    assert not orthogonalize([torch.zeros(1, 64, 160).bfloat16()], in_int8=True)[0].any()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", INT8])
@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon"])
def test_a_step_that_would_make_weights_infinite_leaves_them_as_they_were(
    kind: str, precision: Precision
):
    rates = {"learning_rate": 0.1, "matrix_learning_rate": 0.1, "gradient_clip": 0.0}
    _, parallel, optimizer = parts_of(precision, kind=kind, momentum=0.5, **rates)
    weights, draw = parallel.parameters, torch.Generator().manual_seed(0)
    for _ in range(2):
        weights.gradients.normal_(generator=draw)
        optimizer.step(1.0)
    before = weights.master.clone(), weights.compute.clone()
    # A rate beyond all bounds, and gradients that say infinite: whatever makes the step so large.
    for share, spoiled in ((1e39, None), (1.0, math.inf), (1.0, math.nan)):
        weights.gradients.normal_(generator=draw)
        if spoiled is not None:
            weights.gradients[3] = spoiled
        with pytest.raises(FloatingPointError):
            optimizer.step(share)
        assert torch.equal(weights.master, before[0])
        assert torch.equal(weights.compute, before[1])
        assert all(tensor.isfinite().all() for tensor in optimizer.tensors.values())
    steps = [tensor for name, tensor in optimizer.tensors.items() if name.endswith("steps")]
    assert all(tensor == 2 for tensor in steps)
    weights.gradients.normal_(generator=draw)
    optimizer.step(1.0)  # and from there it goes on
    assert weights.master.isfinite().all() and not torch.equal(weights.master, before[0])


class Own(SGD):
    """No twin was written for it."""


class Careless(SGD):
    """Puts other tensors in place of weights and gradients, as textbooks do."""

    def step(self, lr_scale: float) -> None:
        super().step(lr_scale)
        for w in self.parameters:
            w.data = w.data.clone()
            w.grad = None


class Counting(SGD):
    """Keeps a number of each parameter, not of all."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.state["count"] = [torch.zeros(()) for _ in self.parameters]

    def step(self, lr_scale: float) -> None:
        for i, count in enumerate(self.state["count"]):
            count += i + 1
        super().step(lr_scale)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [Own, Careless, Counting])
def test_a_rule_without_a_twin_moves_the_weights_as_it_is_written(
    kind: type[SGD], precision: Precision, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(OPTIMIZERS, "own", kind)
    settings: dict[str, Any] = {"kind": "own", "momentum": 0.9, "learning_rate": 0.1}
    settings |= {"gradient_clip": 0.0}
    model, parallel, optimizer = parts_of(precision, **settings)
    assert all(isinstance(rule, UnshardedRule) for rule in optimizer.rules.values())
    theirs = tiny_gpt(initialization_std=0.3)
    expected = Optimizer(OptimizerConfig(**settings), theirs)
    draw = torch.Generator().manual_seed(0)
    for lr_scale in (1.0, 0.5):
        for own, other in zip(model.parameters(), theirs.parameters()):
            other.grad = torch.randn(own.shape, generator=draw)
            assert own.grad is not None
            own.grad.copy_(other.grad)
        optimizer.step(lr_scale)
        expected.step(lr_scale)
    master, compute = parallel.parameters.master, parallel.parameters.compute
    flat = torch.cat([p.detach().flatten() for p in theirs.parameters()])
    assert torch.equal(master.sort()[0], flat.sort()[0])
    assert torch.equal(compute, master.to(compute.dtype))
    for own, other in zip(model.parameters(), theirs.parameters()):
        assert torch.equal(own, other)
    assert optimizer.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert torch.equal(optimizer.tensors[name], tensor)
        if name.endswith("count"):
            assert tensor.tolist() == [2 * i + 2 for i in range(len(tensor))]
    # A step to infinity is taken back, the compute weights too.
    before = master.clone()
    parallel.parameters.gradients.fill_(1.0)
    with pytest.raises(FloatingPointError):
        optimizer.step(1e39)
    assert torch.equal(master, before) and torch.equal(compute, before.to(compute.dtype))
    loaded = parts_of(precision, **settings)[2]
    loaded.load(optimizer.tensors)
    for name, tensor in optimizer.tensors.items():
        assert torch.equal(loaded.tensors[name], tensor)


def test_an_edited_rule_is_what_moves_the_weights(monkeypatch: pytest.MonkeyPatch):
    def halved(rule: SGD, lr_scale: float) -> None:
        original(rule, lr_scale / 2)

    original = SGD.step
    monkeypatch.setattr(SGD, "step", halved)
    _, parallel, optimizer = parts_of(kind="sgd", learning_rate=0.5, weight_decay=0.0)
    before = parallel.parameters.master.clone()
    parallel.parameters.gradients.fill_(1.0)
    optimizer.step(1.0)
    torch.testing.assert_close(before - parallel.parameters.master, torch.full_like(before, 0.25))
