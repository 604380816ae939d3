"""Attention of one position over the keys and values in the cache, in place.

Shapes:  D head dimension · S positions
"""

from __future__ import annotations

import numpy as np

from folio.fast.kernels.numbers import exp
from folio.fast.kernels.products import scores_of
from folio.fast.kernels.vectors import (
    LANES,
    fused,
    keep,
    larger,
    largest_of,
    load,
    load_some,
    splat,
    store,
    store_some,
    sum_of,
    zeros,
)
from folio.jit import kernel

ZERO, ONE = np.float32(0), np.float32(1)
NOTHING = np.float32(-np.inf)


@kernel(inner=True)
def attend(queries, query, keys, values, place, length, head_dim, weights, mixed, mixed_place):
    """Mix the values of all positions up to one, weighted by its query times their keys.

    Args:
        queries, query: flat, and where the query begins, D in lanes.
        keys, values, place: flat, and where those of the sequence begin, D each.
        length: positions, 1 or more.
        head_dim: D.
        weights: (S in lanes,) to compute in.
        mixed, mixed_place: flat, and where D numbers are written.
    """
    scale = splat(np.float32(1 / np.sqrt(np.float64(head_dim))))
    highest = splat(NOTHING)
    for s in range(0, length, LANES):
        scores = scores_of(queries, query, keys, place + s * head_dim, head_dim, length - s)
        scores = keep(scores * scale, length - s, NOTHING)
        store(weights, s, scores)
        highest = larger(highest, scores)
    top = largest_of(highest)
    for s in range((length + LANES - 1) // LANES * LANES):
        weights[s] = exp(weights[s] - top)
    total = zeros()
    for s in range(0, length, LANES):
        total = total + keep(load(weights, s), length - s, ZERO)
    share = splat(ONE / sum_of(total))
    for d in range(0, head_dim, LANES):
        if head_dim - d >= LANES:
            found = mix(weights, values, place + d, length, head_dim)
            store(mixed, mixed_place + d, found * share)
        else:
            rest = head_dim - d
            found = mix_some(weights, values, place + d, length, head_dim, rest)
            store_some(mixed, mixed_place + d, found * share, rest)


@kernel(inner=True)
def mix(weights, values, place, length, head_dim):
    """Sixteen dimensions of the values, weighted; four sums hide the time of an addition."""
    a, b, c, d = zeros(), zeros(), zeros(), zeros()
    for s in range(0, length - 3, 4):
        first = place + s * head_dim
        a = fused(splat(weights[s]), load(values, first), a)
        b = fused(splat(weights[s + 1]), load(values, first + head_dim), b)
        c = fused(splat(weights[s + 2]), load(values, first + 2 * head_dim), c)
        d = fused(splat(weights[s + 3]), load(values, first + 3 * head_dim), d)
    for s in range(length // 4 * 4, length):
        a = fused(splat(weights[s]), load(values, place + s * head_dim), a)
    return (a + b) + (c + d)


@kernel(inner=True)
def mix_some(weights, values, place, length, head_dim, count):
    """The first dimensions of sixteen, weighted."""
    total = zeros()
    for s in range(length):
        value = load_some(values, place + s * head_dim, count)
        total = fused(splat(weights[s]), value, total)
    return total


@kernel(inner=True)
def rotate(x, place, tables, cosines, sines, head_dim):
    """Turn a head in place, dimension i with i + D/2, as `RotaryPositions` does.

    Args:
        x, place: flat, and where the head begins.
        tables, cosines, sines: flat, and where the D of the position begin.
        head_dim: D.
    """
    half = head_dim // 2
    for i in range(half):
        a, b = x[place + i], x[place + half + i]
        x[place + i] = a * tables[cosines + i] + b * tables[sines + i]
        x[place + half + i] = b * tables[cosines + half + i] + a * tables[sines + half + i]


@kernel(inner=True)
def copy(x, x_place, y, y_place, width):
    """Copy a row that fills whole lanes in x, and does not in y."""
    for i in range(0, width, LANES):
        if width - i >= LANES:
            store(y, y_place + i, load(x, x_place + i))
        else:
            store_some(y, y_place + i, load(x, x_place + i), width - i)
