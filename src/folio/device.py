"""Chooses where to compute, in which precision and on how many threads, by measuring.

bfloat16 is four times faster than float32 on some processors and a hundred times slower on others
that claim to support it, so both are timed for a moment.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from folio import accelerator, jit
from folio.console import amount
from folio.errors import UserError
from folio.process import physical_memory
from folio.storage import cache_folder, read_json, write_json

if TYPE_CHECKING:
    import torch

ROOT = Path("/")

UNKNOWN_MEMORY = 1 << 62
"""Bytes; what fits is then not known beforehand, so nothing is refused or divided for it."""

RULE = 1
"""Version of the measurement and the choice; results remembered for another version are measured
again."""

WORTHWHILE = 1.3
"""How many times faster bfloat16 must multiply to be chosen; below that, conversions eat
the gain."""

SLOW = 0.003
"""Seconds of a matmul after which no larger one is tried."""


_LOADED = time.monotonic()

_computes = _lacks_threads = False
"""Whether a device was chosen; and whether that was in a process that this one is forked from."""


Kind = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """Where and how to compute."""

    kind: Kind = "auto"
    """Where to compute; `auto` takes the fastest that this machine has."""

    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """Precision of everything that the model computes; master weights, their gradients and the loss
    stay in float32. `auto` takes the faster of float32 and bfloat16, measured; on CUDA
    bfloat16, or float16 on cards too old for it. `int8` is bfloat16, but trains with int8 matmuls
    (fast/int8.py)."""

    threads: int = 0
    """CPU threads; 0 takes all cores, or what OMP_NUM_THREADS says. They change the result in its
    last bits."""

    fast: Literal["auto", "on", "off"] = "auto"
    """Whether layers are replaced by compiled ones (folio/fast) on a CPU, and head, loss, optimizer
    and the starting of kernels by faster ones (training/accelerated) on a GPU. `off` computes with
    torch alone, as the model is written. `auto` means `on` where possible."""

    compile: Literal["auto", "on", "off"] = "auto"
    """Whether torch.compile compiles the fast steps on CUDA; elsewhere it means nothing. `auto`
    does it in runs that are long enough to earn the minute that it may take
    (recipe/compiling.py)."""

    memory_gigabytes: float = 0.0
    """Most memory that a training may take, in units of 10^9 bytes; 0 takes what the machine has. A
    batch that needs more is split into micro-batches."""

    deterministic: bool = False
    """Whether a GPU takes only kernels that give the same bytes again, which are slower. A
    processor always does."""

    def __post_init__(self) -> None:
        if not self.memory_gigabytes >= 0:
            raise UserError(
                f"device.memory_gigabytes must be 0 (all) or more, got {self.memory_gigabytes}."
            )
        if self.threads < 0:
            raise UserError(f"device.threads must be 0 (all cores) or more, got {self.threads}.")


@dataclass(frozen=True)
class Device:
    """The chosen device, and why."""

    config: DeviceConfig
    """The config with no `auto` and no 0 left, but for `compile`, which follows from the budget."""
    reason: str
    """What was measured, in words."""

    @property
    def torch(self) -> torch.device:
        """The corresponding torch.device: of several GPUs, the one of this process."""
        return accelerator.own_device(self.config.kind)

    @property
    def is_fast(self) -> bool:
        """Whether compiled kernels and several processes are used."""
        return self.config.fast != "off" and can_be_fast(self.config.kind, self.config.precision)

    @property
    def is_accelerated(self) -> bool:
        """Whether a GPU computes, in its faster way."""
        return self.config.fast != "off" and self.config.kind != "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the compute weights and activations."""
        import torch

        return (
            torch.bfloat16
            if self.config.precision == "int8"
            else getattr(torch, self.config.precision)
        )

    def __str__(self) -> str:
        on_cpu = self.config.kind == "cpu"
        threads = f", {amount(self.config.threads, 'thread')}" if on_cpu else ""
        return f"{self.config.kind}, {self.config.precision}{threads} ({self.reason})"


def choose_device(config: DeviceConfig, rows: int = 1024, width: int = 256) -> Device:
    """Choose what the config leaves open.

    Args:
        config: what the user set.
        rows, width: the matmul that is timed is (rows, width) x (width, 4 * width); take those of
            the model.

    Raises:
        UserError: the named device is not there, or does not have the named precision.
    """
    import torch

    # The optimizer's moments of rare weights decay to denormal numbers, on which CPUs are slow.
    torch.set_flush_denormal(True)
    global _computes
    _computes = True
    threads = 1 if _lacks_threads else config.threads or cores()
    torch.set_num_threads(threads)

    available = [kind for kind in ("cuda", "mps") if accelerator.available(kind)] + ["cpu"]
    _require(config, available)
    capable = ["cpu"] if config.precision == "int8" else available
    kinds = capable if config.kind == "auto" else [config.kind]
    is_open = config.precision == "auto"
    pairs = [
        (kind, precision)
        for kind in kinds
        for precision in (accelerator.usual_precisions(kind) if is_open else [config.precision])
    ]

    def measure(pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        # On one thread: several wait for each other where the machine is busy, and then the
        # measurement says more about the neighbours than about the processor.
        torch.set_num_threads(1)
        rates = {pair: matrix_rate(*pair, rows, width) for pair in pairs}
        torch.set_num_threads(threads)
        return rates

    if len(pairs) == 1:
        kind, precision = pairs[0]
        reason = "what its matrix units take" if is_open else "as asked"
        if kind == "cpu" and precision != "float32":  # which every processor has
            asked, usual = measure([pairs[0], ("cpu", "float32")]).values()
            if asked < usual / 2:
                reason += f", but float32 is {usual / asked:.0f} times as fast here"
        return Device(_settled(config, kind, precision, threads), reason)
    key = f"{rows} x {width}: {', '.join(' '.join(pair) for pair in pairs)}"
    rates = _remembered(key, lambda: measure(pairs))
    kind, precision = max(
        rates, key=lambda pair: rates[pair] * (WORTHWHILE if pair[1] == "float32" else 1.0)
    )
    reason = ", ".join(f"{k} {p}: {rate:.3g} GFLOP/s" for (k, p), rate in rates.items())
    reason += " a thread" if kind == "cpu" else ""
    return Device(_settled(config, kind, precision, threads), reason)


def device_of(kind: Kind) -> Device | None:
    """A device to use a model on, in float32; None for a processor as it is."""
    if kind == "cpu":
        return None
    return choose_device(DeviceConfig(kind=kind, precision="float32"))


def _require(config: DeviceConfig, available: Sequence[str]) -> None:
    """Refuse what this machine does not have, and what contradicts itself."""
    if config.kind not in ("auto", *available):
        raise UserError(
            f"device.kind is '{config.kind}', which this machine or this build of torch does not "
            f"have. Available: {', '.join(available)}."
        )
    is_gpu = config.kind in ("cuda", "mps")
    if config.fast == "on" and not is_gpu and not jit.available():
        raise UserError(
            "device.fast is 'on', but there are no kernels: numba is not installed, or FOLIO_JIT "
            "is 'off'. Install numba, or give --device.fast off."
        )
    if config.fast == "on" and not is_gpu and config.precision == "float16":
        raise UserError(
            "device.fast is 'on', and the fast layers do not compute in float16. Give "
            "--device.precision bfloat16, or --device.fast off."
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


def can_be_fast(kind: str, precision: str) -> bool:
    """Whether there are compiled kernels for a device and a precision."""
    return kind == "cpu" and precision != "float16" and jit.available()


def _settled(config: DeviceConfig, kind: Any, precision: Any, threads: int) -> DeviceConfig:
    """The config with nothing left open."""
    if kind != "cpu":
        accelerator.prepare(kind, precision, config.deterministic)
    is_fast = config.fast != "off" and (kind != "cpu" or can_be_fast(kind, precision))
    fast = "on" if is_fast else "off"
    return replace(config, kind=kind, precision=precision, threads=threads, fast=fast)


def _remembered(
    key: str, measure: Callable[[], dict[tuple[str, str], float]]
) -> dict[tuple[str, str], float]:
    """Return what was measured first on this machine with this version of torch, so that the same
    command makes the same choice, however close the rates are.
    """
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    machine = f"{processor_name()}, {gpu}, torch {torch.__version__}, rule {RULE}"
    known = _known_rates()
    try:
        found = {tuple(name.split()): float(rate) for name, rate in known[machine][key].items()}
        if found and all(len(pair) == 2 for pair in found):
            return cast("dict[tuple[str, str], float]", found)
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    rates = measure()
    known = _known_rates()  # another process may have measured something, too
    known = known if isinstance(known.get(machine, {}), dict) else {}
    shapes = known.get(machine, {})
    shapes[key] = {" ".join(pair): rate for pair, rate in rates.items()}
    with suppress(UserError):  # the disk is full
        write_json(_rates_file(), known | {machine: shapes})
    return rates


def remembered_rates() -> dict[str, dict[str, float]]:
    """What earlier commands measured with this processor and this version of torch, which is not
    loaded.

    Returns:
        Shape of a matmul -> device and precision -> GFLOP/s of a thread, or of a GPU.
    """
    from importlib.metadata import version

    ours, torch = f"{processor_name()}, ", f", torch {version('torch')}, rule {RULE}"
    for machine, shapes in _known_rates().items():
        if machine.startswith(ours) and machine.endswith(torch):
            return {key.partition(":")[0]: rates for key, rates in shapes.items()}
    return {}


def _rates_file() -> Path:
    return cache_folder() / "precision.json"


def _known_rates() -> dict[str, Any]:
    try:
        return dict(read_json(_rates_file()))
    except (UserError, OSError, TypeError, ValueError):  # missing, or damaged
        return {}


@cache
def processor_name() -> str:
    """The processor's name for itself."""
    with suppress(OSError):
        for line in (ROOT / "proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return f"{platform.processor()} {platform.machine()}".strip()


def matrix_rate(kind: str, precision: str, rows: int, width: int) -> float:
    """Measure the rate of a matmul in GFLOP/s, conversion of its inputs included.

    Takes some 50 ms. Smaller matmuls are timed first, and if one is slow its rate is returned: with
    an emulated precision, a large one could take minutes.
    """
    import torch

    dtype = getattr(torch, precision)
    multiply = torch.ops.aten._int_mm if precision == "int8" else torch.matmul

    def seconds(n: int, k: int, m: int) -> float:
        a = torch.randn(n, k, device=kind)
        b = torch.randn(k, m, device=kind)

        def once() -> float:
            start = time.perf_counter()
            # Reading one number back waits for the device.
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
    """Compute on one thread within this context: small matmuls on two threads take twenty times as
    long while other programs are busy.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _go_on_in_fork() -> None:
    """Compute on one thread: OpenMP would wait for ever for those that did not come along."""
    global _lacks_threads
    if _computes:
        import torch

        _lacks_threads = True
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_go_on_in_fork)


def process_seconds() -> float:
    """Seconds since this process was started if the system tells, else since shortly before torch
    was imported.
    """
    try:
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
        ticks = int(stat.rpartition(")")[2].split()[19])
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        return now - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return time.monotonic() - _LOADED


def cores(root: Path = ROOT) -> int:
    """Number of cores that this process may use: limited by the machine, the process's affinity,
    its container's quota, and OMP_NUM_THREADS.

    Args:
        root: where to look for /proc and /sys.
    """
    try:
        n = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on macOS and Windows
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
    """Bytes of memory that this process may use: limited by the machine, its containers, and
    `ulimit`. UNKNOWN_MEMORY where none of them tells.

    Args:
        root: as in `cores`.
    """
    try:
        limits = [physical_memory()]
    except (AttributeError, ValueError, OSError):
        limits = [UNKNOWN_MEMORY]
    for folder in _cgroups("memory", root):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            limits += [int(word) for word in _words(folder / name) if word.isdecimal()]
    try:
        import resource
    except ImportError:  # not on Windows
        return min(limits)
    for name in ("RLIMIT_AS", "RLIMIT_DATA"):
        if hasattr(resource, name):
            soft = resource.getrlimit(getattr(resource, name))[0]
            limits += [soft] * (soft not in (resource.RLIM_INFINITY, -1))
    return min(limits)


def _cgroups(controller: str, root: Path) -> Iterator[Path]:
    """The control groups of this process, from its own to the outermost; none outside Linux."""
    base = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # cgroup version 2
            mounts = [base, base / "unified"]
        elif controller in controllers.split(","):
            mounts = [base / controllers, base / controller]
        else:
            continue
        own = Path(path.lstrip("/"))
        yield from (mount / folder for mount in mounts for folder in (own, *own.parents))


def _words(path: Path) -> list[str]:
    """The words of a small file; empty if it does not exist."""
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []
