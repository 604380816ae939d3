"""The step of the decoder as machine code in a file, which LLVM loads without numba.

To import numba and to load what it keeps takes longer than all the rest of a command that writes a
few words. So once numba has compiled the step, its machine code is kept as it is. The name of the
file holds a digest of all that it was made of: the kernels, numba, LLVM, the processor. Kernels
read nothing that stands elsewhere (tests/fast/test_machine_code.py).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from folio import jit
from folio.errors import UserError
from folio.fast.packing import Precision
from folio.storage import atomic_write

KERNELS = Path(__file__).with_name("kernels")
DIGITS = 64
"""Hexadecimal digits of the sha256 with which a file begins."""

Step = Callable[[int, int, int, int], int]
"""Rank, address of the table of arrays, steps seen, patience -> steps started by now
(`kernels/entry.py`)."""


def can_be_had(precision: Precision) -> bool:
    """Whether the step can be loaded, or compiled."""
    return jit.is_wanted() and (_kept(_file_of(precision)) is not None or jit.available())


@cache
def step_of(precision: Precision) -> Step:
    """Load the step for weights in a precision; compile it first, once, for some seconds."""
    file = _file_of(precision)
    code = _kept(file)
    if code is None:
        code = _compiled(precision)
        if file is not None:
            with suppress(UserError), atomic_write(file, "wb") as out:
                out.write(hashlib.sha256(code).hexdigest().encode() + code)
    return _loaded(code)


def _kept(file: Path | None) -> bytes | None:
    """Read the result of `_compiled` from its file; None if it is missing or damaged."""
    try:
        data = file.read_bytes() if file is not None else b""
    except OSError:
        return None
    code = data[DIGITS:]
    return code if hashlib.sha256(code).hexdigest().encode() == data[:DIGITS] else None


@cache
def _file_of(precision: Precision) -> Path | None:
    """Path of the cached step; None without LLVM."""
    numba = find_spec("numba")
    try:
        llvm: Any = _llvm()
    except ImportError:
        return None
    if numba is None or numba.origin is None:
        return None
    made_of = (
        jit.sources_digest(KERNELS),
        Path(numba.origin).with_name("_version.py").read_text(encoding="utf-8"),
        llvm.llvm_version_info,
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
        sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_")),
    )
    digest = hashlib.sha256(repr(made_of).encode()).hexdigest()
    return jit.folder_of(KERNELS) / f"step-{precision}-{digest[:16]}.o"


def _compiled(precision: Precision) -> bytes:
    """The name of the function, a line end, and its object file."""
    from numba.core import types

    from folio.fast.kernels import entry

    compiled: Any = getattr(entry, precision)
    compiled.compile((types.int64,) * 4)
    (result,) = compiled.overloads.values()
    return result.fndesc.llvm_func_name.encode() + b"\n" + result.library._get_compiled_object()


def _loaded(code: bytes) -> Step:
    llvm: Any = _llvm()
    name, _, machine_code = code.partition(b"\n")
    target = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    # As numba calls: where the result goes, where an error would go, the arguments.
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    signature = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, number, number, number, number)
    call = signature(engine.get_function_address(name.decode()))

    def step(rank: int, table: int, seen: int, patience: int) -> int:
        assert engine is not None, "the code lives as long as its engine"
        result, error = number(), pointer()
        status = call(ctypes.byref(result), ctypes.byref(error), rank, table, seen, patience)
        assert status == 0, f"the step ended with status {status}"
        return result.value

    return step


@cache
def _llvm() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding
