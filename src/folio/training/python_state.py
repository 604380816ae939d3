"""Detects Python state that changes in a model after it was copied.

Replicas and rounded copies share a model's numbers through tensors. A float in an attribute, a hook
or a layer that is inserted later is in none; after such a change something else would be trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, NoReturn, cast

from torch import nn

from folio.errors import UserError
from folio.fast.untouched import hooks_of

WAY_OUT = "Train with what counts at each step: --device.fast off --device.precision float32."

COMPARED = (bool, int, float, str, bytes, type(None), FunctionType, BuiltinFunctionType, MethodType)
"""Types of attributes that are compared; others may be equal without Python knowing it."""

OF_THE_COPY = ("training", "generator", "int8_weight")
"""Attributes that differ in a replica on purpose."""


def require_same_state(model: nn.Module, replica: nn.Module) -> None:
    """Compare everything except tensors in the layers of a model and of its replica.

    Raises:
        UserError: they differ; the message has the first difference.
    """
    if model is replica:
        return
    ours, theirs = (
        dict(cast("Iterator[tuple[str, nn.Module]]", m.named_modules())) for m in (model, replica)
    )
    for name in ours.keys() | theirs.keys():
        here, there = ours.get(name), theirs.get(name)
        where = name or "model"
        if here is None or there is None or not isinstance(there, type(here)):
            _refuse(f"{where} is", _kind(here), _kind(there))
        own, copied = _state(here), _state(there)
        for key in own.keys() | copied.keys():
            if own.get(key) != copied.get(key):
                _refuse(f"{where}.{key} is", own.get(key), copied.get(key))
        for own_hooks, copied_hooks in zip(hooks_of(here), hooks_of(there)):
            if not own_hooks.keys() <= copied_hooks.keys():
                _refuse(f"The number of hooks of {where} is", len(own_hooks), len(copied_hooks))


def _refuse(what: str, own: object, copied: object) -> NoReturn:
    raise UserError(
        f"{what} {own!r} in the model, but training goes on with {copied!r}: it was changed since "
        f"training began. {WAY_OUT}"
    )


def _kind(layer: nn.Module | None) -> str:
    return "missing" if layer is None else type(layer).__name__


def _state(layer: nn.Module) -> dict[str, Any]:
    """Return the attributes of a layer that can be compared."""
    return {
        name: getattr(value, "__func__", value)
        for name, value in vars(layer).items()
        if isinstance(value, COMPARED) and name not in OF_THE_COPY
    }
