"""A pretended accelerator: a device that no machine lacks, which keeps what CUDA and MPS demand.

Its tensors say that they are on the device "meta", and hold their numbers on the processor, so that
a training on it gives real losses. As on a GPU, an operation with tensors of two devices is an
error, but for single numbers of the processor; as on MPS, there is no float64. Each time that the
processor would wait for the device is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Self

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from folio import accelerator
from folio.recipe import memory

NAME = "meta"
WAITS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero")
"""Operations whose result, or its size, the processor has to know."""


class OnDevice(Tensor):
    """A tensor of the device; `held` has its numbers."""

    held: Tensor

    def __new__(cls, real: Tensor) -> Self:
        return Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=torch.device(NAME),
            requires_grad=False,
        )

    def __init__(self, real: Tensor) -> None:
        self.held = real

    @property
    def data(self) -> Tensor:
        return Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, value: OnDevice) -> None:
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {}, Counter())


class Accelerator(TorchDispatchMode):
    """While it is entered, "meta" is the pretended device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        """Operations of the device by name, and `waits`."""

    @property
    def waits(self) -> int:
        """Times that the processor waited for the device, or it for the processor's memory."""
        return self.seen["waits"]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {}, self.seen)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], seen: Counter[str]) -> Any:
    tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
    here = [x for x in tensors if isinstance(x, OnDevice)]
    name = func.overloadpacket.__name__
    target = kwargs.get("device")
    moves = name in ("_to_copy", "copy_")
    to_device = bool(here) if target is None else torch.device(target).type == NAME
    if here and not moves:
        joins = name in ("cat", "stack")  # which take no single numbers of the processor either
        strangers = [x for x in tensors if not isinstance(x, OnDevice) and (x.dim() or joins)]
        assert not strangers, f"{name} mixes the device and the processor"
    if here or to_device:
        seen[name] += 1
    if name == "copy_":
        to_device = isinstance(args[0], OnDevice)
    crosses = moves and any(isinstance(x, OnDevice) != to_device for x in tensors)
    is_free = crosses and to_device and (kwargs.get("non_blocking") or tensors[-1].dim() == 0)
    seen["waits"] += (name in WAITS and bool(here)) or (crosses and not is_free)
    real_args, real_kwargs = tree_map(_real, (args, kwargs))
    if target is not None:
        real_kwargs["device"] = "cpu" if to_device else target
    found = func(*real_args, **real_kwargs)
    if not to_device:
        return found

    def back(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        for own, given in zip(tree_iter((args, kwargs)), tree_iter((real_args, real_kwargs))):
            if given is x:
                return own
        if x.dtype == torch.float64:
            raise TypeError("the device has no float64")
        return OnDevice(x)

    return tree_map(back, found)


def _real(x: Any) -> Any:
    return x.held if isinstance(x, OnDevice) else x


@contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch) -> Generator[Accelerator]:
    """Have this machine, as long as it lasts, `mps`: the pretended device."""
    monkeypatch.setattr(accelerator, "available", lambda kind: kind == "mps")
    devices = {"mps": torch.device(NAME)}
    monkeypatch.setattr(
        accelerator, "own_device", lambda kind: devices.get(kind, torch.device("cpu"))
    )
    monkeypatch.setattr(memory, "free_memory", lambda device: 8 * 10**9)
    new_tensor = torch.tensor  # which fills the memory of "meta" below what a mode hears of

    def tensor(data: Any, device: Any = None, **options: Any) -> Tensor:
        return new_tensor(data, **options).to(device)

    monkeypatch.setattr(torch, "tensor", tensor)
    # Which hands operations on that are made of others, and knows no tensors around tensors.
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)
    # As between real devices, a parameter that is moved stays the same object, tied ones too.
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with Accelerator() as device:
            yield device
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
