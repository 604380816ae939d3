"""Rows and columns as int8 with a scale, and back from the int32 sums of their products.

Shapes:  R rows · C width of a row
"""

from __future__ import annotations

import numpy as np

from folio.fast.kernels.numbers import (
    LOWEST_RANK,
    MOST_INT8,
    ONE,
    ZERO,
    from_rank,
    load,
    store,
    to_rank,
)
from folio.jit import kernel


@kernel(fastmath=True)
def to_int8(x, y, scales):
    """(R, C) -> integers from -127 to 127, and the (R,) scales by which they give x back.

    A row that holds an infinity or NaN gets such a scale.
    """
    n_rows, width = x.shape
    for row in range(n_rows):
        largest = LOWEST_RANK
        for i in range(width):
            largest = max(largest, to_rank(abs(load(x[row, i]))))
        scales[row] = from_rank(largest) / MOST_INT8
        per_scale = ONE / scales[row] if scales[row] > ZERO else ZERO
        for i in range(width):
            y[row, i] = np.int8(np.int32(np.rint(load(x[row, i]) * per_scale)))


@kernel(fastmath=True)
def columns_to_int8(x, y, scales):
    """Quantize by columns, with (C,) scales."""
    n_rows, width = x.shape
    ranks, per_scale = np.full(width, LOWEST_RANK), np.empty(width, np.float32)
    for row in range(n_rows):
        for i in range(width):
            ranks[i] = max(ranks[i], to_rank(abs(load(x[row, i]))))
    for i in range(width):
        scales[i] = from_rank(ranks[i]) / MOST_INT8
        per_scale[i] = ONE / scales[i] if scales[i] > ZERO else ZERO
    for row in range(n_rows):
        for i in range(width):
            y[row, i] = np.int8(np.int32(np.rint(load(x[row, i]) * per_scale[i])))


@kernel(fastmath=True)
def measure_both_ways(x, weights, row_scales, column_scales, sums):
    """(R, C) -> the scales of its rows, those of its columns once each row is multiplied by its
    weight, and the sums of its columns.
    """
    n_rows, width = x.shape
    ranks, added = np.full(width, LOWEST_RANK), np.zeros(width, np.float32)
    for row in range(n_rows):
        largest, weight = LOWEST_RANK, weights[row]
        for i in range(width):
            largest = max(largest, to_rank(abs(load(x[row, i]))))
        row_scales[row] = from_rank(largest) / MOST_INT8
        for i in range(width):
            number = load(x[row, i])
            ranks[i] = max(ranks[i], to_rank(abs(number * weight)))
            added[i] += number
    for i in range(width):
        column_scales[i] = from_rank(ranks[i]) / MOST_INT8
        sums[i] = store(added[i], sums[i])


@kernel(fastmath=True)
def to_int8_both_ways(x, weights, row_scales, column_scales, by_row, by_column):
    """(R, C) -> its integers by row, and by column once each row is weighted."""
    n_rows, width = x.shape
    per_column = np.empty(width, np.float32)
    for i in range(width):
        per_column[i] = ONE / column_scales[i] if column_scales[i] > ZERO else ZERO
    for row in range(n_rows):
        weight, per_row = weights[row], ONE / row_scales[row] if row_scales[row] > ZERO else ZERO
        for i in range(width):
            number = load(x[row, i])
            by_row[row, i] = np.int8(np.int32(np.rint(number * per_row)))
            by_column[row, i] = np.int8(np.int32(np.rint(number * weight * per_column[i])))


@kernel(fastmath=True)
def from_int32(sums, row_scales, column_scales, bias, y):
    """(R, C) sums of such products -> the numbers that they stand for, plus the (C,) bias; that
    may be empty.
    """
    n_rows, width = sums.shape
    shift = np.zeros(width, np.float32)
    for i in range(len(bias)):
        shift[i] = load(bias[i])
    for row in range(n_rows):
        for i in range(width):
            scale = row_scales[row] * column_scales[i]
            y[row, i] = store(np.float32(sums[row, i]) * scale + shift[i], y[row, i])
