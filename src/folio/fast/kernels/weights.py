"""The weights of a model as the compiled decoder reads them. Free of numba.

All numbers lie in two flat arrays: `panels` has the matrices, as `products.py` reads them, and
`floats` everything else. Tables of whole numbers say where.

Shapes:  L layers · C = d_model · D head dimension · V vocabulary · O outputs of a matrix
         A width "in lanes" is padded with zeros to a multiple of 16.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LINEAR, RELU, GELU, RELU2, SWIGLU, GELU_TANH = range(6)
ACTIVATION_CODES = {
    "linear": LINEAR,
    "relu": RELU,
    "gelu": GELU,
    "gelu_tanh": GELU_TANH,
    "relu2": RELU2,
    "swiglu": SWIGLU,
}

ABSENT = -1
"""The place of what a model does not have."""

EPSILON, EMBEDDING_SCALE = range(2)
"""Indices into `floats`."""

(
    N_LAYERS,
    N_HEADS,
    N_KV_HEADS,
    HEAD_DIM,
    D_MODEL,
    CONTEXT,
    CENTERED,  # 1 for LayerNorm, 0 for RMSNorm
    POSITIONS,  # place of (context, C in lanes) that are added to the embedding
    COSINES,  # places of (context, D) for the rotation of queries and keys
    SINES,
    FINAL_NORM,
    D_FF,
    VOCABULARY,  # in lanes
    SHAPE_FIELDS,
) = range(14)
"""Column numbers of `shape`."""

QKV, OUT, UP, DOWN, MATRICES = range(5)
"""Numbers of the matrices of a layer; the head comes after the last layer."""

(
    PLACE,  # in `panels`
    BIAS,  # place in `floats` of (O in lanes)
    SCALES,  # place in `floats` of (O in lanes), of int8
    DEPTH,  # words of an input
    STRIPS,  # of each panel
    LAST_STRIPS,  # of the last panel
    N_PANELS,
    PANELS_TOGETHER,  # that one thread must compute: the ones of a head
    ACTIVATION,  # of the outputs
    MATRIX_FIELDS,
) = range(10)
"""Column numbers of `matrices`."""

(
    ATTENTION_ENTRY,
    ATTENTION_EXIT,
    ATTENTION_SUM,
    FEED_FORWARD_ENTRY,
    FEED_FORWARD_EXIT,
    FEED_FORWARD_SUM,
    QUERY_NORM,
    KEY_NORM,
    NORMS,
) = range(9)
"""Column numbers of `norms`: offsets of gains, which are followed by the biases."""


class Weights(NamedTuple):
    """The weights of a model in one precision."""

    panels: np.ndarray  # float32, uint16 (bfloat16) or uint8 (int8)
    floats: np.ndarray  # float32
    embedding: np.ndarray  # (V, C) float32, the model's own
    shape: np.ndarray  # (SHAPE_FIELDS,)
    matrices: np.ndarray  # (MATRICES L + 1, MATRIX_FIELDS)
    norms: np.ndarray  # (L, NORMS)


class Work(NamedTuple):
    """Scratch memory of T threads for up to M tokens.

    What begins with T + 1 is of one thread each, and at the end of all.
    """

    x: np.ndarray  # (T + 1, M C in lanes) the residual stream
    words: np.ndarray  # (T + 1, M, words of the widest input) uint32
    scales: np.ndarray  # (T + 1, M) by which int8 inputs give the numbers back
    byte_sums: np.ndarray  # (T + 1, M) int32, of such inputs
    sums: np.ndarray  # (T, tokens at once, STRIPS, LANES) of one panel
    row: np.ndarray  # (T, the widest input) of one token
    attention: np.ndarray  # (T, positions in lanes) the weights of one query
    heads: np.ndarray  # (M (H + 2 K) D,) queries, keys and values, each D in lanes
    mixed: np.ndarray  # (M H D,)
    wide: np.ndarray  # (M F,)
    change: np.ndarray  # (M C,)
    tokens: np.ndarray  # (M, 4) token id, position, row in the cache, row of logits or -1
    job: np.ndarray  # (JOB_FIELDS,) what a step is about
    counters: np.ndarray  # (COUNTERS * APART,) that threads wait for


(
    N_TOKENS,
    N_SCORED,
    KEYS,  # addresses of the caches, (L, B, K, S, D)
    VALUES,
    CACHE_ROWS,  # B
    CACHE_LENGTH,  # S
    LOGITS,  # address of (N_SCORED, V in lanes)
    N_THREADS,
    FIRST_ARRIVAL,  # at the barrier, of this step
    JOB_FIELDS,
) = range(10)
"""Indices into `job`."""

APART = 16
"""Numbers between two counters, so that each has a cache line to itself, and the next one too."""
ARRIVALS, STARTED, OWN_TURN = range(3)
"""Counters: at the barrier; of steps; and from here on how many arrivals each thread waits for."""

PLACE_NUMBERS = 5
"""Numbers per entry in a table of arrays: the address and up to four lengths."""
