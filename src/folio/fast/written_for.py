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

DIGESTS: dict[str, str] = {
    "folio.model.attention": "3528e8320f832e37696e6392ecc9b788af0e2386c9ee203de5859438a025b6f3",
    "folio.model.block": "b4a8a3affa2a2aa33d238a1a764fa6d36060321f85e073dbba9b34e1b1e888bd",
    "folio.model.dropout": "103f8298310714bd033f4f944191ff1f3a2a0d43d9510a91009aaf563484b544",
    "folio.model.feed_forward": "7c9209bafa033856bbb9c2797c02ddd24d421bdd9377a43c9c78d5a161ef0faf",
    "folio.model.gpt": "073e0af0bbf0e1aecbb94b843bcd72669bcdc514173180c7ee88f74f60f2375c",
    "folio.model.kv_cache": "f9c9cd23ec8d589c2ba7ac0f3582e1b6793cabc225d3e0fe42dab150af40e8ef",
    "folio.model.loss": "1ec888795be52c0cfbc7c0175b739377066e63d73f17fe5afd2aa84a093c5575",
    "folio.model.normalization": "5eb64549d71e9af95471e2c90f1e6b25dce69ed368a1e4655e36d0b2753e80d0",
    "folio.model.positions": "ea2a68cde095c3ec3e8ae4965b694cef7ebfb57d4ba6746e7c0338970772c0e0",
    "folio.training.optimizers": "ea9d19c233c82955245967771fe3f48fa30aba53e795861dadd9f7378ea9a77a",
}
"""Module -> sha256 of its source."""

HOUSE = ("folio", "torch")
"""Packages whose functions nobody put in the place of others."""


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
            is_ours = is_original(name.rpartition(".")[2], x)
        else:  # such as functools.partial
            is_ours = not callable(x) or isinstance(x, type) or type(x).__module__ == "typing"
        if not is_ours:
            yield name, x


def is_original(name: str, function: FunctionType) -> bool:
    """Whether a function has the name that it was defined by, in the file that it says."""
    home = sys.modules.get(function.__module__)
    file = getattr(home, "__file__", None)
    is_here = function.__name__ == name and function.__code__.co_filename == file
    return comes_from(function, *HOUSE) and is_here


def comes_from(what: Callable[..., Any], *packages: str) -> bool:
    """Whether a class or a function says that one of some packages wrote it."""
    return what.__module__.partition(".")[0] in packages


def model_is_as_written() -> bool:
    """Whether no file of `model/` was edited, and nothing replaced in those that are loaded."""
    folder = Path(__file__).parents[1] / "model"
    for name, digest in DIGESTS.items():
        if not name.startswith("folio.model."):
            continue
        file = folder / f"{name.rpartition('.')[2]}.py"
        if file_digest(file) not in (None, digest):
            return False
        if name in sys.modules and not is_as_written(sys.modules[name]):
            return False
    return True


def source_digest(module: ModuleType) -> str | None:
    """The sha256 of a module's source, as `file_digest`."""
    return file_digest(Path(getattr(module, "__file__", None) or ""))


@cache
def file_digest(path: Path) -> str | None:
    """The sha256 of a source, with line ends as Linux has them; None where there is no file, as in
    an archive, which nobody edits.
    """
    try:
        source = path.read_bytes()
    except OSError:
        return None
    return hashlib.sha256(source.replace(b"\r\n", b"\n")).hexdigest()
