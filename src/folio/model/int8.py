"""Products of whole numbers in place of bfloat16, twice as fast on processors that have them.

A training step makes three products of each matrix of weights. Two of them, the way forward and
the gradient of what came in, are made of bytes here: each row is divided by a scale of its own, so
that its largest number becomes 127, and rounded. The third, the gradient of the weights, adds up
over thousands of tokens, where rounding would tell, and stays in bfloat16. So do Wortsman et al.
2023 (SwitchBack), https://arxiv.org/abs/2304.13013.

Shapes:  R rows · C width of what comes in · F of what goes out
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from folio.errors import UserError
from folio.model import fused

PIECE = 1024
"""Rows at a time, so that their sums stay in the cache until they are divided."""


class Int8Linear(torch.autograd.Function):
    """x W^T + bias: (..., C), (F, C), (F,) or None -> (..., F)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(rows, weight)
        ctx.has_bias = bias is not None
        return product(rows, weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        rows, weight = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, len(weight)).contiguous()
        x_gradient = product(gradient, weight.t()).view(*gradients[0].shape[:-1], -1)
        bias_gradient = fused.sum_rows(gradient) if ctx.has_bias else None
        return x_gradient, gradient.t() @ rows, bias_gradient


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(R, C), (F, C), (F,) -> (R, F) rows @ weight.T + bias, to about 1 % of its deviation."""
    bytes_of_weight, column_scales = to_int8(weight.contiguous())
    if bias is None:
        bias = weight.new_zeros(len(weight))
    y = rows.new_empty(len(rows), len(weight))
    for part, found in zip(rows.split(PIECE), y.split(PIECE)):
        bytes_of_rows, row_scales = to_int8(part)
        sums = multiply(bytes_of_rows, bytes_of_weight)
        fused.run("from_int32", *fused.arrays(sums, row_scales, column_scales, bias, found))
    return y


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """(R, C) and (F, C) bytes -> (R, F) int32, a @ b.T."""
    sums: Tensor = torch.ops.aten._int_mm(a, b.t())
    return sums


def to_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """(R, C) -> (R, C) bytes, and the (R,) scales by which they give x back."""
    y, scales = torch.empty(x.shape, dtype=torch.int8), torch.empty(len(x))
    fused.run("to_int8", *fused.arrays(x, y, scales))
    return y, scales


def require() -> None:
    """Raises UserError where this machine cannot."""
    if not fused.numba_is_there():
        raise UserError(
            "device.precision is 'int8', whose kernels need numba, which is not installed. "
            "Install it, or give another precision."
        )
    if not is_exact():
        raise UserError(
            "device.precision is 'int8', but this processor overflows when it adds up products "
            "of bytes. Give another precision."
        )


@cache
def is_exact() -> bool:
    """Whether products of the largest bytes add up; some processors do so in 16 bits."""
    a = torch.arange(64 * 256).view(64, 256) % 255 - 127
    b = a.sign() * 127
    return torch.equal(multiply(a.to(torch.int8), b.to(torch.int8)).long(), a @ b.t())
