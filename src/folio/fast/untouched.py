"""Whether somebody changed a layer, or listens to it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

from folio.fast.written_for import DIGESTS, is_as_written, is_original

HOOKS_OF_ALL = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)
"""Global hooks, which torch calls for every layer."""


def is_untouched(layer: nn.Module) -> bool:
    """Whether a layer computes what its file said: no other `forward`, no hooks, no edit."""
    return "forward" not in vars(layer) and not has_hooks(layer) and is_unpatched(type(layer))


def has_hooks(layer: nn.Module) -> bool:
    """Whether somebody listens to a layer, or to all."""
    return any(hooks_of(layer)) or any(HOOKS_OF_ALL)


def hooks_of(layer: nn.Module) -> tuple[dict[int, Any], ...]:
    """Return the hooks of a layer by kind; the dictionaries change as hooks come and go."""
    return (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )


def listeners(model: nn.Module) -> Callable[[], bool]:
    """Make a quick question: does anybody listen to a layer or a parameter of a model now?"""
    tables = [table for layer in model.modules() for table in hooks_of(layer)]
    tables += HOOKS_OF_ALL
    parameters = list(model.parameters())
    return lambda: any(tables) or any(p._backward_hooks for p in parameters)


def is_unpatched(kind: type[nn.Module]) -> bool:
    """Whether a class of layers, and all beside it in its file, is as it was written."""
    module = sys.modules.get(kind.__module__)
    if module is not None and module.__name__ in DIGESTS:
        return is_as_written(module)
    return kind.forward is nn.Module.forward or is_original("forward", kind.forward)  # torch's
