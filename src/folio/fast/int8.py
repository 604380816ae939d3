"""Matmuls in int8 instead of bfloat16, twice as fast on CPUs that have such instructions.

A training step makes three products with each matrix of weights. Here all their factors are
quantized: numbers are divided by a scale, so that the largest that share it becomes 127, and
rounded. The numbers that a product sums over must share a scale, so the forward product and the
gradient of x have a scale per row. The gradient of the weights sums over the rows: it takes x as
the forward pass quantized it, and the scales of those rows go into the gradient of y, which then
has a scale per column.
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


class QuantizedRows(NamedTuple):
    """A matrix in int8 with a scale per row."""

    matrix: Tensor
    """(R, C) whole numbers from -127 to 127."""
    scales: Tensor
    """(R,) by which the rows are multiplied to give the numbers."""

    def rows(self, span: slice) -> QuantizedRows:
        """Select some of the rows."""
        return QuantizedRows(self.matrix[span], self.scales[span])


class QuantizedColumns(NamedTuple):
    """A matrix in int8 with a scale per column, the right factor of a product."""

    matrix: Tensor
    """(C, F) int8 values."""
    scales: Tensor
    """(F,) by which the columns are multiplied to give the numbers."""


class Int8Weight:
    """A quantized matrix of weights, as the factor of the forward and of the backward product."""

    def __init__(self, weight: Tensor, new_row: Callable[[int, torch.dtype], Tensor]) -> None:
        """
        Args:
            weight: (F, C) contiguous.
            new_row: number and dtype -> zeros of that number, where all find them that learn.
        """

        def factor(columns: int) -> QuantizedColumns:
            matrix = new_row(weight.numel(), torch.int8).view(weight.shape)
            return QuantizedColumns(matrix, new_row(columns, torch.float32))

        n_out, n_in = weight.shape
        by_row, by_column = factor(n_out), factor(n_in)
        self.forward_factor = by_row._replace(matrix=by_row.matrix.t())
        """(C, F), a scale per row of W: x -> x W^T."""
        self.backward_factor = by_column
        """(F, C), a scale per column of W: the gradient of y -> the gradient of x."""
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
        x_int8 = QuantizedRows(torch.empty(rows.shape, dtype=torch.int8), torch.empty(len(rows)))
        for span in spans(len(rows), PIECE):
            run("to_int8", *arrays(rows[span], *x_int8.rows(span)))
            product(x_int8.rows(span), int8_weight.forward_factor, y[span], bias)
        ctx.save_for_backward(*x_int8)
        ctx.has_bias, ctx.int8_weight = bias is not None, int8_weight
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x_int8, int8_weight = QuantizedRows(*ctx.saved_tensors), ctx.int8_weight
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1]).contiguous()
        n_rows, n_out = gradient.shape
        scales, column_scales = torch.empty(n_rows), torch.empty(n_out)
        bias_gradient = gradient.new_empty(n_out)
        found = scales, column_scales, bias_gradient
        run("measure_both_ways", *arrays(gradient, x_int8.scales, *found))

        x_gradient = gradient.new_empty(x_int8.matrix.shape)
        by_column = torch.empty(gradient.shape, dtype=torch.int8)
        for span in spans(n_rows, PIECE):
            by_row = QuantizedRows(
                torch.empty(gradient[span].shape, dtype=torch.int8), scales[span]
            )
            given = gradient[span], x_int8.scales[span], by_row.scales, column_scales
            found = by_row.matrix, by_column[span]
            run("to_int8_both_ways", *arrays(*given, *found))
            product(by_row, int8_weight.backward_factor, x_gradient[span])

        weight_gradients = []
        for span in spans(n_rows, MOST_ROWS):
            weight_gradients.append(gradient.new_empty(n_out, x_gradient.shape[1]))
            factor = QuantizedColumns(x_int8.matrix[span], int8_weight.ones)
            product(QuantizedRows(by_column[span].t(), column_scales), factor, weight_gradients[-1])
        return (
            x_gradient.view(*gradients[0].shape[:-1], -1),
            reduce(torch.add, weight_gradients),
            bias_gradient if ctx.has_bias else None,
            None,
        )


def spans(length: int, size: int) -> list[slice]:
    """Split a length into pieces of one size, the last of which may be shorter."""
    return [slice(i, min(i + size, length)) for i in range(0, length, size)]


def product(
    x: QuantizedRows, factor: QuantizedColumns, y: Tensor, bias: Tensor | None = None
) -> None:
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
    product(QuantizedRows(matrix, scales), QuantizedColumns(matrix.t(), scales), y)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """(R, C) and (C, F) int8 -> (R, F) int32."""
    if 1 in (*a.shape, *b.shape):  # whose stride means nothing, but something to _int_mm
        return a.int() @ b.int()
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
            "device.precision is 'int8', but this processor overflows when it adds up int8 "
            "products. Give another precision."
        )


@cache
def is_exact() -> bool:
    """Whether sums of the largest int8 products are exact; some processors sum in 16 bits."""
    a = torch.arange(64 * 256).view(64, 256) % 255 - 127
    b = a.sign() * 127
    return torch.equal(multiply(a.to(torch.int8), b.to(torch.int8).t()).long(), a @ b.t())
