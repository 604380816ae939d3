"""The weights of a model laid out for the compiled decoder, in one of three precisions.

Shapes:  O outputs, I inputs of a matrix · D head dimension · C = d_model · V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from folio.fast.arrays import Array, ModelArrays
from folio.fast.kernels import weights as fields
from folio.fast.kernels.weights import ABSENT, ACTIVATION_CODES, Weights

Precision = Literal["float32", "bfloat16", "int8"]

LANES, STRIPS, ZERO_BYTE = 16, 4, 128
"""The same constants as in `kernels/products.py`, which needs numba."""
STORED: dict[Precision, Any] = {
    "float32": np.float32,
    "bfloat16": np.uint16,
    "int8": np.uint8,
}
ALIGNMENT = 64
"""Size of a cache line in bytes: a vector that crosses two lines is read twice."""


def pack(model: ModelArrays, precision: Precision) -> Weights:
    """Copy the weights of a model into the order in which they are read."""
    config = model.config
    packer = _Packer(config.n_layers, precision)
    floats = packer.floats
    scale = config.d_model**0.5 if config.scale_embeddings else 1.0
    floats.add(np.array([config.normalization_epsilon, scale], np.float32))
    norms = np.full((config.n_layers, fields.NORMS), ABSENT, np.int64)
    for layer in range(config.n_layers):
        block = f"blocks.{layer}"
        heads = padded_heads(model, f"{block}.attention.qkv_proj")
        packer.add(fields.QKV, layer, *heads, together=in_strips(config.head_width))
        packer.add(fields.OUT, layer, *model.linear(f"{block}.attention.out_proj"))
        wide = wide_rows(model, f"{block}.feed_forward")
        packer.add(fields.UP, layer, *wide, activation=config.activation)
        packer.add(fields.DOWN, layer, *model.linear(f"{block}.feed_forward.down_proj"))
        norms[layer] = [
            floats.add_norm(model.norm(f"{block}.{norm}"))
            for norm in (
                "attention_norm",
                "attention_exit_norm",
                "attention_sum_norm",
                "feed_forward_norm",
                "feed_forward_exit_norm",
                "feed_forward_sum_norm",
                "attention.q_norm",
                "attention.k_norm",
            )
        ]
    packer.add(0, config.n_layers, *model.linear("lm_head"))
    shape = np.full(fields.SHAPE_FIELDS, ABSENT, np.int64)
    shape[fields.N_LAYERS] = config.n_layers
    shape[fields.N_HEADS] = config.n_heads
    shape[fields.N_KV_HEADS] = config.key_value_heads
    shape[fields.HEAD_DIM] = config.head_width
    shape[fields.D_MODEL] = config.d_model
    shape[fields.D_FF] = config.feed_forward_width
    shape[fields.CONTEXT] = config.context_length
    shape[fields.VOCABULARY] = config.vocab_size
    shape[fields.CENTERED] = config.normalization == "layernorm"
    shape[fields.FINAL_NORM] = floats.add_norm(model.norm("final_norm"))
    if (table := model.added_positions()) is not None:
        shape[fields.POSITIONS] = floats.add(padded(table))
    if config.positions == "rope":
        cosines, sines = model.rotation()
        shape[fields.COSINES], shape[fields.SINES] = floats.add(cosines), floats.add(sines)
    floats.add(np.zeros(LANES, np.float32))  # which a last vector may reach into
    embedding = np.require(model.arrays["token_embedding.weight"], requirements=["C", "A", "W"])
    panels = packer.panels()
    return Weights(panels, floats.array(), embedding, shape, packer.matrices, norms)


class _Floats:
    """Numbers one after the other."""

    def __init__(self) -> None:
        self.parts: list[Array] = []
        self.length = 0

    def add(self, numbers: Array) -> int:
        """Append numbers; returns their place."""
        place = self.length
        self.parts.append(numbers.reshape(-1))
        self.length += numbers.size
        return place

    def add_norm(self, norm: Array | None) -> int:
        """Append gains and biases; returns their place, or ABSENT."""
        return ABSENT if norm is None else self.add(padded(norm))

    def array(self) -> Array:
        """All values as one array."""
        return aligned_copy(self.parts, np.float32)


class _Packer:
    """Matrices one after the other, and where each stands."""

    def __init__(self, n_layers: int, precision: Precision) -> None:
        self.precision: Precision = precision
        self.floats = _Floats()
        self.matrices = np.zeros((fields.MATRICES * n_layers + 1, fields.MATRIX_FIELDS), np.int64)
        self.parts: list[np.ndarray] = []
        self.length = 0

    def add(
        self,
        kind: int,
        layer: int,
        rows: Array,
        bias: Array,
        together: int = 1,
        activation: str = "linear",
    ) -> None:
        """Append one.

        Args:
            kind: QKV, OUT, UP or DOWN.
            layer: its number; the head comes in one after the last.
            rows: (O, I).
            bias: (O,).
            together: strips of 16 outputs that one thread must compute.
            activation: of the outputs.
        """
        rows = padded(padded(rows), axis=0)
        strips = panel_width(together)
        n_strips = len(rows) // LANES
        n_panels = -(-n_strips // strips)
        entry = self.matrices[fields.MATRICES * layer + kind]
        entry[fields.PLACE] = self.length
        entry[fields.BIAS] = self.floats.add(padded(bias))
        if self.precision == "int8":
            rows, scales = to_int8(rows)
            entry[fields.SCALES] = self.floats.add(scales)
        elif self.precision == "bfloat16":
            rows = to_bfloat16(rows)
        words = rows.view(np.uint32)
        entry[fields.DEPTH] = words.shape[1]
        entry[fields.STRIPS] = strips
        entry[fields.LAST_STRIPS] = n_strips - (n_panels - 1) * strips
        entry[fields.N_PANELS] = n_panels
        entry[fields.PANELS_TOGETHER] = max(1, together // strips)
        entry[fields.ACTIVATION] = ACTIVATION_CODES[activation]
        whole = (n_panels - 1) * strips * LANES
        for some in (words[:whole], words[whole:]):
            if len(some):
                panels = to_panels(some, min(strips, len(some) // LANES))
                self.parts.append(panels.view(STORED[self.precision]))
        self.length += rows.size

    def panels(self) -> np.ndarray:
        """All panels as one array."""
        return aligned_copy(self.parts, STORED[self.precision])


def to_panels(words: np.ndarray, strips: int) -> np.ndarray:
    """(O, N) words -> flat: panel after panel, in each word after word, in each output after
    output.
    """
    return words.reshape(-1, strips * LANES, words.shape[1]).swapaxes(1, 2).reshape(-1)


def to_bfloat16(rows: Array) -> np.ndarray:
    """(O, I) -> the upper halves of the nearest numbers; of two, the even one."""
    bits = rows.view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(rows), 0x7FC0, rounded).astype(np.uint16)


@np.errstate(invalid="ignore")  # of a model that diverged
def to_int8(rows: Array) -> tuple[np.ndarray, Array]:
    """(O, I) -> bytes above ZERO_BYTE, and the (O,) scales by which they give the rows back."""
    scales = np.abs(rows).max(axis=1) / np.float32(127)
    per_scale = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    return ((rows * per_scale[:, None]).round() + ZERO_BYTE).astype(np.uint8), scales


def panel_width(together: int) -> int:
    """Strips per panel if `together` of them must not be separated: the most that divide that
    number, or that it divides.

    >>> [panel_width(strips) for strips in (1, 2, 3, 4, 5, 6, 8)]
    [4, 4, 3, 4, 1, 3, 4]
    """
    if together <= STRIPS:
        return STRIPS // together * together
    return max(width for width in range(1, STRIPS + 1) if together % width == 0)


def in_strips(width: int) -> int:
    """Number of strips of 16 that hold a width."""
    return -(-width // LANES)


def in_lanes(width: int) -> int:
    """A width rounded up to whole lanes."""
    return in_strips(int(width)) * LANES


def padded(x: Array, axis: int = -1) -> Array:
    """(..., width, ...) -> (..., width in lanes, ...), with zeros."""
    lacking = -x.shape[axis] % LANES
    if not lacking:
        return x
    shape = list(x.shape)
    shape[axis] = lacking
    return np.concatenate((x, np.zeros(shape, x.dtype)), axis)


def padded_heads(model: ModelArrays, name: str) -> tuple[Array, Array]:
    """Weights and biases whose every head fills whole strips."""

    def pad(x: Array) -> Array:
        heads = x.reshape(-1, model.config.head_width, *x.shape[1:])
        return padded(heads, axis=1).reshape(-1, *x.shape[1:])

    weight, bias = model.linear(name)
    return pad(weight), pad(bias)


def wide_rows(model: ModelArrays, name: str) -> tuple[Array, Array]:
    """Weights and biases of the widening layer; strips of gate and values in turn, where it has
    both.
    """
    up = model.linear(f"{name}.up_proj")
    if model.config.activation != "swiglu":
        return up

    def in_turn(gate: Array, up: Array) -> Array:
        strips = [padded(x, axis=0).reshape(-1, LANES, *x.shape[1:]) for x in (gate, up)]
        return np.stack(strips, axis=1).reshape(-1, *up.shape[1:])

    gate = model.linear(f"{name}.gate_proj")
    return in_turn(gate[0], up[0]), in_turn(gate[1], up[1])


def aligned(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Zeros that begin with a line of the caches; a large block lies in huge pages, where there
    are any.
    """
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    block = np.zeros(n_bytes + ALIGNMENT, np.uint8)
    first = -block.ctypes.data % ALIGNMENT
    return block[first : first + n_bytes].view(dtype).reshape(shape)


def aligned_copy(parts: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    """(N,) the parts one after the other."""
    whole = aligned([sum(map(len, parts))], dtype)
    return np.concatenate(parts, out=whole)
