"""A random order of n things that is computed, not stored."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def permute(indices: NDArray[np.int64], size: int, *key: int) -> NDArray[np.int64]:
    """The position of each index in the random order of `key`.

    A Feistel network: the index is cut into two halves, and each round adds a hash of one half to
    the other, which is invertible and so one to one. Its domain is a power of four; an index that
    leaves 0 ... size - 1 is mapped again until it is back ("cycle walking"), which keeps the map
    one to one.

    Args:
        indices: (n,) whole numbers below `size`.
        size: how many things there are.
        key: whole numbers; equal keys give equal orders.

    Returns:
        (n,) distinct whole numbers below `size`.

    Source: Luby and Rackoff 1988; Black and Rogaway 2002, "Ciphers with Arbitrary Finite
    Domains", section 3.

    >>> sorted(permute(np.arange(5), 5, 1, 2).tolist())
    [0, 1, 2, 3, 4]
    """
    digest = hashlib.sha256(repr(key).encode("ascii")).digest()
    round_keys = np.frombuffer(digest, dtype="<u8")  # four: enough for a strong permutation
    half_bits = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
    half_mask = np.uint64((1 << int(half_bits)) - 1)

    result = np.array(indices, dtype=np.uint64)
    outside = np.ones(len(result), dtype=bool)
    while outside.any():
        values = result[outside]
        left, right = values >> half_bits, values & half_mask
        for round_key in round_keys:
            left, right = right, left ^ (_mix(right + round_key) & half_mask)
        result[outside] = (left << half_bits) | right
        outside = result >= size
    return result.astype(np.int64)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread each bit over all: the finalizer of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
