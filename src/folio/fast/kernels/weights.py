"""The weights of a model as the compiled decoder reads them. Free of numba.

Shapes:  L layers · C = d_model · K heads of keys and values · D head dimension · F = d_ff
         V vocabulary · W all query heads side by side
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LINEAR, RELU, GELU, RELU2, SWIGLU, GELU_TANH = range(6)
ACTIVATION_CODES = {
    "relu": RELU,
    "gelu": GELU,
    "gelu_tanh": GELU_TANH,
    "relu2": RELU2,
    "swiglu": SWIGLU,
}


class Weights(NamedTuple):
    """A model's float32 weights, like kinds side by side. An empty array stands for a part that
    the model does not have; an absent bias is 0.
    """

    embedding: np.ndarray  # (V, C)
    embedding_scale: np.float32
    positions: np.ndarray  # (context, C) added to the embedding, or empty
    cosines: np.ndarray  # (context, D) for the rotation of queries and keys, or empty
    sines: np.ndarray  # (context, D)
    qkv: np.ndarray  # (L, W + 2 K D, C)
    qkv_bias: np.ndarray  # (L, W + 2 K D)
    out: np.ndarray  # (L, C, W)
    out_bias: np.ndarray  # (L, C)
    up: np.ndarray  # (L, F, C), or (L, 2 F, C) with the gate above
    up_bias: np.ndarray  # (L, F) or (L, 2 F)
    down: np.ndarray  # (L, C, F)
    down_bias: np.ndarray  # (L, C)
    head: np.ndarray  # (V, C)
    head_bias: np.ndarray  # (V,)
    head_norms: np.ndarray  # (2 L, 2, D) gain and bias, of queries and of keys in turn
    entry_norms: np.ndarray  # (2 L, 2, C), of attention and of feed-forward in turn
    exit_norms: np.ndarray
    sum_norms: np.ndarray
    final_norm: np.ndarray  # (1, 2, C)
    epsilon: np.float32
    centered: bool  # LayerNorm; else RMSNorm
    activation: int
