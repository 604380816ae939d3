"""Where the arithmetic runs, in which precision, on how many threads: measured, not guessed.

bfloat16 is four times faster than float32 on some processors and a hundred times slower on
others that have the same name for it, so both are tried for a moment.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from folio import jit
from folio.errors import UserError
from folio.storage import cache_folder, read_json, write_json

if TYPE_CHECKING:
    import torch

ROOT = Path("/")

RULE = 1
"""Of what is measured and how it is chosen from; what was remembered for another one is measured
again."""

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
                f"device.memory_gigabytes must be 0 (all) or more, got {self.memory_gigabytes}."
            )
        if self.threads < 0:
            raise UserError(f"device.threads must be 0 (all cores) or more, got {self.threads}.")


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
    def is_fast(self) -> bool:
        """Whether kernels and several processes take part."""
        return self.config.fast != "off" and self.config.kind == "cpu" and jit.available()

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
    threads = config.threads or cores()
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
    key = f"{rows} x {width}: {', '.join(f'{k} {p}' for k in kinds for p in precisions)}"
    rates = _remembered(key, lambda: measure(precisions))
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


def _remembered(
    key: str, measure: Callable[[], dict[tuple[str, str], float]]
) -> dict[tuple[str, str], float]:
    """What was measured first on this machine with this torch, so that the same command chooses
    the same again, however close the rates are.
    """
    import torch

    path = cache_folder() / "precision.json"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    machine = f"{processor_name()}, {gpu}, torch {torch.__version__}, rule {RULE}"

    def read() -> dict[str, Any]:
        try:
            return dict(read_json(path))
        except (UserError, OSError, TypeError, ValueError):  # none yet, or damaged
            return {}

    try:
        found = {tuple(name.split()): float(rate) for name, rate in read()[machine][key].items()}
        if found and all(len(pair) == 2 for pair in found):
            return cast("dict[tuple[str, str], float]", found)
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    rates = measure()
    known = read()
    known = known if isinstance(known.get(machine, {}), dict) else {}
    shapes = known.get(machine, {})
    shapes[key] = {" ".join(pair): rate for pair, rate in rates.items()}
    with suppress(UserError):  # of a disk that is full
        write_json(path, known | {machine: shapes})
    return rates


@cache
def processor_name() -> str:
    """What the processor calls itself."""
    with suppress(OSError):
        for line in (ROOT / "proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return f"{platform.processor()} {platform.machine()}".strip()


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


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, which no other program makes wait: small products that two threads
    share take twenty times as long where others are busy.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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


def process_seconds() -> float:
    """Seconds since this process was started, where the system tells, or else since torch was
    about to be loaded.
    """
    try:
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
        ticks = int(stat.rpartition(")")[2].split()[19])
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        return now - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return time.monotonic() - _LOADED


def cores(root: Path = ROOT) -> int:
    """Processors that this process may use: those that there are, that it may run on, whose time
    its container gives it, and that OMP_NUM_THREADS allows.

    Args:
        root: where /proc and /sys are found.
    """
    try:
        n = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS, Windows
        n = os.cpu_count() or 1
    for folder in _cgroups("cpu", root):
        quota, period = [*_words(folder / "cpu.max"), "max", "100000"][:2]
        if old := _words(folder / "cpu.cfs_quota_us"):
            quota, period = old[0], (_words(folder / "cpu.cfs_period_us") or ["100000"])[0]
        if quota.isdecimal() and period.isdecimal() and int(period):
            n = min(n, -(-int(quota) // int(period)))
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal() and int(asked):
        n = min(n, int(asked))
    return max(n, 1)


def machine_memory(root: Path = ROOT) -> int:
    """Bytes of memory that this process may take: what the machine has, what the containers
    around it give, and what `ulimit` allows.

    Args:
        root: as in `cores`.
    """
    try:
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):  # Windows: unknown
        limits = [1 << 62]
    for folder in _cgroups("memory", root):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            limits += [int(word) for word in _words(folder / name) if word.isdecimal()]
    try:
        import resource
    except ImportError:  # Windows
        return min(limits)
    for name in ("RLIMIT_AS", "RLIMIT_DATA"):
        if hasattr(resource, name):
            soft = resource.getrlimit(getattr(resource, name))[0]
            limits += [soft] * (soft not in (resource.RLIM_INFINITY, -1))
    return min(limits)


def _cgroups(controller: str, root: Path) -> Iterator[Path]:
    """The control groups of this process, from its own to the outermost; none but on Linux."""
    base = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            mounts = [base, base / "unified"]
        elif controller in controllers.split(","):
            mounts = [base / controllers, base / controller]
        else:
            continue
        own = Path(path.lstrip("/"))
        yield from (mount / folder for mount in mounts for folder in (own, *own.parents))


def _words(path: Path) -> list[str]:
    """What stands in a small file; nothing where there is none."""
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def account(name: str) -> dict[str, int]:
    """One of Linux's accounts of a process: `VmRSS` and so on -> bytes; empty where it is not."""
    try:
        lines = Path("/proc", name).read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines]
    return {row[0].rstrip(":"): int(row[1]) << 10 for row in words if row[2:] == ["kB"]}
