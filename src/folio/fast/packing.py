"""The weights of a model laid out for the compiled decoder, in one of three precisions.

Shapes:  O outputs, I inputs of a matrix · D head dimension · C = d_model · V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from folio.fast.kernels import weights as fields
from folio.fast.kernels.weights import ABSENT, ACTIVATION_CODES, Weights
from folio.model.gpt import GPT

Precision = Literal["float32", "bfloat16", "int8"]

LANES, STRIPS, ZERO_BYTE = 16, 4, 128
"""As in `kernels/products.py`, which needs numba."""
PER_WORD = {"float32": 1, "bfloat16": 2, "int8": 4}
STORED: dict[str, Any] = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.uint8}
ALIGNMENT = 64
"""Bytes of a line of the processor's caches: a vector that lies across two is read twice."""


def pack(model: GPT, precision: Precision) -> Weights:
    """Lay the weights of a model out; later changes to the model are not seen."""
    config = model.config
    packer = _Packer(config.n_layers, precision)
    floats = packer.floats
    floats.add(torch.tensor([config.normalization_epsilon, model.embedding_scale]))
    blocks: list[Any] = list(model.blocks)
    norms = np.full((config.n_layers, fields.NORMS), ABSENT, np.int64)
    for layer, block in enumerate(blocks):
        attention, feed_forward = block.attention, block.feed_forward
        heads = attention.qkv_proj, config.head_width
        together = in_strips(config.head_width)
        packer.add(fields.QKV, layer, *padded_heads(*heads), together=together)
        packer.add(fields.OUT, layer, attention.out_proj.weight, attention.out_proj.bias)
        packer.add(fields.UP, layer, *wide_rows(feed_forward), activation=config.activation)
        down = feed_forward.down_proj
        packer.add(fields.DOWN, layer, down.weight, down.bias)
        norms[layer] = [
            floats.add_norm(norm)
            for norm in (
                block.attention_norm,
                block.attention_exit_norm,
                block.attention_sum_norm,
                block.feed_forward_norm,
                block.feed_forward_exit_norm,
                block.feed_forward_sum_norm,
                attention.q_norm,
                attention.k_norm,
            )
        ]
    packer.add(0, config.n_layers, model.lm_head.weight, None)
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
    shape[fields.FINAL_NORM] = floats.add_norm(model.final_norm)
    positions: Any = model.positions
    if config.positions in ("learned", "sinusoidal"):
        table = positions.weight if config.positions == "learned" else positions.table
        shape[fields.POSITIONS] = floats.add(padded(table))
    if (rotary := blocks[0].attention.rotary) is not None:
        shape[fields.COSINES] = floats.add(rotary.cosines)
        shape[fields.SINES] = floats.add(rotary.sines)
    floats.add(torch.zeros(LANES))  # which a last vector may reach into
    embedding = model.token_embedding.weight.detach().contiguous().numpy()
    panels = packer.panels()
    return Weights(panels, floats.array(), embedding, shape, packer.matrices, norms)


class _Floats:
    """Numbers one after the other."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.length = 0

    def add(self, numbers: Tensor) -> int:
        """Append numbers; returns their place."""
        place = self.length
        self.parts.append(numbers.detach().to(torch.float32).contiguous().view(-1).numpy())
        self.length += numbers.numel()
        return place

    def add_norm(self, norm: nn.Module) -> int:
        """Append gains and biases; returns their place, or ABSENT."""
        if isinstance(norm, nn.Identity):
            return ABSENT
        gain: Any = norm.weight
        bias: Any = getattr(norm, "bias", None)
        return self.add(
            torch.stack((padded(gain), padded(torch.zeros_like(gain) if bias is None else bias)))
        )

    def array(self) -> np.ndarray:
        """All of them."""
        return aligned_copy(self.parts, np.float32)


class _Packer:
    """Matrices one after the other, and where each stands."""

    def __init__(self, n_layers: int, precision: Precision) -> None:
        self.precision = precision
        self.floats = _Floats()
        self.matrices = np.zeros((fields.MATRICES * n_layers + 1, fields.MATRIX_FIELDS), np.int64)
        self.parts: list[np.ndarray] = []
        self.length = 0

    def add(
        self,
        kind: int,
        layer: int,
        rows: Tensor,
        bias: Tensor | None,
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
        rows = F.pad(padded(rows.detach()), (0, 0, 0, -len(rows) % LANES))
        n_outputs, n_inputs = rows.shape
        bias = torch.zeros(n_outputs) if bias is None else padded(bias.detach())
        strips = panel_width(together)
        n_strips = n_outputs // LANES
        n_panels = -(-n_strips // strips)
        entry = self.matrices[fields.MATRICES * layer + kind]
        entry[fields.PLACE] = self.length
        entry[fields.BIAS] = self.floats.add(bias)
        entry[fields.DEPTH] = n_inputs // PER_WORD[self.precision]
        entry[fields.STRIPS] = strips
        entry[fields.LAST_STRIPS] = n_strips - (n_panels - 1) * strips
        entry[fields.N_PANELS] = n_panels
        entry[fields.PANELS_TOGETHER] = max(1, together // strips)
        entry[fields.ACTIVATION] = ACTIVATION_CODES[activation]
        if self.precision == "int8":
            rows, scales = to_int8(rows)
            entry[fields.SCALES] = self.floats.add(scales)
        elif self.precision == "bfloat16":
            rows = rows.to(torch.bfloat16).view(torch.int16)
        whole = (n_panels - 1) * strips * LANES
        for some in (rows[:whole], rows[whole:]):
            if len(some):
                width = min(strips, len(some) // LANES)
                part = to_panels(some, width, PER_WORD[self.precision])
                self.parts.append(part.numpy().view(STORED[self.precision]))
        self.length += rows.numel()

    def panels(self) -> np.ndarray:
        """All of them."""
        return aligned_copy(self.parts, STORED[self.precision])


def to_panels(rows: Tensor, strips: int, per_word: int) -> Tensor:
    """(O, I) -> flat: panel after panel, in each word after word, in each output after output."""
    n_inputs = rows.shape[1]
    split = rows.view(-1, strips * LANES, n_inputs // per_word, per_word)
    return split.transpose(1, 2).reshape(-1)


def to_int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(O, I) -> bytes above ZERO_BYTE, and the (O,) scales by which they give the rows back."""
    scales = rows.abs().amax(dim=1) / 127
    per_scale = torch.where(scales > 0, 1 / scales, 0.0)
    return ((rows * per_scale[:, None]).round() + ZERO_BYTE).to(torch.uint8), scales


def panel_width(together: int) -> int:
    """Strips of a panel where so many must stay together: the most that divide them, or that they
    divide.

    >>> [panel_width(strips) for strips in (1, 2, 3, 4, 5, 6, 8)]
    [4, 4, 3, 4, 1, 3, 4]
    """
    if together <= STRIPS:
        return STRIPS // together * together
    return max(width for width in range(1, STRIPS + 1) if together % width == 0)


def in_strips(width: int) -> int:
    """Strips of 16 that hold a width."""
    return -(-width // LANES)


def in_lanes(width: int) -> int:
    """A width with its padding."""
    return in_strips(int(width)) * LANES


def padded(x: Tensor) -> Tensor:
    """(..., width) -> (..., width in lanes), with zeros."""
    return F.pad(x, (0, -x.shape[-1] % LANES))


def padded_heads(layer: nn.Linear, head_dim: int) -> tuple[Tensor, Tensor]:
    """Weights and biases whose every head fills whole strips."""

    def pad(x: Tensor) -> Tensor:
        heads = x.detach().view(-1, head_dim, *x.shape[1:])
        return F.pad(heads, (0, 0) * (x.dim() - 1) + (0, -head_dim % LANES)).flatten(0, 1)

    return pad(layer.weight), pad(_bias(layer))


def wide_rows(layer: Any) -> tuple[Tensor, Tensor]:
    """Weights and biases of the widening layer; strips of gate and values in turn, where it has
    both.
    """

    def strips(linear: nn.Linear) -> list[Tensor]:
        tensors = linear.weight.detach(), _bias(linear)
        return [
            F.pad(x, (0, 0) * (x.dim() - 1) + (0, -len(x) % LANES)).view(-1, LANES, *x.shape[1:])
            for x in tensors
        ]

    up = strips(layer.up_proj)
    if not hasattr(layer, "gate_proj"):
        weight, bias = (x.flatten(0, 1) for x in up)
    else:
        both = zip(strips(layer.gate_proj), up)
        weight, bias = (torch.stack(pair, dim=1).flatten(0, 2) for pair in both)
    return weight, bias


def _bias(layer: nn.Linear) -> Tensor:
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach()


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
