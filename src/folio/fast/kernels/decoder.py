"""One token through the whole model in compiled code; `GPT.forward` is the twin to read.

A step for one sequence reads every weight once and computes little with each, so its speed is
that of the memory. Multiplying by the rows of a matrix on all threads is what this file adds;
the rest keeps the time between two matrices short.

Imports numba, and is imported only when a step is first taken.

Shapes:  H heads · K heads of keys and values · S positions · D head dimension
         C = d_model · F = d_ff · V vocabulary · L layers · I inputs, O outputs of a matrix
"""

from __future__ import annotations

import math

import numpy as np
from numba import get_num_threads, prange, set_num_threads

from folio.fast.kernels.weights import GELU, GELU_TANH, LINEAR, RELU, RELU2, SWIGLU
from folio.jit import kernel

ZERO, ONE = np.float32(0), np.float32(1)


def step_on(n_threads, *arguments):
    """`step` on that many threads; numba's own number is put back."""
    before = get_num_threads()
    set_num_threads(n_threads)
    try:
        step(*arguments)
    finally:
        set_num_threads(before)


@kernel(fastmath=True)
def step(weights, keys, values, position, token_id, logits):
    """Read one token, append to the cache, score the next.

    Args:
        weights: of the whole model (`Weights`).
        keys, values: (L, K, S, D), full up to `position`, which is written.
        position: of the token, below S.
        token_id: below V.
        logits: (V,), written.
    """
    n_layers, n_kv_heads, _, head_dim = keys.shape
    d_model = weights.embedding.shape[1]
    n_heads = weights.out.shape[2] // head_dim
    epsilon, centered = weights.epsilon, weights.centered

    change = np.empty(d_model, np.float32)
    mixed = np.empty((n_heads, head_dim), np.float32)
    heads = np.empty((n_heads + 2 * n_kv_heads, head_dim), np.float32)  # q, then k, then v
    wide = np.empty(weights.down.shape[2], np.float32)  # (F,)

    x = np.empty(d_model, np.float32)
    for i in range(d_model):
        x[i] = weights.embedding[token_id, i] * weights.embedding_scale
        if len(weights.positions):
            x[i] += weights.positions[position, i]
    for layer in range(n_layers):
        normalize(x, weights.entry_norms, 2 * layer, epsilon, centered, change)
        linear(weights.qkv[layer], weights.qkv_bias[layer], change, LINEAR, heads.reshape(-1))
        for head in range(n_heads + n_kv_heads):
            which = 2 * layer + (head >= n_heads)
            normalize(heads[head], weights.head_norms, which, epsilon, centered, heads[head])
            if len(weights.cosines):
                rotate(heads[head], weights.cosines[position], weights.sines[position])
        for head in range(n_kv_heads):
            for d in range(head_dim):
                keys[layer, head, position, d] = heads[n_heads + head, d]
                values[layer, head, position, d] = heads[n_heads + n_kv_heads + head, d]
        attend(heads[:n_heads], keys[layer], values[layer], position + 1, mixed)
        linear(weights.out[layer], weights.out_bias[layer], mixed.reshape(-1), LINEAR, change)
        normalize(change, weights.exit_norms, 2 * layer, epsilon, centered, change)
        add(x, change)
        normalize(x, weights.sum_norms, 2 * layer, epsilon, centered, x)

        normalize(x, weights.entry_norms, 2 * layer + 1, epsilon, centered, change)
        linear(weights.up[layer], weights.up_bias[layer], change, weights.activation, wide)
        linear(weights.down[layer], weights.down_bias[layer], wide, LINEAR, change)
        normalize(change, weights.exit_norms, 2 * layer + 1, epsilon, centered, change)
        add(x, change)
        normalize(x, weights.sum_norms, 2 * layer + 1, epsilon, centered, x)
    normalize(x, weights.final_norm, 0, epsilon, centered, x)
    linear(weights.head, weights.head_bias, x, LINEAR, logits)


@kernel(fastmath=True, parallel=True)
def linear(matrix, bias, x, activation, out):
    """out = activation(matrix @ x + bias), the rows shared among the threads.

    Args:
        matrix: (O, I); for SWIGLU (2 O, I), the gate above the values.
        bias: (O,) or (2 O,).
        x: (I,).
        activation: LINEAR, RELU, GELU, GELU_TANH, RELU2 or SWIGLU.
        out: (O,), written.
    """
    for row in prange(len(out)):
        y = dot(matrix[row], x) + bias[row]
        if activation == RELU:
            y = max(y, ZERO)
        elif activation == RELU2:
            y = max(y, ZERO) * max(y, ZERO)
        elif activation == GELU:
            y = np.float32(0.5) * y * (ONE + math.erf(y * np.float32(math.sqrt(0.5))))
        elif activation == GELU_TANH:
            inner = np.float32(math.sqrt(2 / math.pi)) * (y + np.float32(0.044715) * y * y * y)
            y = np.float32(0.5) * y * (ONE + math.tanh(inner))
        elif activation == SWIGLU:
            value = dot(matrix[len(out) + row], x) + bias[len(out) + row]
            y = y / (ONE + math.exp(-y)) * value
        out[row] = y


@kernel(fastmath=True, parallel=True)
def attend(queries, keys, values, length, out):
    """Attention of one position over the cache, the heads shared among the threads.

    Args:
        queries: (H, D).
        keys, values: (K, S, D), of which the first `length` positions are seen.
        out: (H, D), written.
    """
    group = len(queries) // len(keys)
    scale = np.float32(1 / math.sqrt(queries.shape[1]))
    for head in prange(len(queries)):
        source = head // group
        weights = np.empty(length, np.float32)
        highest = np.float32(-np.inf)
        for s in range(length):
            weights[s] = dot(queries[head], keys[source, s]) * scale
            highest = max(highest, weights[s])
        total = ZERO
        for s in range(length):
            weights[s] = math.exp(weights[s] - highest)
            total += weights[s]
        for d in range(out.shape[1]):
            out[head, d] = ZERO
        for s in range(length):
            share = weights[s] / total
            for d in range(out.shape[1]):
                out[head, d] += share * values[source, s, d]


@kernel(fastmath=True)
def dot(a, b):
    """Sum of products: two (N,) -> a number."""
    total = ZERO
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@kernel(fastmath=True)
def add(x, change):
    """x += change, both (N,). A loop, as all here: numba takes seconds to compile a slice."""
    for i in range(len(x)):
        x[i] += change[i]


@kernel(fastmath=True)
def normalize(x, norms, which, epsilon, centered, out):
    """LayerNorm, or RMSNorm where not `centered`, of (N,) into `out`, which may be x.

    Args:
        norms: (_, 2, N) gains and biases, of which `which` is taken; empty: x is copied.
    """
    if len(norms) == 0:
        for i in range(len(x)):
            out[i] = x[i]
        return
    mean = ZERO
    if centered:
        for i in range(len(x)):
            mean += x[i]
        mean /= np.float32(len(x))
    variance = ZERO
    for i in range(len(x)):
        variance += (x[i] - mean) * (x[i] - mean)
    factor = ONE / math.sqrt(variance / np.float32(len(x)) + epsilon)
    for i in range(len(x)):
        out[i] = (x[i] - mean) * factor * norms[which, 0, i] + norms[which, 1, i]


@kernel(fastmath=True)
def rotate(x, cosines, sines):
    """Turn (D,) in place, dimension i with i + D/2, as `RotaryPositions` does."""
    half = len(x) // 2
    for i in range(half):
        a, b = x[i], x[i + half]
        x[i] = a * cosines[i] + b * sines[i]
        x[i + half] = b * cosines[i + half] + a * sines[i + half]
