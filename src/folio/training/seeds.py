"""The seeds of dropout: each step, micro-batch and process has masks of its own."""

from __future__ import annotations

import hashlib


def dropout_seed(*numbers: int) -> int:
    """Hash numbers, such as a run's seed and the step, to 63 bits.

    >>> dropout_seed(1, 2) == dropout_seed(1, 2) != dropout_seed(2, 1)
    True
    """
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
