"""Counts what a step of any size starts on a GPU: on torch's meta device, which computes nothing.

Attention and RMSNorm are one kernel each, as on CUDA; an operation on lists of tensors is as many
as torch's kernels for them take (ATen/native/cuda/MultiTensorApply.cuh: so many tensors, and so
many pieces of 65,536 numbers, in each). Each time that the processor would wait is counted, and an
operation with tensors of both fails, but for single numbers of the processor.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NO_KERNEL = ("detach", "alias", "_unsafe_view", "lift_fresh", "_reshape_alias", "set_")
MOST_TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
"""Lists -> tensors in each that one kernel takes."""
PIECE, MOST_PIECES = 65_536, 320


class Counting(TorchDispatchMode):
    """While it is entered, operations on "meta" are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        """Kernels by the name of their operation."""
        self.waits: list[str] = []
        """What the processor waited for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        here = [x for x in tensors if x.device.type == "meta"]
        if name == "_local_scalar_dense" and here:
            self.waits.append(name)
            return bool(1) if here[0].dtype == torch.bool else 1.0
        moves = name in ("_to_copy", "copy_")
        if here and not moves:
            strangers = [x for x in tensors if x.device.type != "meta" and x.dim()]
            assert not strangers, f"{name} mixes the device and the processor"
        if moves:
            to = args[0].device if name == "copy_" else kwargs.get("device") or args[0].device
            crosses = torch.device(to).type != tensors[-1].device.type
            is_free = torch.device(to).type == "meta" and kwargs.get("non_blocking")
            self.waits += [name] * (crosses and not is_free)
            if crosses and name == "_to_copy" and here:
                return torch.ones(args[0].shape, dtype=args[0].dtype)
        # Which has no form for "meta", and changes its arguments alone.
        found = None if name == "_fused_adamw_" else func(*args, **kwargs)
        if any(isinstance(x, Tensor) and x.device.type == "meta" for x in tree_leaves(found)) or (
            here and found is None
        ):
            self.kernels[name] += kernels_of(name, func, args, kwargs)
        return found

    @property
    def n_kernels(self) -> int:
        """Kernels started so far."""
        return self.kernels.total()


def kernels_of(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many kernels an operation starts."""
    makes_view = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
    if makes_view or name in NO_KERNEL or "empty" in name:
        return 0
    lists = [x for x in (*args, *kwargs.values()) if isinstance(x, list | tuple) and len(x)]
    lists = [x for x in lists if isinstance(x[0], Tensor)]
    if name == "cat":
        return math.ceil(len(lists[0]) / 128)
    if not name.startswith(("_foreach", "_fused_adam")):
        return 1
    lists = [x for x in lists if any(y.dim() for y in x)]
    is_slow = any(x.dtype != lists[0][0].dtype for x in lists[0])
    is_slow |= name != "_foreach_copy_" and any(x[0].dtype != lists[0][0].dtype for x in lists)
    if is_slow:
        return len(lists[0])
    depth = len(lists) + (name.startswith("_foreach") and not name.endswith("_"))
    pieces = sum(math.ceil(x.numel() / PIECE) for x in lists[0])
    return max(
        math.ceil(len(lists[0]) / MOST_TENSORS[min(depth, 5)]), math.ceil(pieces / MOST_PIECES)
    )


class _OneKernel(torch.autograd.Function):
    """RMSNorm as on CUDA: a kernel, and two on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.like = weight
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return gradient.clone(), torch.zeros_like(ctx.like)


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    """Count, with attention and RMSNorm as CUDA has them."""

    def attention(q: Tensor, k: Tensor, v: Tensor, **settings: Any) -> Tensor:
        p, is_causal = settings["dropout_p"], settings["is_causal"]
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, p, is_causal)[0]

    def rms_norm(x: Tensor, shape: Any, weight: Any = None, eps: Any = None) -> Tensor:
        return _OneKernel.apply(x, weight)  # type: ignore[no-any-return]

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(F, "rms_norm", rms_norm)
    with Counting() as found:
        yield found
