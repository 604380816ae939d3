"""Records code of a model that is not Folio's own.

Weights are worthless under other formulas. So a checkpoint names each layer class that Folio does
not have and each function of `model/` that was replaced, with a digest of their source files.
Opening it requires the same; if a file was edited since, the user is told, since only its author
knows whether it still computes the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from types import FunctionType, MethodType
from typing import Any, cast

from torch import nn

from folio.errors import UserError
from folio.fast.accelerate import KNOWN
from folio.fast.written_for import (
    DIGESTS,
    HOUSE,
    comes_from,
    replaced_functions,
    source_digest,
)
from folio.run.checkpoint import Checkpoint

OURS = "Folio's own"


@dataclass(frozen=True)
class OwnCode:
    """Foreign code in a model; usually none."""

    layers: dict[str, str] = field(default_factory=dict[str, str])
    """Position in the model, such as `blocks.0.attention`, -> `module:class`."""
    functions: dict[str, str] = field(default_factory=dict[str, str])
    """Name, such as `folio.model.attention.merge_heads`, -> `module:function` of its
    replacement."""
    sources: dict[str, str] = field(default_factory=dict[str, str])
    """Each such class or function, or an edited module of Folio, -> sha256 of its file."""

    @classmethod
    def of(cls, model: nn.Module) -> OwnCode:
        """Inspect a model, and the modules that Folio's layers come from."""
        own: list[Any] = []
        layers, functions, sources = dict[str, str](), dict[str, str](), dict[str, str]()
        modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
        for name, layer in modules:
            kind = type(layer)
            if kind not in KNOWN and not comes_from(kind, "folio"):
                layers[name or "the model"] = _name(kind)
                own.append(kind)
            for attribute, value in vars(layer).items():
                if isinstance(value, FunctionType | MethodType) and not comes_from(value, *HOUSE):
                    functions[f"{name}.{attribute}"] = _name(value)
                    own.append(value)
        for name, module in sys.modules.items():
            if name not in DIGESTS or not name.startswith("folio.model."):
                continue
            for place, function in replaced_functions(module):
                functions[f"{name}.{place}"] = _name(function)
                own.append(function)
            if (digest := source_digest(module)) not in (DIGESTS[name], None):
                sources[name] = str(digest)
        for what in own:
            module = sys.modules.get(what.__module__)
            if module is not None and not comes_from(what, *HOUSE):
                sources[_name(what).partition(":")[2]] = source_digest(module) or ""
        return cls(layers, functions, sources)

    def record(self) -> dict[str, dict[str, str]]:
        """Return the entry of a checkpoint's manifest."""
        return asdict(self)


def require_same_code(model: nn.Module, checkpoint: Checkpoint) -> list[str]:
    """Compare the code of a model with the code that a checkpoint was trained with.

    Returns:
        Possible differences, as lines for the user.

    Raises:
        UserError: a layer or a function is a different one.
    """
    here = OwnCode.of(model)
    if checkpoint.own_code is None:  # written before this was recorded
        return [
            f"{checkpoint.path} does not say which code it was trained with; here {place} is "
            f"{name}."
            for place, name in (here.layers | here.functions).items()
        ][:1]
    there = OwnCode(**checkpoint.own_code)
    ours, theirs = here.layers | here.functions, there.layers | there.functions
    for place in theirs | ours:
        found, needed = ours.get(place, OURS), theirs.get(place, OURS)
        # A script is `__main__` when it runs, and has another name when it is imported.
        if found.rpartition(":")[2] != needed.rpartition(":")[2]:
            raise UserError(
                f"{checkpoint.path} was trained with {needed} as {place}, which must be the same "
                f"here, got {found}. Open it in a program that puts it there first, as the one "
                f"that trained it did: see examples/04_own_attention.py."
            )
    return [
        f"the file of {name} is not as it was when {checkpoint.path} was trained, so it may "
        f"compute something else."
        for name in there.sources | here.sources
        if there.sources.get(name) != here.sources.get(name)
    ]


def _name(what: Any) -> str:
    """`module:name` of a class, a function, or the type of any other callable."""
    named: Any = what if hasattr(what, "__qualname__") else type(what)  # pyright: ignore[reportUnknownVariableType]
    return f"{named.__module__}:{named.__qualname__}"
