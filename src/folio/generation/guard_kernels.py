"""Filling the table of `guard.py`, compiled."""

from __future__ import annotations

import numpy as np

from folio.jit import kernel

_ONE, _THREE, _SEVEN, _HALF = np.uint64(1), np.uint64(3), np.uint64(7), np.uint64(32)


@kernel()
def insert(bits, hashes, probes):
    """Set the bits of some hashes."""
    n_bits = np.uint64(len(bits) * 8)
    for i in range(len(hashes)):
        value = hashes[i]
        step = (value >> _HALF) | _ONE
        for _ in range(probes):
            place = value % n_bits
            bits[np.int64(place >> _THREE)] |= np.uint8(_ONE << (place & _SEVEN))
            value += step
