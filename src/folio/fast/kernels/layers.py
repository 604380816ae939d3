"""All kernels of the layers, by name."""

from __future__ import annotations

from folio.fast.kernels.attention import (
    causal_softmax,
    causal_softmax_backward,
    merge_heads,
    rotate_heads,
    rotate_heads_backward,
    split_heads,
)
from folio.fast.kernels.elementwise import add, add_dropped, drop, gelu, multiply, sum_rows, swiglu
from folio.fast.kernels.embedding import (
    add_positions,
    add_positions_backward,
    embedding,
    embedding_backward,
)
from folio.fast.kernels.int8 import (
    columns_to_int8,
    from_int32,
    measure_both_ways,
    to_int8,
    to_int8_both_ways,
)
from folio.fast.kernels.loss import cross_entropy, cross_entropy_backward
from folio.fast.kernels.norms import layer_norm, layer_norm_backward, rms_norm, rms_norm_backward

__all__ = [
    "add",
    "add_dropped",
    "add_positions",
    "add_positions_backward",
    "causal_softmax",
    "causal_softmax_backward",
    "columns_to_int8",
    "cross_entropy",
    "cross_entropy_backward",
    "drop",
    "embedding",
    "embedding_backward",
    "from_int32",
    "gelu",
    "layer_norm",
    "layer_norm_backward",
    "measure_both_ways",
    "merge_heads",
    "multiply",
    "rms_norm",
    "rms_norm_backward",
    "rotate_heads",
    "rotate_heads_backward",
    "split_heads",
    "sum_rows",
    "swiglu",
    "to_int8",
    "to_int8_both_ways",
]
