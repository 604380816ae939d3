"""The decorator `kernel`: compiles a function with numba, once for each version of its source.

The machine code is kept in Folio's own cache folder. Its key has a digest of everything that
affects it: the kernel files, the functions that a kernel calls and the constants that it reads,
wherever they are defined. numba's own cache looks only at the file of the function, so that after a
changed constant in another file the old code would still run. The version of numba and the kind of
processor are in the key too.

numba is loaded by the first kernel file that is imported. With `FOLIO_JIT=off` there are no
kernels: plain layers, the reference tokenizer, and the plain decoder are used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

from folio.console import say
from folio.storage import cache_folder

Function = TypeVar("Function", bound=Callable[..., Any])

SUMS_IN_ANY_ORDER = {"reassoc", "contract"}
"""numba's fastmath flags that vectorize sums. Infinities and NaN keep their meaning."""

KEPT_SECONDS = 90 * 86_400
"""How long machine code of other versions is kept."""

CONSTANTS = (bool, int, float, complex, str, bytes, tuple, frozenset, type(None))


def available() -> bool:
    """Whether kernels are used: numba can be imported, and FOLIO_JIT is not `off`."""
    return is_wanted() and _numba_is_there()


def is_wanted() -> bool:
    """Whether kernels are used where they can be; without looking for numba."""
    return os.environ.get("FOLIO_JIT", "on") != "off"


@cache
def _numba_is_there() -> bool:
    try:
        return not import_module("numba").config.DISABLE_JIT
    except ImportError:  # not installed, or too old for the numpy beside it
        return False


def kernel(
    *,
    fastmath: bool = False,
    parallel: bool = False,
    inline: bool = False,
    allocates: bool = True,
    inner: bool = False,
) -> Callable[[Function], Function]:
    """Decorate a function to be compiled when it is first called.

    The compiled function releases the GIL, and divides by zero as numpy does.

    Args:
        fastmath: whether sums may be reordered, which vectorizes them.
        parallel: whether `prange` distributes its iterations over threads.
        inline: whether it is inlined into the kernels that call it.
        allocates: whether it creates arrays or lists. If not, numba omits reference counting, which
            in loops over a few bytes costs more than the work itself.
        inner: whether only kernels call it, and it creates no arrays. It then needs no entry point
            from Python, which takes longer to compile than most kernels.
    """
    njit: Any = import_module("numba").njit
    _set_up_without_scipy()
    _listen()
    options: dict[str, Any] = {"error_model": "numpy"}
    if inline:
        return njit(inline="always", **options)
    options |= {"nogil": True, "fastmath": SUMS_IN_ANY_ORDER if fastmath else False}
    if parallel:
        options["parallel"] = True
    if not allocates:
        options |= {"_nrt": False, "forceinline": True}
    if inner:
        options |= {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

    def compile_lazily(function: Function) -> Function:
        compiled: Any = njit(**options)(function)
        compiled._cache = _cache_class()(function)
        return compiled

    return compile_lazily


@cache
def _set_up_without_scipy() -> None:
    """Import the part of numba that looks for SciPy's BLAS, without importing SciPy.

    No kernel uses it, and importing SciPy takes half of the time of a first kernel.
    """
    hidden = [name for name in ("scipy", "scipy.linalg") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None cannot be imported
    try:
        import_module("numba.np.arraymath")
    finally:
        for name in hidden:
            del sys.modules[name]


def must_compile(compiled: Any) -> bool:
    """Whether the first call of a kernel takes seconds, because no earlier process has
    compiled it.
    """
    return not compiled.signatures and not compiled._cache.holds_anything()


@cache
def _cache_class() -> type:
    """The class of a kernel's cache; defined in a function, since its base belongs to numba."""
    caching: Any = import_module("numba.core.caching")

    class Locator(caching._CacheLocator):
        def __init__(self, function: FunctionType) -> None:
            self._py_file = function.__code__.co_filename  # numba wants it for a warning
            self.line = function.__code__.co_firstlineno
            self.folder = folder_of(Path(self._py_file).parent)

        @classmethod
        def from_function(cls, py_func: FunctionType, py_file: str) -> Any:
            return cls(py_func)

        def get_cache_path(self) -> str:
            return str(self.folder)

        def get_source_stamp(self) -> str:
            return "in the key"

        def get_disambiguator(self) -> str:
            return str(self.line)

        def ensure_cache_path(self) -> None:
            if not self.folder.exists():
                _remove_unused(self.folder.parent)
            super().ensure_cache_path()

    class Implementation(caching.CompileResultCacheImpl):
        _locator_classes = [Locator]  # noqa: RUF012

    class KernelCache(caching.FunctionCache):
        _impl_class = Implementation

        def _index_key(self, sig: Any, codegen: Any) -> Any:
            return (*super()._index_key(sig, codegen), digest_of(self._py_func))

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            try:
                return super().load_overload(sig, target_context)
            except Exception:  # truncated, or not ours: treat it as missing
                with suppress(OSError):
                    self.flush()
                return None

        def save_overload(self, sig: Any, data: Any) -> None:
            try:
                super().save_overload(sig, data)
            except OSError as error:
                _tell_that_nothing_is_kept(error.strerror or str(error))

        def holds_anything(self) -> bool:
            return Path(self._cache_file._index_path).exists()

    return KernelCache


def folder_of(sources: Path) -> Path:
    """Where machine code of the kernels in a folder is kept, until a file there changes."""
    return _kernels_folder() / sources_digest(sources)[:16]


def _kernels_folder() -> Path:
    try:
        return cache_folder() / "kernels"
    except (RuntimeError, ValueError, OSError):  # a user without a home folder
        return Path(os.devnull) / "kernels"  # reported when it is needed


def _remove_unused(folder: Path) -> None:
    """Remove what other versions of the sources left, once it has been unused for months."""
    with suppress(OSError):
        for other in folder.iterdir():
            if time.time() - other.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(other, ignore_errors=True)


def digest_of(function: Any) -> str:
    """A digest of the sources and constants that determine the machine code of a function."""
    import numpy as np

    digest, seen, waiting = hashlib.sha256(), set[int](), [function]
    while waiting:
        reached = waiting.pop()
        code = reached.__code__
        if id(code) in seen:
            continue
        seen.add(id(code))
        digest.update(sources_digest(Path(code.co_filename).parent).encode())
        for name, value in _globals_read_by(reached):
            if compiled_from := getattr(value, "py_func", None):
                waiting.append(compiled_from)
            elif isinstance(value, FunctionType):  # it stands for others, by numba's `overload`
                digest.update(_file_digest(Path(value.__code__.co_filename)).encode())
            elif isinstance(value, CONSTANTS):
                digest.update(f"{name} = {value!r}\n".encode())
            elif isinstance(value, (np.generic, np.ndarray)):
                digest.update(f"{name} = {value.dtype!r}".encode() + value.tobytes())
    return digest.hexdigest()


def _globals_read_by(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Names and values, including attributes of modules, in a deterministic order."""
    names = sorted(_names_in(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        if not isinstance(value, ModuleType):
            yield name, value
            continue
        for attribute in names:
            found = getattr(value, attribute, None)
            if not isinstance(found, FunctionType):  # not a library's own
                yield f"{name}.{attribute}", found


def _names_in(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names_in, inner))


@cache
def sources_digest(folder: Path) -> str:
    """Of the Python files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(_file_digest(path).encode())
    return digest.hexdigest()


@cache
def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # imported from an archive, which nobody edits
        return ""


@cache
def _listen() -> None:
    """Tell the user once why something takes some seconds; forked processes compile silently."""
    from numba.core import event

    process = os.getpid()

    class Announcement(event.Listener):
        said = False

        def on_start(self, event: Any) -> None:
            ours = isinstance(event.data["dispatcher"]._cache, _cache_class())
            if ours and not self.said and os.getpid() == process:
                self.said = True
                say("compiling the kernels, once, for some seconds ...")

        def on_end(self, event: Any) -> None:
            pass

    event.register("numba:compile", Announcement())


@cache
def _tell_that_nothing_is_kept(reason: str) -> None:
    say(
        f"warning: the compiled kernels cannot be kept in {_kernels_folder()} ({reason}), so "
        f"each run compiles them anew. FOLIO_CACHE names another folder."
    )
