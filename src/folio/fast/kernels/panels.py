"""A linear layer in panels: inputs as words, products, and the activation of the output.

`product` has the loop in which the time is spent; here is what stands around it, once for each of
the three precisions.

Shapes:  I inputs, O outputs of a matrix, in lanes · M tokens
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from folio.fast.kernels.elementwise import normal_tail
from folio.fast.kernels.numbers import (
    LOWEST_RANK,
    MOST_INT8,
    ONE,
    ZERO,
    from_rank,
    sigmoid,
    to_rank,
)
from folio.fast.kernels.numbers import store as to_precision
from folio.fast.kernels.products import (
    STRIPS_AT_ONCE,
    SUMS_AT_ONCE,
    TOKENS_AT_ONCE,
    ZERO_BYTE,
    product,
)
from folio.fast.kernels.vectors import LANES, load, splat, store, whole
from folio.fast.kernels.weights import (
    ACTIVATION,
    BIAS,
    DEPTH,
    GELU,
    GELU_TANH,
    LAST_STRIPS,
    LINEAR,
    N_PANELS,
    PLACE,
    RELU,
    RELU2,
    SCALES,
    STRIPS,
    SWIGLU,
)
from folio.jit import kernel

TWICE_ROOT = np.float32(2 * np.sqrt(2 / np.pi))
CUBIC = np.float32(0.044715)


@kernel(inner=True)
def linear(panels, floats, matrix, first, stop, words, scales, byte_sums, n_tokens, sums, y):
    """y = activation(x W^T + bias), of some panels of the outputs.

    Args:
        panels, floats: of the `Weights`.
        matrix: (MATRIX_FIELDS,) where in them.
        first, stop: panels.
        words: (M, most words) the inputs.
        scales, byte_sums: (M,) of the inputs, where they are int8.
        n_tokens: of these, how many.
        sums: (tokens at once, STRIPS, LANES) to compute in.
        y: flat (M, O), or (M, O / 2) after SWIGLU, for which a strip of the gate and one of the
            values take turns; written.
    """
    activation = matrix[ACTIVATION]
    depth, width = matrix[DEPTH], matrix[STRIPS] * LANES
    n_outputs = (matrix[N_PANELS] - 1) * width + matrix[LAST_STRIPS] * LANES
    stride = n_outputs // 2 if activation == SWIGLU else n_outputs
    for number in range(first, stop):
        strips = matrix[STRIPS] if number < matrix[N_PANELS] - 1 else matrix[LAST_STRIPS]
        place = matrix[PLACE] + number * width * depth * numbers_in_a_word(panels)
        token = 0
        while token < n_tokens:
            together = at_once(n_tokens - token)
            x_place, x_stride = token * words.shape[1], words.shape[1]
            multiply_panel(panels, place, depth, strips, words, x_place, x_stride, together, sums)
            for i in range(together):
                found = sums[i]
                for strip in range(strips):
                    output = number * width + strip * LANES
                    total = to_float(panels, load(found, strip * LANES), byte_sums[token + i])
                    total = scaled(
                        panels, total, floats, matrix[SCALES] + output, scales[token + i]
                    )
                    store(found, strip * LANES, total + load(floats, matrix[BIAS] + output))
                n_results = activate(found, strips, activation)
                output = number * width // 2 if activation == SWIGLU else number * width
                for strip in range(n_results):
                    place_in_y = (token + i) * stride + output + strip * LANES
                    store(y, place_in_y, load(found, strip * LANES))
            token += together


@kernel(inner=True)
def multiply_panel(panels, place, depth, strips, words, x_place, x_stride, together, sums):
    """All strips of a panel times some tokens, in few products."""
    strip = 0
    while strip < strips:
        some = strips_at_once(strips - strip, together)
        product(
            panels, place, depth, strips, strip, some, words, x_place, x_stride, together, sums
        )  # fmt: skip
        strip += some


@kernel(inner=True)
def strips_at_once(strips, n_tokens):
    """The most of some strips that are multiplied together by some tokens."""
    for some in STRIPS_AT_ONCE:
        if some <= strips and some * n_tokens <= SUMS_AT_ONCE:
            return some
    return 1


@kernel(inner=True)
def at_once(n_tokens):
    """The most of some tokens that are multiplied together."""
    for together in TOKENS_AT_ONCE:
        if together <= n_tokens:
            return together
    return 1


@kernel(inner=True)
def activate(x, strips, activation):
    """Bend (STRIPS, LANES) numbers in place; returns how many strips there are then."""
    if activation == SWIGLU:
        for strip in range(strips // 2):
            gate, value, opened = x[2 * strip], x[2 * strip + 1], x[strip]
            for i in range(LANES):
                opened[i] = gate[i] * sigmoid(gate[i]) * value[i]
        return strips // 2
    if activation == LINEAR:
        return strips
    for strip in range(strips):
        row = x[strip]
        if activation == RELU:
            for i in range(LANES):
                row[i] = max(row[i], ZERO)
        elif activation == RELU2:
            for i in range(LANES):
                row[i] = max(row[i], ZERO) * max(row[i], ZERO)
        elif activation == GELU:
            for i in range(LANES):
                tail = normal_tail(row[i])[0]
                row[i] *= tail if row[i] < ZERO else ONE - tail
        elif activation == GELU_TANH:
            for i in range(LANES):
                inner = TWICE_ROOT * (row[i] + CUBIC * row[i] * row[i] * row[i])
                row[i] *= sigmoid(inner)
    return strips


def numbers_in_a_word(panels: Any) -> Any:
    """How many numbers of the panels' precision fit into 32 bits."""


@overload(numbers_in_a_word)
def _numbers_in_a_word(panels):
    count = 32 // panels.dtype.bitwidth
    return lambda panels: count


def to_float(panels: Any, total: Any, byte_sum: Any) -> Any:
    """Convert a sum of `product` to float32, and subtract what unsigned storage added to it."""


@overload(to_float)
def _to_float(panels, total, byte_sum):
    if panels.dtype == types.uint8:
        return lambda panels, total, byte_sum: whole(total, np.int32(ZERO_BYTE * byte_sum))
    return lambda panels, total, byte_sum: total


def scaled(panels: Any, total: Any, floats: Any, place: Any, scale: Any) -> Any:
    """Convert int8 sums to the numbers that they represent."""


@overload(scaled)
def _scaled(panels, total, floats, place, scale):
    if panels.dtype == types.uint8:
        return lambda panels, total, floats, place, scale: (
            total * (load(floats, place) * splat(scale))
        )
    return lambda panels, total, floats, place, scale: total


def to_words(
    panels: Any, row: Any, width: Any, words: Any, scales: Any, byte_sums: Any, token: Any
) -> None:
    """Write a row in the precision of the panels.

    Args:
        panels: whose precision counts.
        row: float32.
        width: of it, in lanes.
        words: of the token, uint32; written.
        scales, byte_sums: (M,), of which the token's are written, if it is int8.
        token: its number.
    """


@overload(to_words)
def _to_words(panels, row, width, words, scales, byte_sums, token):
    if panels.dtype == types.uint8:
        return _to_int8
    return _to_bfloat16 if panels.dtype == types.uint16 else _to_float32


def _to_float32(panels, row, width, words, scales, byte_sums, token):
    for i in range(0, width, LANES):
        store(words, i, load(row, i))


def _to_bfloat16(panels, row, width, words, scales, byte_sums, token):
    numbers = words.view(np.uint16)
    for i in range(width):
        numbers[i] = to_precision(row[i], numbers[i])


def _to_int8(panels, row, width, words, scales, byte_sums, token):
    numbers = words.view(np.int8)
    largest = LOWEST_RANK
    for i in range(width):
        largest = max(largest, to_rank(abs(row[i])))
    scale = from_rank(largest) / MOST_INT8
    per_scale = ONE / scale if scale > ZERO else ZERO
    total = np.int32(0)
    for i in range(width):
        number = np.int32(np.rint(row[i] * per_scale))
        numbers[i] = np.int8(number)
        total += number
    scales[token], byte_sums[token] = scale, total
