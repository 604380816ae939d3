"""Layers that learn with products in int8."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from folio.errors import UserError
from folio.fast import int8
from folio.fast.layers import FastLinear as Linear
from tests.conftest import NEEDS_INT8

pytest.importorskip("numba")
pytestmark = [NEEDS_INT8, pytest.mark.usefixtures("small_ones_too")]


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


def layer_in_bytes(n_in: int, n_out: int, bias: bool = True) -> Linear:
    layer = Linear(n_in, n_out, bias=bias).bfloat16()
    layer.int8_weight = in_bytes(layer.weight.data)
    return layer


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_learns_nearly_what_it_learns_in_bfloat16(bias: bool):
    layer = Linear(96, 64, bias=bias).bfloat16()
    x, y_gradient = numbers(3, 50, 96), numbers(3, 50, 64, seed=2)
    usual = learn(layer, x, y_gradient)
    layer.int8_weight = in_bytes(layer.weight.data)
    found = learn(layer, x, y_gradient)
    assert len(found) == 3 + bias
    for product, expected in zip(found[:3], usual):
        assert 0.003 < error(product, expected) < 0.015
    for bias_gradient, expected in zip(found[3:], usual[3:]):
        assert error(bias_gradient, expected) < 0.003


@pytest.mark.parametrize("rows", [1, 50])
@pytest.mark.parametrize(("n_in", "n_out"), [(1, 64), (96, 1), (1, 1)])
def test_a_layer_with_a_side_of_one_learns_nearly_what_it_learns_in_bfloat16(
    rows: int, n_in: int, n_out: int
):
    layer = Linear(n_in, n_out).bfloat16()
    # Of one sign, since the error of a sum near zero is large beside it.
    layer.weight.data = numbers(n_out, n_in, seed=3).abs()
    x, y_gradient = numbers(rows, n_in).abs(), numbers(rows, n_out, seed=2).abs()
    usual = learn(layer, x, y_gradient)
    layer.int8_weight = in_bytes(layer.weight.data)
    for found, expected in zip(learn(layer, x, y_gradient), usual):
        assert error(found, expected) < 0.02


def test_only_what_learns_is_made_of_bytes():
    layer = Linear(96, 64).bfloat16()
    x = numbers(50, 96)
    expected = layer(x)
    layer.int8_weight = in_bytes(layer.weight.data)
    assert not torch.equal(layer(x), expected)
    assert torch.equal(layer.eval()(x), expected)


def test_a_small_row_beside_a_large_one_loses_nothing():
    layer, x, y_gradient = layer_in_bytes(96, 64, bias=False), numbers(4, 96), numbers(4, 64)
    scales = torch.tensor([2.0**-20, 1, 2.0**20, 2.0**3]).bfloat16()[:, None]
    value, x_gradient, weight_gradient = learn(layer, x, y_gradient)
    scaled = learn(layer, x * scales, y_gradient / scales)
    assert torch.equal(scaled[0], value * scales)
    assert torch.equal(scaled[1], x_gradient / scales)
    assert torch.equal(scaled[2], weight_gradient)


def test_rows_and_columns_of_zeros_give_zeros():
    layer, x, y_gradient = layer_in_bytes(96, 64, bias=False), numbers(4, 96), numbers(4, 64)
    x[1], y_gradient[2], y_gradient[:, 5] = 0, 0, 0
    value, x_gradient, weight_gradient = learn(layer, x, y_gradient)
    assert not value[1].any() and not x_gradient[2].any() and not weight_gradient[5].any()
    assert all(found.isfinite().all() for found in (value, x_gradient, weight_gradient))


def test_pieces_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch):
    layer, x, y_gradient = layer_in_bytes(96, 64), numbers(50, 96), numbers(50, 64, seed=3)
    whole = learn(layer, x, y_gradient)
    monkeypatch.setattr(int8, "PIECE", 16)
    assert all(torch.equal(*pair) for pair in zip(learn(layer, x, y_gradient), whole))


def test_the_gradient_of_weights_does_not_overflow():
    rows = 140_000  # whose products of 127 add up to more than 2^31
    x, y_gradient = (torch.ones(rows, 8).bfloat16() for _ in range(2))
    x[int8.MOST_ROWS :], y_gradient[int8.MOST_ROWS :] = -2, 4
    _, _, weight_gradient, _ = learn(layer_in_bytes(8, 8), x, y_gradient)
    expected = float(int8.MOST_ROWS - 8 * (rows - int8.MOST_ROWS))
    torch.testing.assert_close(weight_gradient, torch.full_like(weight_gradient, expected))


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so(broken: float):
    layer, x, y_gradient = layer_in_bytes(96, 64), numbers(4, 96), numbers(4, 64, seed=2)
    x[1, 7] = broken
    value = learn(layer, x, y_gradient)[0]
    assert not value[1].isfinite().any() and value[[0, 2, 3]].isfinite().all()
    x[1, 7], y_gradient[2, 9] = 0, broken
    _, x_gradient, weight_gradient, bias_gradient = learn(layer, x, y_gradient)
    assert not x_gradient[2].isfinite().any() and x_gradient[[0, 1, 3]].isfinite().all()
    others = torch.arange(64) != 9
    for found in (weight_gradient, bias_gradient):
        assert not found[9].isfinite().any() and found[others].isfinite().all()


@pytest.mark.parametrize("shape", [(64, 160), (160, 64), (64, 64)])
def test_a_square_is_made_of_bytes(shape: tuple[int, int]):
    x = numbers(*shape)
    x[3] *= 100
    x[5], x[:, 7] = 0, 0
    exact = x.float().T @ x.float() if shape[0] > shape[1] else x.float() @ x.float().T
    y = torch.empty_like(exact)
    int8.square(x, y)
    lengths = exact.diagonal().sqrt()
    assert ((y - exact).abs() <= 0.01 * lengths[:, None] * lengths).all()
    assert torch.linalg.eigvalsh(y.double()).min() > -1e-6 * y.max()


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
    monkeypatch.setenv("FOLIO_JIT", "off")
    with pytest.raises(UserError, match="need numba"):
        int8.require()
