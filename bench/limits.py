"""What the machine itself allows: rates of matrix products, bandwidth of memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

SHAPES = (1024, 1024, 1024), (2048, 384, 1536)
"""A processor with units for products reaches twice as much with the second."""


@dataclass(frozen=True)
class Limits:
    """Best of many short measurements, all threads of torch at work."""

    float32: float
    """GFLOP/s of the faster of two products: of 1024 x 1024, and as a wide layer makes them."""
    bfloat16: float
    """The same in bfloat16."""
    memory: float
    """GB/s, read and written, of a copy of 128 MB."""

    def __str__(self) -> str:
        return (
            f"float32 {self.float32:.0f} GFLOP/s, bfloat16 {self.bfloat16:.0f} GFLOP/s, memory "
            f"{self.memory:.0f} GB/s, {torch.get_num_threads()} threads"
        )


def measure_limits(seconds: float = 1.0) -> Limits:
    """Takes five times `seconds`."""
    float32, bfloat16 = (
        max(rate_of(*shape, dtype, seconds) for shape in SHAPES)
        for dtype in (torch.float32, torch.bfloat16)
    )
    source = torch.ones(1 << 25)
    target = torch.empty_like(source)
    copied = 2 * 4 * len(source) / shortest(lambda: target.copy_(source), seconds) / 1e9
    return Limits(float32, bfloat16, copied)


def rate_of(m: int, k: int, n: int, dtype: torch.dtype, seconds: float) -> float:
    """GFLOP/s of a product of m x k and k x n."""
    a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    product = torch.empty(m, n, dtype=dtype)
    return 2 * m * k * n / shortest(partial(torch.mm, a, b, out=product), seconds) / 1e9


def shortest(function: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest call."""
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best
