"""Weights in fewer bits, against ggml's own."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from folio.export.gguf_file import BF16, F16, F32, Q4_0, Q4_1, Q8_0, Packed
from folio.export.quantize import pack, unpack

KINDS = {F32: "F32", F16: "F16", BF16: "BF16", Q8_0: "Q8_0"}


def weights() -> torch.Tensor:
    """Ordinary ones, a block of zeros, halves that are rounded, and tiny ones."""
    x = torch.randn(6, 96, generator=torch.Generator().manual_seed(0))
    x[1, :32] = 0
    x[2, :32] = torch.arange(32) / 2 + 111.5
    x[3] *= 1e-7
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_those_of_ggml_and_are_read_as_it_reads_them(kind: int):
    x, theirs = weights(), gguf.GGMLQuantizationType[KINDS[kind]]
    packed = pack(x, kind)
    expected = gguf.quants.quantize(x.numpy(), theirs)
    np.testing.assert_array_equal(packed, expected.view(np.uint8).reshape(-1))
    read = unpack(Packed((6, 96), kind, packed))
    np.testing.assert_array_equal(read.numpy(), gguf.quants.dequantize(expected, theirs))
    assert read.shape == x.shape


@pytest.mark.parametrize("kind", [Q4_0, Q4_1], ids=["q4_0", "q4_1"])
def test_4_bits_are_read_as_ggml_reads_them(kind: int):
    theirs = gguf.GGMLQuantizationType(kind)
    packed = gguf.quants.quantize(weights().numpy(), theirs)
    read = unpack(Packed((6, 96), kind, packed.view(np.uint8).reshape(-1)))
    np.testing.assert_array_equal(read.numpy(), gguf.quants.dequantize(packed, theirs))


def test_8_bits_are_off_by_half_a_step_at_most():
    x = weights()
    read = unpack(Packed((6, 96), Q8_0, pack(x, Q8_0)))
    steps = x.view(-1, 32).abs().amax(1, keepdim=True) / 127
    # Half a step, and what float16 loses of the scale: 2^-11 of it, 127 times, or all below 3e-8.
    assert ((read - x).view(-1, 32).abs() <= steps * (0.5 + 127 / 2048) + 127 * 3e-8).all()
