"""Where the arithmetic runs, in which precision, on how many threads: measured, not guessed.

bfloat16 is four times faster than float32 on some processors and a hundred times slower on
others that have the same name for it, so both are tried for a moment.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from folio import jit
from folio.errors import UserError

if TYPE_CHECKING:
    import torch

WORTHWHILE = 1.3
"""How many times faster bfloat16 multiplies before it is chosen; below that, conversions
eat the gain."""

SLOW = 0.003
"""Seconds for a matrix product after which no larger one is tried."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3): free bytes at the end of the heap that are kept, and size of a piece from which
it comes from the system and goes back there."""
LARGEST_INT = 2**31 - 1
MMAP_THRESHOLD_BYTES = 1 << 25
"""The largest that glibc promises to take."""


_LOADED = time.monotonic()


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """Where and how to compute."""

    kind: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto` takes the fastest that this machine has."""

    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Of everything that the model computes; the weights that the optimizer changes, their
    gradients and the loss stay in float32. `auto` takes the faster of the first two, measured.
    `int8` is bfloat16, but learns with products made of bytes (model/int8.py)."""

    threads: int = 0
    """Processor threads; 0 takes all cores, or what OMP_NUM_THREADS says. The result depends on
    it in the last bits."""

    fast: Literal["auto", "on", "off"] = "auto"
    """Whether layers are replaced by those that compiled kernels compute (folio/fast), on a
    processor. `off` computes with torch alone, as the model is written. `auto` is `on` where it
    can be."""

    memory_gigabytes: float = 0.0
    """Most memory that a training may take, in units of 10^9 bytes; 0 takes what the machine has.
    Where a batch needs more, fewer of its windows are in memory at once."""

    def __post_init__(self) -> None:
        if not self.memory_gigabytes >= 0:
            raise UserError(
                f"device.memory_gigabytes is {self.memory_gigabytes}; it is 0 (all) or more."
            )
        if self.threads < 0:
            raise UserError(f"device.threads is {self.threads}; it is 0 (all cores) or more.")


@dataclass(frozen=True)
class Device:
    """A choice made, and why."""

    config: DeviceConfig
    """Nothing in it is `auto` or 0 any more."""
    reason: str
    """What was measured, in words."""

    @property
    def torch(self) -> torch.device:
        """The same for torch."""
        import torch

        return torch.device(self.config.kind)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and activations that compute."""
        import torch

        return torch.float32 if self.config.precision == "float32" else torch.bfloat16

    def __str__(self) -> str:
        threads = f", {self.config.threads} threads" if self.config.kind == "cpu" else ""
        return f"{self.config.kind}, {self.config.precision}{threads} ({self.reason})"


def choose_device(config: DeviceConfig, rows: int = 1024, width: int = 256) -> Device:
    """Fill in what the config leaves open.

    Args:
        config: what the user fixed.
        rows, width: the matrix product that decides is (rows, width) x (width, 4 * width);
            take those of the model.

    Raises:
        UserError: the named device is not there, or does not have the named precision.
    """
    import torch

    # Moments of rare weights decay into denormal numbers, on which processors are slow.
    torch.set_flush_denormal(True)
    threads = config.threads or torch.get_num_threads()
    torch.set_num_threads(threads)

    available = [kind for kind in ("cuda", "mps") if _available(kind)] + ["cpu"]
    if config.kind not in ("auto", *available):
        raise UserError(
            f"device.kind is '{config.kind}', which this machine or this build of torch does not "
            f"have. Available: {', '.join(available)}."
        )
    if config.fast == "on" and not jit.available():
        raise UserError(
            "device.fast is 'on', but there are no kernels: numba is not installed, or FOLIO_JIT "
            "is 'off'. Install numba, or give --device.fast off."
        )
    if config.precision == "int8" and config.fast == "off":
        raise UserError(
            "device.precision is 'int8', whose products the fast layers make, and device.fast is "
            "'off'. Give another --device.precision, or --device.fast on."
        )
    if config.precision == "int8" and config.kind not in ("auto", "cpu"):
        raise UserError(
            f"device.precision is 'int8', which takes a processor, and device.kind is "
            f"'{config.kind}'. Give 'cpu' for it, or another precision."
        )
    capable = ["cpu"] if config.precision == "int8" else available
    kinds = capable if config.kind == "auto" else [config.kind]
    precisions = ["float32", "bfloat16"] if config.precision == "auto" else [config.precision]

    def measure(precisions: Iterable[str]) -> dict[tuple[str, str], float]:
        # On one thread: several wait for each other where the machine is busy, and then the
        # measurement says more about the neighbours than about the processor.
        torch.set_num_threads(1)
        rates = {(k, p): matrix_rate(k, p, rows, width) for k in kinds for p in precisions}
        torch.set_num_threads(threads)
        return rates

    if len(kinds) * len(precisions) == 1:
        kind, precision = kinds[0], precisions[0]
        reason = "as asked"
        if kind == "cpu" and precision != "float32":  # which every processor has
            asked, usual = measure((precision, "float32")).values()
            if asked < usual / 2:
                reason += f", but float32 is {usual / asked:.0f} times as fast here"
        return Device(_settled(config, kind, precision, threads), reason)
    rates = measure(precisions)
    handicap = {"float32": WORTHWHILE, "bfloat16": 1.0}
    kind, precision = max(rates, key=lambda pair: rates[pair] * handicap[pair[1]])
    reason = ", ".join(f"{k} {p}: {rate:.3g} GFLOP/s" for (k, p), rate in rates.items())
    reason += " a thread" if kind == "cpu" else ""
    return Device(_settled(config, kind, precision, threads), reason)


def _settled(config: DeviceConfig, kind: Any, precision: Any, threads: int) -> DeviceConfig:
    """The config with nothing left open."""
    can_be_fast = kind == "cpu" and jit.available()
    fast = "on" if config.fast != "off" and can_be_fast else "off"
    return replace(config, kind=kind, precision=precision, threads=threads, fast=fast)


def matrix_rate(kind: str, precision: str, rows: int, width: int) -> float:
    """Measured rate of a matrix product in GFLOP/s, conversion of its inputs included.

    Takes some 50 ms. Smaller products come first, and the rate of one that is slow is returned:
    where a precision is emulated, a large product could take minutes.
    """
    import torch

    dtype = getattr(torch, precision)
    multiply = torch.ops.aten._int_mm if precision == "int8" else torch.matmul

    def seconds(n: int, k: int, m: int) -> float:
        a = torch.randn(n, k, device=kind)
        b = torch.randn(k, m, device=kind)

        def once() -> float:
            start = time.perf_counter()
            # One number back: waits for the device.
            multiply(a.to(dtype), b.to(dtype))[0, 0].item()
            return time.perf_counter() - start

        once()  # loads libraries
        best, begin = once(), time.perf_counter()
        while time.perf_counter() - begin < 0.01:
            best = min(best, once())
        return best

    n, k = 64, 64
    while True:
        n, k = min(n, rows), min(k, width)
        took = seconds(n, k, 4 * k)
        if took > SLOW or (n, k) == (rows, width):
            return 2 * n * k * 4 * k / took / 1e9
        n, k = 4 * n, 2 * k


def _available(kind: str) -> bool:
    import torch

    return torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, where glibc looks after it.

    A training step frees nearly all that it took, and glibc gives the end of its heap back to the
    system, so that each step would ask for thousands of pages anew.
    """
    if mallopt := _glibc("mallopt"):
        mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


def return_freed_memory() -> None:
    """Give the system back what `keep_freed_memory` kept."""
    if malloc_trim := _glibc("malloc_trim"):
        malloc_trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library that this process runs on; None where that is another one."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)


def memory_in_use() -> int:
    """Bytes of memory that this process holds now."""
    return account("self/status").get("VmRSS") or peak_memory()


def peak_memory(children: Iterable[int] = ()) -> int:
    """Most bytes of memory that this process ever held.

    Args:
        children: numbers of running processes that it forked, on Linux; what each has for itself
            is added. Pages that they share are those of this process.
    """
    # The system's own answer, below, counts the process that started this one.
    if peak := account("self/status").get("VmHWM"):
        return peak + sum(_own_peak(child) for child in children)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _own_peak(child: int) -> int:
    """What a process has for itself, and what it gave back since its own peak."""
    status, pages = account(f"{child}/status"), account(f"{child}/smaps_rollup")
    now = pages.get("Private_Clean", 0) + pages.get("Private_Dirty", 0)
    return now + status.get("VmHWM", 0) - status.get("VmRSS", 0)


def cores() -> int:
    """Processor cores that this process may use."""
    return os.cpu_count() or 1


def process_seconds() -> float:
    """Seconds since this process was started, where the system tells, or else since torch was
    about to be loaded."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
        ticks = int(stat.rpartition(")")[2].split()[19])
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        return now - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return time.monotonic() - _LOADED


def machine_memory() -> int:
    """Bytes of memory that this machine, or the container around this process, has."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows: unknown
        total = 1 << 62
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        limit = "max"
    return total if limit == "max" else min(total, int(limit))


def account(name: str) -> dict[str, int]:
    """One of Linux's accounts of a process: `VmRSS` and so on -> bytes; empty where it is not."""
    try:
        lines = Path("/proc", name).read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines]
    return {row[0].rstrip(":"): int(row[1]) << 10 for row in words if row[2:] == ["kB"]}
