"""The parts of a block that are no matrix product, in compiled code for processors.

torch makes a pass over memory for each multiplication and each sum; a kernel here makes one
for the whole part, forward or backward. `fused.py` puts them under autograd.

A loop that adds up a row stores nothing. Where arrays that a loop reads and writes lie close
together it is not vectorized, and would then add in another order: the same step would give other
bytes, by where memory happened to be free.

Arrays hold float32, or bfloat16 as the uint16 of its bits, which is the upper half of the
float32; sums are kept in float32 either way.

Imports numba, and is imported only when a model first needs it.

Shapes:  R rows · C width of a row · V vocabulary · B batch · T positions · H heads
         D head dimension
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from folio.jit import kernel

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
LOG2_E = np.float32(math.log2(math.e))
LOWEST = np.float32(-126)
"""The exponent of the smallest normal float32."""
MOST_INT8 = np.float32(127)
LOWEST_RANK = np.int32(-(2**31))
POWERS_OF_LN2 = tuple(np.float32(math.log(2) ** n / math.factorial(n)) for n in range(7))
"""Taylor's series of 2^r; right to 1e-7 for r between -1/2 and 1/2."""


def load(stored: Any) -> Any:
    """A number of an array as float32; numba puts in the body for its type."""


def store(number: Any, like: Any) -> Any:
    """A float32 as an array that holds `like` keeps it; bfloat16 rounds to the nearest even."""


@overload(load, inline="always")
def _load(stored):
    if stored == types.uint16:
        return lambda stored: np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)
    return lambda stored: stored


@overload(store, inline="always")
def _store(number, like):
    if like == types.uint16:
        return _to_bfloat16
    return lambda number, like: number


def _to_bfloat16(number, like):
    bits = np.float32(number).view(np.uint32)
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.uint32(bits + np.uint32(odd + np.uint32(0x7FFF)))
    return np.uint16(np.uint32(rounded >> np.uint32(16)))


@kernel(inline=True)
def exp(x):
    """e^x for x up to 88, to 4e-6 of it: 2 to a whole power, times 2 to the rest."""
    y = x * LOG2_E
    y = LOWEST if y < LOWEST else y
    whole = np.floor(y + HALF)
    rest = y - whole
    power = POWERS_OF_LN2[6]
    power = power * rest + POWERS_OF_LN2[5]
    power = power * rest + POWERS_OF_LN2[4]
    power = power * rest + POWERS_OF_LN2[3]
    power = power * rest + POWERS_OF_LN2[2]
    power = power * rest + POWERS_OF_LN2[1]
    power = power * rest + POWERS_OF_LN2[0]
    exponent = np.int32(np.int32(whole) + np.int32(127))
    return power * np.int32(exponent << np.int32(23)).view(np.float32)


@kernel(inline=True)
def to_rank(x):
    """Whole numbers in the order of the float32 that they stand for, NaN above all.

    The largest of them is found some at a time, which the rules for NaN forbid with floats.
    """
    bits = np.float32(x).view(np.int32)
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@kernel(inline=True)
def from_rank(rank):
    """Undo `to_rank`."""
    bits = np.int32(rank ^ np.int32(np.int32(rank >> np.int32(31)) & np.int32(0x7FFFFFFF)))
    return np.int32(bits).view(np.float32)


@kernel(inline=True)
def sigmoid(x):
    """1 / (1 + e^-x)."""
    bounded = np.float32(-87) if x < np.float32(-87) else x
    return ONE / (ONE + exp(-bounded))


@kernel(inline=True)
def random_bits(place, seed):
    """32 bits that look random: a hash of a place and of 64 bits.

    Two multiplications, with the constants of https://github.com/skeeto/hash-prospector.
    """
    bits = np.uint32(np.uint32(place) + np.uint32(seed & np.uint64(0xFFFFFFFF)))
    bits = np.uint32(np.uint32(bits ^ np.uint32(bits >> np.uint32(16))) * np.uint32(0x7FEB352D))
    bits = np.uint32(bits + np.uint32(seed >> np.uint64(32)))
    bits = np.uint32(np.uint32(bits ^ np.uint32(bits >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(bits ^ np.uint32(bits >> np.uint32(16)))


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
def to_int8(x, y, scales):
    """(R, C) -> whole numbers from -127 to 127, and the (R,) scales by which they give x back.

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
    """The same of columns, whose (C,) scales they are."""
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
    weight, and the sums of its columns."""
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
    """(R, C) -> its whole numbers by row, and by column once each row is weighted."""
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
    may be empty."""
    n_rows, width = sums.shape
    shift = np.zeros(width, np.float32)
    for i in range(len(bias)):
        shift[i] = load(bias[i])
    for row in range(n_rows):
        for i in range(width):
            scale = row_scales[row] * column_scales[i]
            y[row, i] = store(np.float32(sums[row, i]) * scale + shift[i], y[row, i])


@kernel(fastmath=True)
def drop(x, seed, share, y):
    """Dropout, and its own way back: y = x / (1 - share), or 0 for about that share of them.

    Args:
        x, y: (N,).
        seed: (1,); with its place, decides whether a number is dropped.
        share: 0 to below 1.
    """
    name = np.uint64(seed[0])
    limit, scale = np.uint32(share * 2.0**32), np.float32(1 / (1 - share))
    for i in range(len(x)):
        kept = load(x[i]) * scale
        y[i] = store(kept if random_bits(i, name) >= limit else ZERO, y[i])


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
def add_dropped(x, change, seed, share, y):
    """y = x + the change after `drop`; all (N,)."""
    name = np.uint64(seed[0])
    limit, scale = np.uint32(share * 2.0**32), np.float32(1 / (1 - share))
    for i in range(len(x)):
        kept = load(change[i]) * scale
        kept = kept if random_bits(i, name) >= limit else ZERO
        y[i] = store(load(x[i]) + kept, y[i])


@kernel(fastmath=True)
def layer_norm(x, gain, bias, epsilon, y, mean, inverse):
    """y = gain * (x - m) / r + bias, with m the mean of a row and r its standard deviation.

    Args:
        x, y: (R, C).
        gain, bias: (C,).
        epsilon: added to the variance.
        mean, inverse: (R,) float32, m and 1 / r are written to them.
    """
    n_rows, width = x.shape
    for row in range(n_rows):
        total, square = ZERO, ZERO
        for i in range(width):
            total += load(x[row, i])
        middle = total / np.float32(width)
        for i in range(width):
            off = load(x[row, i]) - middle
            square += off * off
        scale = ONE / np.sqrt(square / np.float32(width) + epsilon)
        mean[row], inverse[row] = middle, scale
        for i in range(width):
            unit = (load(x[row, i]) - middle) * scale
            y[row, i] = store(unit * load(gain[i]) + load(bias[i]), y[row, i])


@kernel(fastmath=True)
def layer_norm_backward(
    gradient, beside, x, gain, mean, inverse, x_gradient, gain_gradient, bias_gradient
):
    """With u = (x - m) / r and h the gradient of u, that of x is
    (h - mean(h) - u * mean(h * u)) / r, plus what comes to it from beside the norm.

    Args:
        gradient, beside, x, x_gradient: (R, C), the last one written.
        gain: (C,).
        mean, inverse: (R,), from the way forward.
        gain_gradient, bias_gradient: (C,), written.
    """
    n_rows, width = x.shape
    gain_sums, bias_sums = np.zeros(width, np.float32), np.zeros(width, np.float32)
    for row in range(n_rows):
        middle, scale, total, along = mean[row], inverse[row], ZERO, ZERO
        for i in range(width):
            inner = load(gradient[row, i]) * load(gain[i])
            total += inner
            along += inner * (load(x[row, i]) - middle) * scale
        total /= np.float32(width)
        along /= np.float32(width)
        for i in range(width):
            unit, change = (load(x[row, i]) - middle) * scale, load(gradient[row, i])
            gain_sums[i] += change * unit
            bias_sums[i] += change
            back = (change * load(gain[i]) - total - unit * along) * scale + load(beside[row, i])
            x_gradient[row, i] = store(back, x_gradient[row, i])
    for i in range(width):
        gain_gradient[i] = store(gain_sums[i], gain_gradient[i])
        bias_gradient[i] = store(bias_sums[i], bias_gradient[i])


@kernel(fastmath=True)
def rms_norm(x, gain, epsilon, y, inverse):
    """y = gain * x / r, with r the root of the mean square of a row.

    Args:
        x, y: (R, C).
        gain: (C,).
        epsilon: added to the mean square.
        inverse: (R,) float32, 1 / r is written to it.
    """
    n_rows, width = x.shape
    for row in range(n_rows):
        square = ZERO
        for i in range(width):
            square += load(x[row, i]) * load(x[row, i])
        scale = ONE / np.sqrt(square / np.float32(width) + epsilon)
        inverse[row] = scale
        for i in range(width):
            y[row, i] = store(load(x[row, i]) * scale * load(gain[i]), y[row, i])


@kernel(fastmath=True)
def rms_norm_backward(gradient, beside, x, gain, inverse, x_gradient, gain_gradient):
    """With u = x / r and h the gradient of u, that of x is (h - u * mean(h * u)) / r, plus what
    comes to it from beside the norm.

    Args:
        gradient, beside, x, x_gradient: (R, C), the last one written.
        gain: (C,).
        inverse: (R,), from the way forward.
        gain_gradient: (C,), written.
    """
    n_rows, width = x.shape
    gain_sums = np.zeros(width, np.float32)
    for row in range(n_rows):
        scale, along = inverse[row], ZERO
        for i in range(width):
            along += load(gradient[row, i]) * load(gain[i]) * load(x[row, i]) * scale
        along /= np.float32(width)
        for i in range(width):
            unit, change = load(x[row, i]) * scale, load(gradient[row, i])
            gain_sums[i] += change * unit
            back = (change * load(gain[i]) - unit * along) * scale + load(beside[row, i])
            x_gradient[row, i] = store(back, x_gradient[row, i])
    for i in range(width):
        gain_gradient[i] = store(gain_sums[i], gain_gradient[i])


@kernel()
def embedding(token_ids, table, y):
    """The rows of a (V, C) table with (R,) numbers, written to (R, C) y.

    Raises:
        IndexError: there is no such row.
    """
    for row in range(len(token_ids)):
        if not 0 <= token_ids[row] < len(table):
            raise IndexError("a token id is below 0, or not below the rows of the embeddings")
        vector, place = table[token_ids[row]], y[row]
        for i in range(len(place)):
            place[i] = vector[i]


@kernel(fastmath=True)
def embedding_backward(gradient, token_ids, table_gradient):
    """Each row of the table gets the sum of what came back where it was looked up.

    Args:
        gradient: (R, C).
        token_ids: (R,).
        table_gradient: (V, C), written.
    """
    n_ids, width = table_gradient.shape
    ends = np.zeros(n_ids, np.int64)  # of the places of each id among all, sorted by id
    for token_id in token_ids:
        ends[token_id] += 1
    for token_id in range(1, n_ids):
        ends[token_id] += ends[token_id - 1]
    rows, next_place = np.empty(len(token_ids), np.int64), ends.copy()
    for row in range(len(token_ids) - 1, -1, -1):
        next_place[token_ids[row]] -= 1
        rows[next_place[token_ids[row]]] = row
    sums = np.empty(width, np.float32)
    for token_id in range(n_ids):
        sums[:] = ZERO
        for place in range(next_place[token_id], ends[token_id]):
            vector = gradient[rows[place]]
            for i in range(width):
                sums[i] += load(vector[i])
        for i in range(width):
            table_gradient[token_id, i] = store(sums[i], table_gradient[token_id, i])


@kernel(fastmath=True)
def add_places(x, places, start, y):
    """(B, T, C) and the rows of a (context, C) table from the first place on, written to y."""
    n_batch, n_places, width = x.shape
    for batch in range(n_batch):
        for place in range(n_places):
            for i in range(width):
                number = load(x[batch, place, i]) + load(places[start + place, i])
                y[batch, place, i] = store(number, y[batch, place, i])


@kernel(fastmath=True)
def add_places_backward(gradient, start, places_gradient):
    """The sum over a batch, (B, T, C), written to the rows from the first place on; 0 to others."""
    n_batch, n_places, width = gradient.shape
    sums = np.empty(width, np.float32)
    for place in range(len(places_gradient)):
        sums[:] = ZERO
        if start <= place < start + n_places:
            for batch in range(n_batch):
                for i in range(width):
                    sums[i] += load(gradient[batch, place - start, i])
        for i in range(width):
            places_gradient[place, i] = store(sums[i], places_gradient[place, i])


@kernel()
def split_heads(x, first, ys):
    """(B, T, W, D), heads side by side, from the first on -> (B, H, T, D) ys, written in turn."""
    for y in ys:
        n_batch, n_heads, n_places, head_dim = y.shape
        for batch in range(n_batch):
            for head in range(n_heads):
                for place in range(n_places):
                    for i in range(head_dim):
                        y[batch, head, place, i] = x[batch, place, first + head, i]
        first += n_heads


@kernel()
def merge_heads(xs, first, y):
    """(B, H, T, D) xs in turn -> a part of (B, T, W, D), from the first head on, written to y."""
    for x in xs:
        n_batch, n_heads, n_places, head_dim = x.shape
        for batch in range(n_batch):
            for head in range(n_heads):
                for place in range(n_places):
                    for i in range(head_dim):
                        y[batch, place, first + head, i] = x[batch, head, place, i]
        first += n_heads


@kernel(fastmath=True)
def heads(x, first, gain, epsilon, cosines, sines, y, inverse):
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
    n_batch, n_heads, n_places, head_dim = y.shape
    half = head_dim // 2
    units, swapped = np.empty(head_dim, np.float32), np.empty(head_dim, np.float32)
    for batch in range(n_batch):
        for place in range(n_places):
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
def heads_backward(gradient, x, first, gain, inverse, cosines, sines, x_gradient, gain_gradient):
    """Turn back, then as rms_norm_backward.

    Args:
        gradient: (B, H, T, D).
        x, x_gradient: (B, T, W, D), the latter written where `heads` read.
        first, gain, cosines, sines: as for `heads`.
        inverse: (B, T, H), from the way forward.
        gain_gradient: (D,), written.
    """
    n_batch, n_heads, n_places, head_dim = gradient.shape
    half = head_dim // 2
    gain_sums = np.zeros(head_dim, np.float32)
    turned, swapped = np.empty(head_dim, np.float32), np.empty(head_dim, np.float32)
    units, inner = np.empty(head_dim, np.float32), np.empty(head_dim, np.float32)
    for batch in range(n_batch):
        for place in range(n_places):
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
def swiglu(gate, up, y, gate_slope, up_slope):
    """y = g * s * up with s = sigmoid(g), and its derivatives: (s + g * s * (1 - s)) * up by the
    gate, g * s by up; all (N,)."""
    for i in range(len(y)):
        opening, wide = load(gate[i]), load(up[i])
        share = sigmoid(opening)
        opened = opening * share
        y[i] = store(opened * wide, y[i])
        gate_slope[i] = store((share + opened * (ONE - share)) * wide, y[i])
        up_slope[i] = store(opened, y[i])


@kernel(inline=True)
def normal_tail(x):
    """The share of a normal distribution below -|x|, and its density at x, to 1e-7.

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
    """y = x * P, with P the share of a normal distribution below x, and its derivative P + x * p,
    with p the density at x; all (N,)."""
    for i in range(len(x)):
        wide = load(x[i])
        tail, density = normal_tail(wide)
        below = tail if wide < ZERO else ONE - tail
        y[i] = store(wide * below, y[i])
        slope[i] = store(below + wide * density, y[i])


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
            share = ONE / total
            for i in range(n_keys):
                scores[head, query, i] = store(powers[i] * share, scores[head, query, i])


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


@kernel(fastmath=True)
def cross_entropy(logits, targets, logs, total):
    """The surprise at the targets, added up.

    Args:
        logits: (R, V).
        targets: (R,) whole numbers; below 0 a row does not count.
        logs: (R,) float32, the logarithms of the sums of exponentials are written to it.
        total: (1,) float32, written; in nats.

    Raises:
        IndexError: a target is not below V.
    """
    n_rows, n_ids = logits.shape
    surprise = 0.0
    for row in range(n_rows):
        if targets[row] >= n_ids:
            raise IndexError("a target is not below the number of logits")
        rank = LOWEST_RANK
        for i in range(n_ids):
            other = to_rank(load(logits[row, i]))
            rank = other if other > rank else rank
        highest, powers = from_rank(rank), ZERO
        for i in range(n_ids):
            powers += exp(load(logits[row, i]) - highest)
        log = np.float32(highest + math.log(powers))
        logs[row] = log
        if targets[row] >= 0:
            surprise += log - load(logits[row, targets[row]])
    total[0] = surprise


@kernel(fastmath=True)
def cross_entropy_backward(gradient, logits, targets, logs, penalty, logits_gradient):
    """p * (1 + penalty * (x - sum(p * x))), less 1 at the target: that of surprise less entropy.

    Args:
        gradient: (1,) of the total.
        logits, targets, logs: as for `cross_entropy`, with p the exponential of x less its row's.
        penalty: float32, times the entropy of p.
        logits_gradient: (R, V), written.
    """
    n_rows, n_ids = logits.shape
    for row in range(n_rows):
        scale = ZERO if targets[row] < 0 else load(gradient[0])
        log, mean = logs[row], ZERO
        if penalty != ZERO:
            for i in range(n_ids):
                x = load(logits[row, i])
                mean += exp(x - log) * x
        for i in range(n_ids):
            x = load(logits[row, i])
            back = scale * exp(x - log) * (ONE + penalty * (x - mean))
            logits_gradient[row, i] = store(back, logits_gradient[row, i])
        if targets[row] >= 0:
            x = load(logits[row, targets[row]])
            back = scale * (exp(x - log) * (ONE + penalty * (x - mean)) - ONE)
            logits_gradient[row, targets[row]] = store(back, logits_gradient[row, targets[row]])
