"""What compressors make of a text that follows another: they learn while they read.

The compressed size of both minus that of the first, in bits of the second. A model's *exact* loss
does not learn from the text that it is tested on, so the two are named for what they are.
"""

from __future__ import annotations

import importlib.util
import lzma
from collections.abc import Callable

PPMD_ORDER = 6
PPMD_MEMORY = 256 << 20
PPMD_READS = 128 << 20
"""Bytes of the first text, its last ones, that are read; then its table is full."""
XZ_READS = 16 << 20
"""It looks back on 64 MB at most, and takes a second for two of them."""


def xz_bits(before: bytes, text: bytes) -> int:
    """Of a text after another, by xz at its slowest setting."""

    def size(data: bytes) -> int:
        return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))

    return _bits(before[-XZ_READS:], text, size)


def ppmd_bits(before: bytes, text: bytes, order: int = PPMD_ORDER) -> int:
    """Of a text after another, by PPMd (variant H, as in 7-Zip)."""
    import pyppmd

    def size(data: bytes) -> int:
        encoder = pyppmd.Ppmd7Encoder(order, PPMD_MEMORY)
        return len(encoder.encode(data)) + len(encoder.flush())

    return _bits(before[-PPMD_READS:], text, size)


def has_ppmd() -> bool:
    """Whether the extra `baselines` is installed."""
    return importlib.util.find_spec("pyppmd") is not None


def _bits(before: bytes, text: bytes, size: Callable[[bytes], int]) -> int:
    return 8 * (size(before + text) - size(before))
