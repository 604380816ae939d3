"""Whether a plain layer still is what its fast twin was written for.

Nobody who edits the model may be left training something else. So a layer is replaced only if its
file is, but for line ends, the one whose digest stands here, and if nobody has put another function
in place of one of that file's; the same holds for the rules of optimizers. After a change to one of
these files, look whether its fast twin still does the same; then put the new digests here, which
tests/fast/test_written_for.py prints.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

DIGESTS: dict[str, str] = {
    "folio.model.attention": "3528e8320f832e37696e6392ecc9b788af0e2386c9ee203de5859438a025b6f3",
    "folio.model.block": "b4a8a3affa2a2aa33d238a1a764fa6d36060321f85e073dbba9b34e1b1e888bd",
    "folio.model.dropout": "103f8298310714bd033f4f944191ff1f3a2a0d43d9510a91009aaf563484b544",
    "folio.model.feed_forward": "7c9209bafa033856bbb9c2797c02ddd24d421bdd9377a43c9c78d5a161ef0faf",
    "folio.model.gpt": "073e0af0bbf0e1aecbb94b843bcd72669bcdc514173180c7ee88f74f60f2375c",
    "folio.model.kv_cache": "f9c9cd23ec8d589c2ba7ac0f3582e1b6793cabc225d3e0fe42dab150af40e8ef",
    "folio.model.loss": "1ec888795be52c0cfbc7c0175b739377066e63d73f17fe5afd2aa84a093c5575",
    "folio.model.positions": "ea2a68cde095c3ec3e8ae4965b694cef7ebfb57d4ba6746e7c0338970772c0e0",
    "folio.training.optimizers": "ea9d19c233c82955245967771fe3f48fa30aba53e795861dadd9f7378ea9a77a",
}
"""Module -> sha256 of its source."""

HOUSE = ("folio", "torch")
"""Packages whose functions nobody put in the place of others."""

HOOKS_OF_ALL = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)
"""Those that torch calls for every layer."""


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
    return kind.forward is nn.Module.forward or _is_original("forward", kind.forward)  # torch's


def is_as_written(module: ModuleType) -> bool:
    """Whether neither the file of a module nor a function in it was changed."""
    is_edited = source_digest(module) not in (None, DIGESTS[module.__name__])
    return not is_edited and not any(replaced_functions(module))


def replaced_functions(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Find what is called in a module, or is a method of its classes, and was not written there:
    name -> what stands there now.
    """
    named = dict(vars(module))
    for kind in [x for x in named.values() if isinstance(x, type)]:
        if kind.__module__ == module.__name__:
            named |= {f"{kind.__name__}.{name}": x for name, x in vars(kind).items()}
    for name, x in named.items():
        if isinstance(x, FunctionType):
            is_original = _is_original(name.rpartition(".")[2], x)
        else:  # such as functools.partial
            is_original = not callable(x) or isinstance(x, type) or type(x).__module__ == "typing"
        if not is_original:
            yield name, x


def _is_original(name: str, function: FunctionType) -> bool:
    """Whether a function has the name that it was defined by, in the file that it says."""
    home = sys.modules.get(function.__module__)
    file = getattr(home, "__file__", None)
    is_here = function.__name__ == name and function.__code__.co_filename == file
    return comes_from(function, *HOUSE) and is_here


def comes_from(what: Callable[..., Any], *packages: str) -> bool:
    """Whether a class or a function says that one of some packages wrote it."""
    return what.__module__.partition(".")[0] in packages


@cache
def source_digest(module: ModuleType) -> str | None:
    """The sha256 of a module's source, with line ends as Linux has them; None where there is no
    file, as in an archive, which nobody edits.
    """
    try:
        source = Path(getattr(module, "__file__", None) or "").read_bytes()
    except OSError:
        return None
    return hashlib.sha256(source.replace(b"\r\n", b"\n")).hexdigest()
