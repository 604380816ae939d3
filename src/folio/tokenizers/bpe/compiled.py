"""`kernel`: compile a function with numba, once per machine.

Kernels never allocate: they work on arrays that the caller made. That lets numba leave out its
reference counts, which in a loop over short chunks cost more than the work itself (splitting ran
at 46 MB/s with them, and at 290 without).

numba keeps the machine code beside the source, or under the user's cache folder where that cannot
be written, and looks at nothing but that one file to decide whether it is still good. A kernel
that calls one in another file would run old code after a change there; so the key of the cache
here contains a digest of all the kernels' sources.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from numba import njit
from numba.core import event
from numba.core.caching import FunctionCache

Function = TypeVar("Function", bound=Callable)


def kernel(function: Function) -> Function:
    """The compiled twin of a function; it lets go of the interpreter lock while it runs."""
    options: dict[str, Any] = {"nogil": True, "_nrt": False, "forceinline": True}
    compiled: Any = njit(**options)(function)
    compiled._cache = _KernelCache(function)
    return compiled


class _KernelCache(FunctionCache):
    def _index_key(self, sig, codegen) -> Any:
        return (*super()._index_key(sig, codegen), _sources_digest())


@cache
def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Announcement(event.Listener):
    """Says once why the first call in a fresh environment takes longer."""

    said = False

    def on_start(self, event):
        dispatcher = (event.data or {}).get("dispatcher")
        module = getattr(getattr(dispatcher, "py_func", None), "__module__", "")
        if not self.said and module.startswith(str(__package__)):
            self.said = True
            print(
                "Compiling the tokenizer, once on this machine (some seconds) ...", file=sys.stderr
            )

    def on_end(self, event):
        pass


event.register("numba:compile", _Announcement())
