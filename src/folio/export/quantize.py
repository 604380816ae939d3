"""Weights in fewer bits, as llama.cpp stores them: f16, bf16, and blocks of 32 with a scale each.

Of 8 bits (q8_0) they are written and read, of 4 bits only read: such a model comes in as it is, but
a small one does not leave that way.

Source: https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folio.errors import UserError
from folio.export.gguf_file import BF16, BLOCKS, F16, F32, Q4_0, Q4_1, Q8_0, Packed

BLOCK = 32


def pack(x: Tensor, kind: int) -> NDArray[np.uint8]:
    """Write float32 weights as the bytes of a type.

    Args:
        x: any shape; for Q8_0 rows of a multiple of 32.
        kind: F32, F16, BF16 or Q8_0.

    Raises:
        UserError: a weight is too large for the type.
    """
    if kind == Q8_0:
        return _to_q8_0(x.contiguous().numpy().reshape(-1, BLOCK))
    dtype = {F32: torch.float32, F16: torch.float16, BF16: torch.bfloat16}[kind]
    packed = x.to(dtype).contiguous()
    if x.isfinite().all() and not packed.isfinite().all():
        raise UserError(f"A weight of {float(x.abs().max()):.3g} is beyond f16. Give --type bf16.")
    return packed.view(torch.uint8).numpy().reshape(-1)


def unpack(packed: Packed) -> Tensor:
    """Read the weights of a tensor as float32, (shape)."""
    data, kind = np.array(packed.data), packed.kind  # a copy, since the file is mapped
    if kind in (Q8_0, Q4_0, Q4_1):
        x = torch.from_numpy(_from_blocks(data.reshape(-1, BLOCKS[kind][1]), kind))
    else:
        dtype = {F32: torch.float32, F16: torch.float16, BF16: torch.bfloat16}[kind]
        x = torch.from_numpy(data).view(dtype).float()
    return x.reshape(packed.shape)


def _from_blocks(blocks: NDArray[np.uint8], kind: int) -> NDArray[np.float32]:
    """Read blocks: (R, bytes of a block) -> (R, BLOCK) numbers."""
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    if kind == Q8_0:
        return blocks[:, 2:].view(np.int8) * scales
    halves = blocks[:, -BLOCK // 2 :]  # number i beside number i + 16
    numbers = np.concatenate((halves & 15, halves >> 4), axis=1).astype(np.float32)
    if kind == Q4_0:
        return (numbers - 8) * scales
    least = blocks[:, 2:4].copy().view(np.float16).astype(np.float32)
    return numbers * scales + least


def _to_q8_0(blocks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Write each block as a float16 scale and 32 bytes; halves are rounded away from zero."""
    scales = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    inverses = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    scaled = blocks * inverses
    whole = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8)
    return np.concatenate(
        (scales.astype(np.float16).view(np.uint8), whole.view(np.uint8)), axis=1
    ).reshape(-1)
