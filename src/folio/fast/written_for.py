"""Whether plain code still is what its fast twin was written for.

Nobody who edits the model may be left training something else. So a layer is replaced only if its
file is, but for line ends, the one whose digest stands here, and if nobody has put another function
in place of one of that file's; the same holds for the rules of optimizers and the training step.
After a change to one of these files, look whether its fast twin still does the same; then put the
new digests here, which tests/fast/test_written_for.py prints.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, GenericAlias, ModuleType
from typing import Any

DIGESTS: dict[str, str] = {
    "folio.model.attention": "18c7c3dccb075c3f251e4007f7fb284ae9e86b23484c7236a498146d5ee92dd4",
    "folio.model.block": "3c0e11fb6ebfe132c94119d5b742c6581aa8ccb85b243c29114561da0b9e8c31",
    "folio.model.dropout": "e2d8305c01a5bc5d8604dfb0c6d8688ad7e90258fe316d210dc426f4c5485480",
    "folio.model.feed_forward": "a0ca4dd29558822255682f1c30155b59af6a2e561bbf67b9e328f0d4e43afe55",
    "folio.model.gpt": "5ab445a930a5eb6ddc00015c57c515f3e5c8c20384a4d636581d63e8f9290639",
    "folio.model.kv_cache": "96804eb1cc9f0d9be58ca38b16ec58754557632f0f20f48267b0f6b5993ac8d9",
    "folio.model.loss": "6ea75c2423e385390726683c0aa4460f9049489972a9565a57d2553c0bafae90",
    "folio.model.normalization": "30776639ae18140a2042c292a9facd2b7559a8f1cd9cd9ca01b8a84014cf9c1f",
    "folio.model.positions": "0b90e1d61316250ff53265180795e75ef275e1a958885249333fc981b4d97bfa",
    "folio.training.gradients": "3fa058e50748eee9bb934537f3b577962387f280fcfa2ce6a80e1dd955dbe65c",
    "folio.training.objective": "8bb139d0aa3a0250552d9cf01a92a34c4c7360651a656b68ea75d83583eae25c",
    "folio.training.optimizers": "4821bb311e5ef4076ab201b79ab0c3e77bf9bf0b84fbd8ff590d7e6269241b24",
    "folio.training.step": "f499b798ad39494ca6f268f78a9d9ad02d309b81b4f9667e835d6bcabff896b8",
}
"""Module -> sha256 of its source."""

HOUSE = ("folio", "torch", "typing")
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
        if kind.__module__ == module.__name__ and not is_generated(kind):
            named |= {f"{kind.__name__}.{name}": x for name, x in vars(kind).items()}
    for name, x in named.items():
        if isinstance(x, FunctionType):
            is_ours = is_original(name.rpartition(".")[2], x)
        else:  # such as functools.partial
            is_type = isinstance(x, type | GenericAlias) or type(x).__module__ == "typing"
            is_ours = is_type or not callable(x)
        if not is_ours:
            yield name, x


def is_generated(kind: type) -> bool:
    """Whether Python writes methods of a class: of a NamedTuple or a Protocol."""
    return issubclass(kind, tuple) or getattr(kind, "_is_protocol", False)


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
