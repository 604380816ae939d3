"""Memory of the machine, of this process and of those that it forked, and their end."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""The option of prctl(2) that sends a signal when the parent dies."""


def memory_in_use() -> int:
    """Resident memory of this process in bytes."""
    return account("self/status").get("VmRSS") or peak_memory()


def peak_memory(children: Iterable[int] = ()) -> int:
    """Peak resident memory of this process in bytes.

    Args:
        children: process ids of running forks, on Linux; their private memory is added. Pages that
            they share count as those of this process.
    """
    # The system's own figure, below, includes the process that started this one.
    if peak := account("self/status").get("VmHWM"):
        return peak + sum(_own_peak(child) for child in children)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def physical_memory() -> int:
    """Bytes of memory of the whole machine.

    Raises:
        AttributeError, ValueError, OSError: the system does not tell.
    """
    if sys.platform != "win32":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # MEMORYSTATUSEX is 64 bytes: its own size and the load share the first eight, and the physical
    # memory is in the next. (Never tried on Windows.)
    status = (ctypes.c_uint64 * 8)(64)
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        raise OSError("Windows does not tell its memory")
    return status[1]


def running_children() -> list[int]:
    """Process ids of those that this thread forked, where Linux tells."""
    try:
        own = Path(f"/proc/self/task/{threading.get_native_id()}/children")
        return [*map(int, own.read_text(encoding="ascii").split())]
    except OSError:
        return []


_computes = _lacks_threads = False
"""Whether threads were asked for here; and whether that was before this process was forked."""


def usable_threads(asked: int) -> int:
    """How many threads torch may use: one in a fork of a process that computed, where OpenMP would
    wait for ever for those that did not come along.
    """
    global _computes
    _computes = True
    return 1 if _lacks_threads else asked


def _go_on_in_fork() -> None:
    global _lacks_threads
    if _computes:
        import torch

        _lacks_threads = True
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_go_on_in_fork)


def end_with(parent: int) -> None:
    """Have Linux kill this process when its parent dies, even while it is stopped.

    Args:
        parent: process id; it may have died before this is called.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _own_peak(child: int) -> int:
    """Private memory of a process, and what it has returned since its own peak."""
    status, pages = account(f"{child}/status"), account(f"{child}/smaps_rollup")
    now = pages.get("Private_Clean", 0) + pages.get("Private_Dirty", 0)
    return now + status.get("VmHWM", 0) - status.get("VmRSS", 0)


def account(name: str) -> dict[str, int]:
    """Linux's memory accounts of a process: `VmRSS` and so on -> bytes; empty elsewhere."""
    try:
        lines = Path("/proc", name).read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines]
    return {row[0].rstrip(":"): int(row[1]) << 10 for row in words if row[2:] == ["kB"]}


@contextmanager
def torch_as_before() -> Generator[None]:
    """Leave behind torch's threads, random numbers and way with denormal numbers as they were."""
    import torch

    threads, flushes = torch.get_num_threads(), bool(torch.tensor(1e-40) * 0.5 == 0)
    try:
        with torch.random.fork_rng(devices=()):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushes)
