"""Elementwise kernels: sums, dropout, GELU, SwiGLU; and sums of rows.

Shapes:  N numbers · R rows · C width of a row
"""

from __future__ import annotations

import math

import numpy as np

from folio.fast.kernels.numbers import HALF, ONE, ZERO, exp, load, random_bits, sigmoid, store
from folio.jit import kernel


@kernel(fastmath=True)
def sum_rows(x, y):
    """(R, C) -> the (C,) sums of its columns, which are written to y."""
    n_rows, width = x.shape
    sums = np.zeros(width, np.float32)
    for row in range(n_rows):
        for i in range(width):
            sums[i] += load(x[row, i])
    for i in range(width):
        y[i] = store(sums[i], y[i])


@kernel(fastmath=True)
def add(x, change, y):
    """y = x + the change; all (N,)."""
    for i in range(len(x)):
        y[i] = store(load(x[i]) + load(change[i]), y[i])


@kernel(fastmath=True)
def multiply(x, slope, y):
    """y = x * the slope; all (N,)."""
    for i in range(len(x)):
        y[i] = store(load(x[i]) * load(slope[i]), y[i])


@kernel(fastmath=True)
def drop(x, seed, p, y):
    """Dropout, and its own backward pass: y = x / (1 - p), or 0 with probability p.

    Args:
        x, y: (N,).
        seed: (1,); with its place, decides whether a number is dropped.
        p: 0 to below 1.
    """
    name = np.uint64(seed[0])
    limit, scale = np.uint32(p * 2.0**32), np.float32(1 / (1 - p))
    for i in range(len(x)):
        kept = load(x[i]) * scale
        y[i] = store(kept if random_bits(i, name) >= limit else ZERO, y[i])


@kernel(fastmath=True)
def add_dropped(x, change, seed, p, y):
    """y = x + the change after `drop`; all (N,)."""
    name = np.uint64(seed[0])
    limit, scale = np.uint32(p * 2.0**32), np.float32(1 / (1 - p))
    for i in range(len(x)):
        kept = load(change[i]) * scale
        kept = kept if random_bits(i, name) >= limit else ZERO
        y[i] = store(load(x[i]) + kept, y[i])


@kernel(fastmath=True)
def swiglu(gate, up, y, gate_slope, up_slope):
    """y = g * s * up with s = sigmoid(g), and its derivatives: (s + g * s * (1 - s)) * up by the
    gate, g * s by up; all (N,).
    """
    for i in range(len(y)):
        opening, wide = load(gate[i]), load(up[i])
        opened_by = sigmoid(opening)
        opened = opening * opened_by
        y[i] = store(opened * wide, y[i])
        gate_slope[i] = store((opened_by + opened * (ONE - opened_by)) * wide, y[i])
        up_slope[i] = store(opened, y[i])


@kernel(inline=True)
def normal_tail(x):
    """The probability of a normal number below -|x|, and its density at x, to 1e-7.

    Source: Abramowitz and Stegun 1964, formula 7.1.26.
    """
    size = abs(x)
    density = exp(-HALF * x * x)
    t = ONE / (ONE + np.float32(0.3275911 / math.sqrt(2)) * size)
    series = np.float32(1.061405429) * t + np.float32(-1.453152027)
    series = series * t + np.float32(1.421413741)
    series = series * t + np.float32(-0.284496736)
    series = series * t + np.float32(0.254829592)
    return HALF * series * t * density, np.float32(1 / math.sqrt(2 * math.pi)) * density


@kernel(fastmath=True)
def gelu(x, y, slope):
    """y = x * P, with P the probability of a normal number below x, and its derivative
    P + x * p,
    with p the density at x; all (N,).
    """
    for i in range(len(x)):
        wide = load(x[i])
        tail, density = normal_tail(wide)
        below = tail if wide < ZERO else ONE - tail
        y[i] = store(wide * below, y[i])
        slope[i] = store(below + wide * density, y[i])
