"""Number formats and functions for kernels: float32 and bfloat16, exponentials, order, random bits.

Arrays hold float32, or bfloat16 as the uint16 of its bits, which is the upper half of the float32;
sums are kept in float32 either way.

A loop that adds up a row stores nothing. Where arrays that a loop reads and writes lie close
together it is not vectorized, and would then add in another order: the same step would give other
bytes, by where memory happened to be free.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from folio.jit import kernel

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
LOG2_E = np.float32(math.log2(math.e))
LOWEST = np.float32(-126)
"""The exponent of the smallest normal float32."""
MOST_INT8 = np.float32(127)
LOWEST_RANK = np.int32(-(2**31))
POWERS_OF_LN2 = tuple(np.float32(math.log(2) ** n / math.factorial(n)) for n in range(7))
"""Taylor's series of 2^r; right to 1e-7 for r between -1/2 and 1/2."""


def load(stored: Any) -> Any:
    """Load a number of an array as float32; numba inserts the version for its dtype."""


def store(number: Any, like: Any) -> Any:
    """Convert a float32 to the dtype of `like`; bfloat16 rounds to nearest even."""


@overload(load, inline="always")
def _load(stored):
    if stored == types.uint16:
        return lambda stored: np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)
    return lambda stored: stored


@overload(store, inline="always")
def _store(number, like):
    if like == types.uint16:
        return _to_bfloat16
    return lambda number, like: number


def _to_bfloat16(number, like):
    bits = np.float32(number).view(np.uint32)
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.uint32(bits + np.uint32(odd + np.uint32(0x7FFF)))
    return np.uint16(np.uint32(rounded >> np.uint32(16)))


@kernel(inline=True)
def exp(x):
    """e^x for x up to 88, to 4e-6 of it: 2 to a whole power, times 2 to the rest."""
    y = x * LOG2_E
    y = LOWEST if y < LOWEST else y
    whole = np.floor(y + HALF)
    rest = y - whole
    power = POWERS_OF_LN2[6]
    power = power * rest + POWERS_OF_LN2[5]
    power = power * rest + POWERS_OF_LN2[4]
    power = power * rest + POWERS_OF_LN2[3]
    power = power * rest + POWERS_OF_LN2[2]
    power = power * rest + POWERS_OF_LN2[1]
    power = power * rest + POWERS_OF_LN2[0]
    exponent = np.int32(np.int32(whole) + np.int32(127))
    return power * np.int32(exponent << np.int32(23)).view(np.float32)


@kernel(inline=True)
def to_rank(x):
    """Map float32 to integers in the same order, with NaN above all.

    The largest of them is found some at a time, which the rules for NaN forbid with floats.
    """
    bits = np.float32(x).view(np.int32)
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@kernel(inline=True)
def from_rank(rank):
    """Invert `to_rank`."""
    bits = np.int32(rank ^ np.int32(np.int32(rank >> np.int32(31)) & np.int32(0x7FFFFFFF)))
    return np.int32(bits).view(np.float32)


@kernel(inline=True)
def sigmoid(x):
    """1 / (1 + e^-x)."""
    bounded = np.float32(-87) if x < np.float32(-87) else x
    return ONE / (ONE + exp(-bounded))


@kernel(inline=True)
def random_bits(place, seed):
    """32 bits that look random: a hash of a place and of 64 bits.

    Two multiplications, with the constants of https://github.com/skeeto/hash-prospector.
    """
    bits = np.uint32(np.uint32(place) + np.uint32(seed & np.uint64(0xFFFFFFFF)))
    bits = np.uint32(np.uint32(bits ^ np.uint32(bits >> np.uint32(16))) * np.uint32(0x7FEB352D))
    bits = np.uint32(bits + np.uint32(seed >> np.uint64(32)))
    bits = np.uint32(np.uint32(bits ^ np.uint32(bits >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(bits ^ np.uint32(bits >> np.uint32(16)))
