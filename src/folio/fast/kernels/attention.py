"""Heads laid out, normalized and turned; the softmax of causal attention.

Shapes:  B batch · H heads · T positions · D head dimension · W all heads side by side
         R = B * H · Q queries · S keys
"""

from __future__ import annotations

import numpy as np

from folio.fast.kernels.numbers import LOWEST_RANK, ONE, ZERO, exp, from_rank, load, store, to_rank
from folio.jit import kernel


@kernel()
def split_heads(x, first, ys):
    """(B, T, W, D), heads side by side, from the first on -> (B, H, T, D) ys, written in turn."""
    for y in ys:
        n_batch, n_heads, n_positions, head_dim = y.shape
        for batch in range(n_batch):
            for head in range(n_heads):
                for place in range(n_positions):
                    for i in range(head_dim):
                        y[batch, head, place, i] = x[batch, place, first + head, i]
        first += n_heads


@kernel()
def merge_heads(xs, first, y):
    """(B, H, T, D) xs in turn -> a part of (B, T, W, D), from the first head on, written to y."""
    for x in xs:
        n_batch, n_heads, n_positions, head_dim = x.shape
        for batch in range(n_batch):
            for head in range(n_heads):
                for place in range(n_positions):
                    for i in range(head_dim):
                        y[batch, place, first + head, i] = x[batch, head, place, i]
        first += n_heads


@kernel(fastmath=True)
def rotate_heads(x, first, gain, epsilon, cosines, sines, y, inverse):
    """Each head normalized by `rms_norm`, turned by the angles of its place, and laid out by head.

    An index is a loop's own number wherever it runs through the last dimension: a sum of two
    might be negative for all that the compiler knows, and keeps the loop from being vectorized.

    Args:
        x: (B, T, W, D), all heads side by side, of which some are read.
        first: of them.
        gain: (D,).
        epsilon: added to the mean square.
        cosines, sines: (T, D), those of the sines negative in the first half.
        y: (B, H, T, D), written.
        inverse: (B, T, H) float32, one over the root mean squares are written to it.
    """
    n_batch, n_heads, n_positions, head_dim = y.shape
    half = head_dim // 2
    units, swapped = np.empty(head_dim, np.float32), np.empty(head_dim, np.float32)
    for batch in range(n_batch):
        for place in range(n_positions):
            for head in range(n_heads):
                square = ZERO
                for i in range(head_dim):
                    number = load(x[batch, place, first + head, i])
                    square += number * number
                for i in range(head_dim):
                    units[i] = load(x[batch, place, first + head, i]) * load(gain[i])
                scale = ONE / np.sqrt(square / np.float32(head_dim) + epsilon)
                inverse[batch, place, head] = scale
                swap_halves(units, half, swapped)
                for i in range(head_dim):
                    turned = units[i] * load(cosines[place, i])
                    turned += swapped[i] * load(sines[place, i])
                    y[batch, head, place, i] = store(turned * scale, y[batch, head, place, i])


@kernel(fastmath=True)
def rotate_heads_backward(
    gradient, x, first, gain, inverse, cosines, sines, x_gradient, gain_gradient
):
    """Turn back, then as rms_norm_backward.

    Args:
        gradient: (B, H, T, D).
        x, x_gradient: (B, T, W, D), the latter written where `rotate_heads` read.
        first, gain, cosines, sines: as for `rotate_heads`.
        inverse: (B, T, H), from the forward pass.
        gain_gradient: (D,), written.
    """
    n_batch, n_heads, n_positions, head_dim = gradient.shape
    half = head_dim // 2
    gain_sums = np.zeros(head_dim, np.float32)
    turned, swapped = np.empty(head_dim, np.float32), np.empty(head_dim, np.float32)
    units, inner = np.empty(head_dim, np.float32), np.empty(head_dim, np.float32)
    for batch in range(n_batch):
        for place in range(n_positions):
            for head in range(n_heads):
                for i in range(head_dim):
                    turned[i] = load(gradient[batch, head, place, i])
                swap_halves(turned, half, swapped)
                scale, along = inverse[batch, place, head], ZERO
                for i in range(head_dim):
                    # The sine has the other sign, as it has in the other half.
                    change = turned[i] * load(cosines[place, i])
                    change -= swapped[i] * load(sines[place, i])
                    units[i] = load(x[batch, place, first + head, i]) * scale
                    gain_sums[i] += change * units[i]
                    inner[i] = change * load(gain[i])
                for i in range(head_dim):
                    along += inner[i] * units[i]
                along /= np.float32(head_dim)
                for i in range(head_dim):
                    back = (inner[i] - units[i] * along) * scale
                    x_gradient[batch, place, first + head, i] = store(
                        back, x_gradient[batch, place, first + head, i]
                    )
    for i in range(head_dim):
        gain_gradient[i] = store(gain_sums[i], gain_gradient[i])


@kernel(inline=True)
def swap_halves(numbers, half, swapped):
    """(D,) -> (D,), with D twice the half."""
    for i in range(half):
        swapped[i] = numbers[half + i]
        swapped[half + i] = numbers[i]


@kernel(fastmath=True)
def causal_softmax(scores, first, scale):
    """exp(scale * score) over the sum of its row, in place; 0 for keys after the query.

    Args:
        scores: (R, Q, S) of R heads, whose queries are the positions first ... first + Q - 1.
        first: see there.
        scale: of the scores.
    """
    n_heads, n_queries, n_keys = scores.shape
    powers = np.empty(n_keys, np.float32)
    for head in range(n_heads):
        for query in range(n_queries):
            seen = first + query + 1
            rank = LOWEST_RANK
            for i in range(seen):
                other = to_rank(load(scores[head, query, i]))
                rank = other if other > rank else rank
            highest = from_rank(rank)
            total = ZERO
            for i in range(n_keys):
                power = exp((load(scores[head, query, i]) - highest) * scale)
                powers[i] = power if i < seen else ZERO
            for i in range(n_keys):
                total += powers[i]
            per_total = ONE / total
            for i in range(n_keys):
                scores[head, query, i] = store(powers[i] * per_total, scores[head, query, i])


@kernel(fastmath=True)
def causal_softmax_backward(gradient, weights, first, scale):
    """scale * w * (g - sum(w * g)) in place of the gradient g; 0 for keys after the query.

    Args:
        gradient, weights: (R, Q, S).
        first, scale: as for `causal_softmax`.
    """
    n_heads, n_queries, n_keys = weights.shape
    for head in range(n_heads):
        for query in range(n_queries):
            along = ZERO
            for i in range(n_keys):
                along += load(weights[head, query, i]) * load(gradient[head, query, i])
            for i in range(n_keys):
                back = load(gradient[head, query, i]) - along
                back *= load(weights[head, query, i]) * scale
                gradient[head, query, i] = store(back, gradient[head, query, i])
