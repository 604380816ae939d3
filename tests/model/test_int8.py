"""Layers that learn with products of bytes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from folio.errors import UserError
from folio.model import fused, int8
from folio.model.linear import Linear
from tests.conftest import NEEDS_INT8

pytest.importorskip("numba")
pytestmark = NEEDS_INT8


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "FEWEST", 1)


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def in_bytes(weight: Tensor) -> int8.Int8Weight:
    return int8.Int8Weight(weight, lambda n, dtype: torch.zeros(n, dtype=dtype))


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def learn(layer: Linear, x: Tensor, y_gradient: Tensor) -> list[Tensor]:
    """The value, and the gradients of input, weight and bias."""
    layer, x = copy.deepcopy(layer), x.clone().requires_grad_()
    y = layer(x)
    y.backward(y_gradient)
    return [y.detach(), *(p.grad for p in (x, *layer.parameters()) if p.grad is not None)]


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_learns_nearly_what_it_learns_in_bfloat16(bias: bool):
    layer = Linear(96, 64, bias=bias).bfloat16()
    x, y_gradient = numbers(3, 50, 96), numbers(3, 50, 64, seed=2)
    usual = learn(layer, x, y_gradient)
    layer.int8_weight = in_bytes(layer.weight.data)
    value, x_gradient, *own_gradients = learn(layer, x, y_gradient)
    assert 0.003 < error(value, usual[0]) < 0.015
    assert 0.003 < error(x_gradient, usual[1]) < 0.015
    assert len(own_gradients) == 1 + bias
    for found, expected in zip(own_gradients, usual[2:]):
        assert error(found, expected) < 0.005  # made of the same numbers, in bfloat16


def test_only_what_learns_is_made_of_bytes():
    layer = Linear(96, 64).bfloat16()
    x = numbers(50, 96)
    expected = layer(x)
    layer.int8_weight = in_bytes(layer.weight.data)
    assert not torch.equal(layer(x), expected)
    assert torch.equal(layer.eval()(x), expected)


def test_a_small_row_beside_a_large_one_loses_nothing():
    rows, weight = numbers(4, 96), numbers(64, 96, seed=2)
    scales = torch.tensor([2.0**-20, 1, 2.0**20, 0]).bfloat16()[:, None]
    factor = in_bytes(weight).forth
    found, alone = int8.product(rows * scales, factor), int8.product(rows, factor)
    assert torch.equal(found, alone * scales)


def test_pieces_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch):
    rows, weight, bias = numbers(50, 96), numbers(64, 96, seed=2), numbers(64, seed=3)
    factor = in_bytes(weight).forth
    whole = int8.product(rows, factor, bias)
    monkeypatch.setattr(int8, "PIECE", 16)
    assert torch.equal(int8.product(rows, factor, bias), whole)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so(broken: float):
    rows, weight = numbers(4, 96), numbers(64, 96, seed=2)
    rows[1, 7] = broken
    found = int8.product(rows, in_bytes(weight).forth)
    assert not found[1].isfinite().any()
    assert found[[0, 2, 3]].isfinite().all()


def test_a_processor_that_overflows_is_refused(monkeypatch: pytest.MonkeyPatch):
    exact = int8.multiply

    def in_16_bits(a: Tensor, b: Tensor) -> Tensor:
        return exact(a, b).clamp(-(2**15), 2**15 - 1)

    int8.require()
    int8.is_exact.cache_clear()
    monkeypatch.setattr(int8, "multiply", in_16_bits)
    with pytest.raises(UserError, match="overflows"):
        int8.require()
    int8.is_exact.cache_clear()


def test_it_takes_the_kernels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fused, "numba_is_there", lambda: False)
    with pytest.raises(UserError, match="need numba"):
        int8.require()
