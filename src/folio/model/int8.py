"""Products of whole numbers in place of bfloat16, twice as fast on processors that have them.

A training step makes three products of each matrix of weights. Two of them, the way forward and
the gradient of what came in, are made of bytes here: each row is divided by a scale of its own, so
that its largest number becomes 127, and rounded. The third, the gradient of the weights, adds up
over thousands of tokens, where rounding would tell, and stays in bfloat16. So do Wortsman et al.
2023 (SwitchBack), https://arxiv.org/abs/2304.13013.

Shapes:  R rows · C width of what comes in · F of what goes out
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from folio.errors import UserError
from folio.model import fused

PIECE = 1024
"""Rows at a time, so that their sums stay in the cache until they are divided."""


class Factor(NamedTuple):
    """What rows are multiplied with."""

    matrix: Tensor
    """(C, F) bytes."""
    scales: Tensor
    """(F,) by which its columns give the numbers back."""
    no_bias: Tensor
    """(F,) zeros."""


class Int8Weight:
    """Both factors of a matrix of weights, which all products of a step share."""

    def __init__(self, weight: Tensor, new_row: Callable[[int, torch.dtype], Tensor]) -> None:
        """
        Args:
            weight: (F, C) contiguous.
            new_row: number and dtype -> zeros of that number, where all find them that learn.
        """

        def factor(columns: int) -> Factor:
            matrix = new_row(weight.numel(), torch.int8).view(weight.shape)
            return Factor(matrix, new_row(columns, torch.float32), weight.new_zeros(columns))

        n_out, n_in = weight.shape
        by_row, by_column = factor(n_out), factor(n_in)
        self.forth = by_row._replace(matrix=by_row.matrix.t())
        """(C, F): x -> x W^T."""
        self.back = by_column
        """(F, C): the gradient of that -> the gradient of x."""
        self._rows = fused.arrays(weight, by_row.matrix, by_row.scales)
        self._columns = fused.arrays(weight, by_column.matrix, by_column.scales)
        self.refresh()

    def refresh(self) -> None:
        """After the weights have changed."""
        fused.run("to_int8", *self._rows)
        fused.run("columns_to_int8", *self._columns)


class Int8Linear(torch.autograd.Function):
    """x W^T + bias: (..., C), (F, C), (F,) or None -> (..., F)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, int8_weight: Int8Weight
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(rows)
        ctx.has_bias, ctx.int8_weight = bias is not None, int8_weight
        return product(rows, int8_weight.forth, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        (rows,) = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1]).contiguous()
        x_gradient = product(gradient, ctx.int8_weight.back).view(*gradients[0].shape[:-1], -1)
        bias_gradient = fused.sum_rows(gradient) if ctx.has_bias else None
        return x_gradient, gradient.t() @ rows, bias_gradient, None


def product(rows: Tensor, factor: Factor, bias: Tensor | None = None) -> Tensor:
    """(R, C), (C, F), (F,) -> (R, F) rows @ factor + bias, to about 1 % of its deviation."""
    bias = factor.no_bias if bias is None else bias
    y = rows.new_empty(len(rows), len(bias))
    for part, found in zip(rows.split(PIECE), y.split(PIECE)):
        bytes_of_rows, row_scales = to_int8(part)
        sums = multiply(bytes_of_rows, factor.matrix)
        fused.run("from_int32", *fused.arrays(sums, row_scales, factor.scales, bias, found))
    return y


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """(R, C) and (C, F) bytes -> (R, F) int32."""
    sums: Tensor = torch.ops.aten._int_mm(a, b)
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
    return torch.equal(multiply(a.to(torch.int8), b.to(torch.int8).t()).long(), a @ b.t())
