"""Matmuls in int8 instead of bfloat16, twice as fast on CPUs that have such instructions.

A training step makes three products of each matrix of weights, all of bytes here: numbers are
divided by a scale, so that the largest that share it becomes 127, and rounded. What a product adds
up over must share one. So the way forward and the gradient of what came in have one for each row.
The gradient of the weights adds up over the rows: it takes the bytes that the way forward made of
x, and the scale of each row goes into the gradient of y, which then has one for each column.
Wortsman et al. 2023 (SwitchBack), https://arxiv.org/abs/2304.13013, leave that product in 16 bits.
Here it is 1 to 2 % off, where the halves of a batch differ by 50 to 90 %.

Shapes:  R rows · C width of what comes in · F of what goes out
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from folio import jit
from folio.errors import UserError
from folio.fast.calls import arrays, run

PIECE = 1024
"""Rows at a time, so that their sums stay in the cache until they are divided."""
MOST_ROWS = 1 << 17
"""Most rows to sum over: so many of the largest products still fit into an int32 sum."""


class Bytes(NamedTuple):
    """Rows of int8 values with their scales."""

    matrix: Tensor
    """(R, C) whole numbers from -127 to 127."""
    scales: Tensor
    """(R,) by which the rows give the numbers back."""

    def rows(self, span: slice) -> Bytes:
        """Select some of the rows."""
        return Bytes(self.matrix[span], self.scales[span])


class Factor(NamedTuple):
    """The quantized matrix of a matmul."""

    matrix: Tensor
    """(C, F) int8 values."""
    scales: Tensor
    """(F,) by which its columns give the numbers back."""


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
            return Factor(matrix, new_row(columns, torch.float32))

        n_out, n_in = weight.shape
        by_row, by_column = factor(n_out), factor(n_in)
        self.forth = by_row._replace(matrix=by_row.matrix.t())
        """(C, F): x -> x W^T."""
        self.back = by_column
        """(F, C): the gradient of that -> the gradient of x."""
        self.ones = torch.ones(n_in)
        """The scales of x in the gradient of the weights, since its own went elsewhere."""
        self._rows = arrays(weight, by_row.matrix, by_row.scales)
        self._columns = arrays(weight, by_column.matrix, by_column.scales)
        self.refresh()

    def refresh(self) -> None:
        """Quantize again after the weights have changed."""
        run("to_int8", *self._rows)
        run("columns_to_int8", *self._columns)


class Int8Linear(torch.autograd.Function):
    """x W^T + bias: (..., C), (F, C), (F,) or None -> (..., F)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, int8_weight: Int8Weight
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        y = rows.new_empty(len(rows), len(weight))
        x_bytes = Bytes(torch.empty(rows.shape, dtype=torch.int8), torch.empty(len(rows)))
        for span in spans(len(rows), PIECE):
            run("to_int8", *arrays(rows[span], *x_bytes.rows(span)))
            product(x_bytes.rows(span), int8_weight.forth, y[span], bias)
        ctx.save_for_backward(*x_bytes)
        ctx.has_bias, ctx.int8_weight = bias is not None, int8_weight
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x_bytes, int8_weight = Bytes(*ctx.saved_tensors), ctx.int8_weight
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1]).contiguous()
        n_rows, n_out = gradient.shape
        scales, column_scales = torch.empty(n_rows), torch.empty(n_out)
        bias_gradient = gradient.new_empty(n_out)
        found = scales, column_scales, bias_gradient
        run("measure_both_ways", *arrays(gradient, x_bytes.scales, *found))

        x_gradient = gradient.new_empty(x_bytes.matrix.shape)
        by_column = torch.empty(gradient.shape, dtype=torch.int8)
        for span in spans(n_rows, PIECE):
            by_row = Bytes(torch.empty(gradient[span].shape, dtype=torch.int8), scales[span])
            given = gradient[span], x_bytes.scales[span], by_row.scales, column_scales
            found = by_row.matrix, by_column[span]
            run("to_int8_both_ways", *arrays(*given, *found))
            product(by_row, int8_weight.back, x_gradient[span])

        weight_gradients = []
        for span in spans(n_rows, MOST_ROWS):
            weight_gradients.append(gradient.new_empty(n_out, x_gradient.shape[1]))
            factor = Factor(x_bytes.matrix[span], int8_weight.ones)
            product(Bytes(by_column[span].t(), column_scales), factor, weight_gradients[-1])
        return (
            x_gradient.view(*gradients[0].shape[:-1], -1),
            reduce(torch.add, weight_gradients),
            bias_gradient if ctx.has_bias else None,
            None,
        )


def spans(length: int, size: int) -> list[slice]:
    """Split a length into pieces of one size, the last of which may be shorter."""
    return [slice(i, min(i + size, length)) for i in range(0, length, size)]


def product(x: Bytes, factor: Factor, y: Tensor, bias: Tensor | None = None) -> None:
    """x @ factor + bias into y, to about 1 % of its deviation.

    Args:
        x: (R, C), with a scale for each row.
        factor: (C, F).
        y: (R, F), written.
        bias: (F,), of the precision of y.
    """
    bias = y.new_empty(0) if bias is None else bias
    sums = multiply(x.matrix, factor.matrix)
    run("from_int32", *arrays(sums, x.scales, factor.scales, bias, y))


def square(x: Tensor, y: Tensor) -> None:
    """x x^T, or x^T x if x is tall, into y. It has no negative eigenvalues but for rounding.

    Args:
        x: (R, C).
        y: (M, M), written; M is the smaller of both.
    """
    is_tall = len(x) > x.shape[1]
    matrix, scales = torch.empty(x.shape, dtype=torch.int8), torch.empty(len(y))
    run("columns_to_int8" if is_tall else "to_int8", *arrays(x, matrix, scales))
    matrix = matrix.t() if is_tall else matrix
    product(Bytes(matrix, scales), Factor(matrix.t(), scales), y)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """(R, C) and (C, F) bytes -> (R, F) int32."""
    sums: Tensor = torch.ops.aten._int_mm(a, b)
    return sums


def require() -> None:
    """Raises UserError where this machine cannot."""
    if not jit.available():
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
