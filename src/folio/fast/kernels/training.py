"""Passes over rows and matrices of weights, in compiled code.

torch makes one for each operation, and takes up to five times as long for a small model.
`training/optimizers.py` has what they compute, to read.

Imports numba, and is imported by the parallel step alone. Arrays hold float32, or bfloat16 as
`numbers.py` reads it.

Shapes:  n numbers in a row · R rows · N matrices of one shape, (out, in) each, of which a row makes
         one neuron · M the smaller side
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.fast.kernels.numbers import ONE, ZERO, load, store
from folio.jit import kernel

Array = NDArray[Any]
Number = float | np.float32

BLOCK = 2048
"""Numbers of a row that stay in the cache while others are added to them."""


@kernel(fastmath=True)
def add_up(rows: Array, total: Array, start: int, stop: int, begins: bool) -> Number:
    """Add up rows between two positions; returns the squared norm of the sum.

    Args:
        rows: (R, n).
        total: (n,) float32, to which they are added, or which they become.
        start, stop: the places.
        begins: whether it becomes the sum.
    """
    sums, square = np.empty(BLOCK, np.float32), 0.0
    for first in range(start, stop, BLOCK):
        size = min(BLOCK, stop - first)
        block = total[first : first + size]
        for i in range(size):
            sums[i] = ZERO if begins else block[i]
        for r in range(len(rows)):
            row = rows[r, first : first + size]
            for i in range(size):
                sums[i] += load(row[i])
        along = ZERO
        for i in range(size):
            along += sums[i] * sums[i]
        square += along
        for i in range(size):
            block[i] = sums[i]
    return square


@kernel(fastmath=True)
def adamw(
    weights: Array,
    gradients: Array,
    means: Array,
    mean_squares: Array,
    compute: Array,
    scale: Number,
    rate: Number,
    decay: Number,
    beta1: Number,
    beta2: Number,
    rest1: Number,
    rest2: Number,
    correction: Number,
    epsilon: Number,
) -> None:
    """Take a step of AdamW.

    Args:
        weights, gradients, means, mean_squares: (n,) float32, changed in place; the gradients
            become the weights as they were.
        compute: (n,), the weights are written to it too; or empty.
        scale: of the gradients.
        rate: over 1 - beta1^n, the correction of the mean in step n.
        decay: times the weight, what it loses.
        beta1, beta2: how much of the means is kept.
        rest1, rest2: 1 - beta1 and 1 - beta2, of which float32 would leave little near 1.
        correction: one over the root of 1 - beta2^n.
        epsilon: added to the root of the mean square; all numbers float32.
    """
    for first in range(0, len(weights), BLOCK):
        last = min(first + BLOCK, len(weights))
        w, g = weights[first:last], gradients[first:last]
        m, v = means[first:last], mean_squares[first:last]
        for i in range(len(w)):
            gradient = scale * g[i]
            mean = beta1 * m[i] + rest1 * gradient
            mean_square = beta2 * v[i] + rest2 * gradient * gradient
            m[i], v[i] = mean, mean_square
            g[i] = w[i]
            w[i] -= decay * w[i] + rate * mean / (math.sqrt(mean_square) * correction + epsilon)
        if len(compute):
            y = compute[first:last]
            for i in range(len(w)):
                y[i] = store(w[i], y[i])


@kernel(fastmath=True)
def nesterov(
    gradients: Array,
    momenta: Array,
    ahead: Array,
    numbers: Array,
    momentum: Number,
    rest: Number,
) -> None:
    """Momenta learn from gradients; `ahead` are the next ones, as Nesterov looks at them.

    Args:
        gradients, momenta: (N, out, in) float32; the momenta are changed in place.
        ahead: (N, out, in), written.
        numbers: (3,) float32, of which the first is the scale of the gradients.
        momentum: how much of it is kept, float32.
        rest: 1 - momentum, rounded to float32 afterwards.
    """
    n, rows, columns = gradients.shape
    scale = numbers[0]
    for i in range(n):
        for r in range(rows):
            for c in range(columns):
                g = scale * gradients[i, r, c]
                m = momentum * momenta[i, r, c] + rest * g
                momenta[i, r, c] = m
                ahead[i, r, c] = store(momentum * m + rest * g, ahead[i, r, c])


@kernel(fastmath=True)
def bring_into_range(x: Array, low: Number, high: Number) -> None:
    """Multiply matrices whose largest number is outside of a range by powers of two.

    Args:
        x: (N, out, in), changed in place; denormal numbers alone become 0.
        low, high: the range, float32.
    """
    n, rows, columns = x.shape
    for i in range(n):
        rank = np.int32(0)  # positive numbers are in the order of their bits
        for r in range(rows):
            for c in range(columns):
                bits = np.float32(load(x[i, r, c])).view(np.int32) & np.int32(0x7FFFFFFF)
                rank = max(rank, np.int32(bits))
        largest = np.int32(rank).view(np.float32)
        if low <= largest <= high:
            continue
        exponent = min(max((rank >> 23) - 127, -120), 120)  # so that the factor is a normal number
        factor = np.float32(2.0 ** (-exponent)) if rank >> 23 else ZERO
        for r in range(rows):
            for c in range(columns):
                x[i, r, c] = store(factor * load(x[i, r, c]), x[i, r, c])


@kernel(fastmath=True)
def inverse_norms(gram: Array, gram_squared: Array, tiny: Number, y: Array) -> None:
    """Compute one over the eighth root of the sum of the eighth powers of all singular values.

    Args:
        gram, gram_squared: (N, M, M), of matrices.
        tiny: float32, so that nothing is divided by 0.
        y: (N,) float32, written; 0 of a matrix that is 0.
    """
    n, side, _ = gram.shape
    for i in range(n):
        trace = ZERO
        for r in range(side):
            trace += load(gram[i, r, r])
        even, total = ONE / (trace * trace + tiny * tiny), ZERO
        for r in range(side):
            for k in range(side):
                number = even * load(gram_squared[i, r, k])
                total += number * number
        norm = math.sqrt(trace * math.sqrt(math.sqrt(total)))
        y[i] = ONE / norm if norm > ZERO else ZERO


@kernel(fastmath=True)
def combine(
    gram: Array,
    gram_squared: Array,
    y: Array,
    scales: Array,
    a: Number,
    b: Number,
    c: Number,
    is_last: bool,
) -> None:
    """a I + b s + c s^2.

    Args:
        gram, gram_squared: (N, M, M), s of each matrix and its square.
        y: (N, M, M), written.
        scales: (N,) float32 that the matrices are yet to be multiplied by; or empty.
        a, b, c: float32.
        is_last: whether the outcome is to be multiplied by it too.
    """
    n, side, _ = gram.shape
    for i in range(n):
        scale = scales[i] if len(scales) else ONE
        outer = scale if is_last else ONE
        first, second, third = outer * a, outer * b * scale**2, outer * c * scale**4
        for r in range(side):
            for k in range(side):
                x = second * load(gram[i, r, k]) + third * load(gram_squared[i, r, k])
                y[i, r, k] = store(x, y[i, r, k])
            diagonal = second * load(gram[i, r, r]) + third * load(gram_squared[i, r, r])
            y[i, r, r] = store(diagonal + first, y[i, r, r])


@kernel(fastmath=True)
def apply_update(
    weights: Array,
    old: Array,
    updates: Array,
    mean_squares: Array,
    compute: Array,
    numbers: Array,
    taller: Number,
    beta2: Number,
    rest: Number,
    cautious: bool,
    epsilon: Number,
) -> None:
    """Subtract updates whose rows are made even, and what decays.

    Args:
        weights: (N, out, in) float32, changed in place.
        old: (N, out, in) float32, the weights as they were are written to it.
        updates: (N, out, in), close to orthogonal.
        mean_squares: (N, out, 1) float32 of the updates of late, which learn from these.
        compute: (N, out, in), the weights are written to it too; or empty.
        numbers: (3,) float32; the second times `taller` is that of the update, the third, the
            decay, that of the weight.
        taller: float32.
        beta2: how much of the mean squares is kept, float32.
        rest: 1 - beta2, rounded to float32 afterwards; 0 leaves the rows as they are.
        cautious: whether weights that the update makes larger do not decay.
        epsilon: float32, so that nothing is divided by 0.
    """
    n, rows, columns = weights.shape
    rate, decay = taller * numbers[1], numbers[2]
    factors, now = np.full(rows, rate), np.empty(rows, np.float32)
    for i in range(n):
        if rest > ZERO:
            before = after = ZERO
            for r in range(rows):
                total = ZERO
                for c in range(columns):
                    x = load(updates[i, r, c])
                    total += x * x
                now[r] = total / np.float32(columns)
            for r in range(rows):
                late = beta2 * mean_squares[i, r, 0] + rest * now[r]
                mean_squares[i, r, 0] = late
                factors[r] = ONE / (math.sqrt(late) + epsilon)
            for r in range(rows):
                before += now[r]
                after += now[r] * factors[r] * factors[r]
            factors *= rate * math.sqrt(before) / (math.sqrt(after) + epsilon)
        for r in range(rows):
            factor = factors[r]
            for c in range(columns):
                w, step = weights[i, r, c], factor * load(updates[i, r, c])
                old[i, r, c] = w
                lost = decay * w if not cautious or step * w > ZERO else ZERO
                weights[i, r, c] = w - lost - step
            if len(compute):
                for c in range(columns):
                    compute[i, r, c] = store(weights[i, r, c], compute[i, r, c])
