"""Weights in fewer bits, as llama.cpp stores them: f16, bf16, and q8_0, a scale for each 32 bytes.

Shapes:  N numbers, whole rows
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folio.errors import UserError
from folio.export.gguf_file import BF16, F16, F32, Q8_0, Packed

BLOCK = 32


def pack(x: Tensor, kind: int) -> NDArray[np.uint8]:
    """Float32 weights as the bytes of a type.

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
    """The weights of a tensor in float32, (shape)."""
    data, kind = np.array(packed.data), packed.kind  # a copy, since the file is mapped
    if kind == Q8_0:
        blocks = data.reshape(-1, 2 + BLOCK)
        scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        x = torch.from_numpy(blocks[:, 2:].view(np.int8).astype(np.float32) * scales)
    else:
        dtype = {F32: torch.float32, F16: torch.float16, BF16: torch.bfloat16}[kind]
        x = torch.from_numpy(data).view(dtype).float()
    return x.reshape(packed.shape)


def _to_q8_0(blocks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Each block as a float16 scale and 32 bytes; halves are rounded away from zero."""
    scales = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    inverses = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    scaled = blocks * inverses
    whole = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8)
    return np.concatenate(
        (scales.astype(np.float16).view(np.uint8), whole.view(np.uint8)), axis=1
    ).reshape(-1)
