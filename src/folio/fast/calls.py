"""Calls kernels by name, on the memory of tensors, so that a capture can record them.

The kernels take tensors that lie on a processor in float32 or bfloat16 and are large enough to be
worth a call. All else is left to the plain layer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folio import jit

FEWEST = 1 << 13
"""Numbers in a tensor that are worth a call."""

listener: ContextVar[Callable[[Callable[..., None], tuple[Any, ...]], None] | None] = ContextVar(
    "listener", default=None
)
"""Is told each call of a kernel in its thread, of which torch does not know."""


def serves(x: Tensor) -> bool:
    """Whether the kernels take a tensor."""
    return (
        x.numel() >= FEWEST
        and x.device.type == "cpu"
        and x.dtype in (torch.bfloat16, torch.float32)
        and jit.available()
    )


def load() -> None:
    """Load the kernels, where there are any, so that processes forked from this one share them."""
    if jit.available():  # numba sets itself up at its first call
        run("add", *(np.zeros(1, np.float32) for _ in range(3)))


def must_compile() -> bool:
    """Whether a first training step takes seconds, since no earlier process compiled it."""
    return jit.available() and jit.must_compile(_kernels().causal_softmax)


def run(kernel: str, *arguments: Any) -> None:
    """Call a kernel of the layers."""
    call(getattr(_kernels(), kernel), *arguments)


def call(kernel: Callable[..., None], *arguments: Any) -> None:
    """Call a kernel, and tell the listener."""
    kernel(*arguments)
    if (tell := listener.get()) is not None:
        tell(kernel, arguments)


def array(x: Tensor) -> NDArray[Any]:
    """View the memory of a contiguous tensor as the kernels read it: bfloat16 by its bits."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).detach().numpy()


def arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    """View each as the kernels read it."""
    return [array(x) for x in tensors]


def flat_arrays(*tensors: Tensor) -> list[NDArray[Any]]:
    """View each as one long vector."""
    return [array(x.view(-1)) for x in tensors]


@cache
def _kernels() -> ModuleType:
    from folio.fast.kernels import layers

    return layers
