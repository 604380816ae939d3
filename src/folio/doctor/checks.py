"""Looks at machine, installation and cache, for a bug report. No check stops the others.

Nothing here changes anything, and torch is loaded only to measure.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from folio import __version__, device, jit, storage
from folio.device import ROOT, UNKNOWN_MEMORY, cores, machine_memory, processor_name
from folio.run.directory import list_runs, runs_folder

Facts = dict[str, Any]
"""What a check found: name -> a value that JSON can hold."""

PACKAGE = "foliolm"
FAST_SETS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
)
FAST_SETS_ARM = ("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2")
PREFIXES = ("FOLIO_", "OMP_", "KMP_", "MKL_", "NUMBA_", "TORCH", "PYTORCH_", "CUDA", "ATEN_")
NAMES = ("LD_PRELOAD", "PYTHONPATH", "RANK", "VIRTUAL_ENV", "WORLD_SIZE", "XDG_CACHE_HOME")
SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD")

ROWS, WIDTH = 1024, 256
"""Size of the matmul that is measured where nothing is remembered."""

GIGABYTE = 1e9


def examine(measure: bool = False) -> dict[str, Facts]:
    """Run all checks; one that fails says so, and the others go on.

    Args:
        measure: measure the precisions now, too, where the figures of an earlier run are known.
    """
    checks: dict[str, Callable[[], Facts]] = {
        "versions": versions,
        "machine": machine,
        "precision": lambda: precision(measure),
        "kernels": kernels,
        "cache": cache,
        "locks": locks,
        "disk": disk,
        "environment": environment,
        "extras": extras,
    }
    report: dict[str, Facts] = {}
    for name, check in checks.items():
        try:
            report[name] = check()
        except Exception as error:  # whatever is broken is what a bug report is about
            report[name] = {"failed": f"{type(error).__name__}: {error}"}
    return report


# ---- the checks --------------------------------------------------------------------------


def versions() -> Facts:
    """Folio, Python, the system, and what Folio is built on."""
    python = f"{platform.python_version()} ({platform.python_implementation()})"
    found: Facts = {"folio": __version__, "python": python, "system": platform.platform()}
    return found | {name: version_of(name) for name in _required().get("", ["numpy", "torch"])}


def machine(root: Path = ROOT) -> Facts:
    """The processor, its memory, and how busy it is.

    Args:
        root: where to look for /proc and /sys.
    """
    memory = machine_memory(root)
    found: Facts = {
        "processor": processor_name(),
        "instructions": instruction_sets(root),
        "cores": cores(root),
        "cores of the machine": os.cpu_count(),
        "memory gigabytes": round(memory / GIGABYTE, 1) if memory < UNKNOWN_MEMORY else None,
    }
    try:
        found["graphics cards"] = graphics_cards()
    except (OSError, subprocess.SubprocessError) as error:  # the driver hangs or does not fit
        found |= {"graphics cards": None, "nvidia-smi": str(error)}
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 1)
    return found


def precision(measure: bool = False) -> Facts:
    """GFLOP/s of a thread in each precision, by the shape of a matmul, as choices go by them."""
    known = device.remembered_rates()
    if known and not measure:
        return {"remembered": known}
    import torch  # it must be, now

    rates = {}
    torch.set_num_threads(1)
    for name in ("float32", "bfloat16"):
        rates[f"cpu {name}"] = round(device.matrix_rate("cpu", name, ROWS, WIDTH), 1)
    return {"remembered": known, "now": {f"{ROWS} x {WIDTH}": rates}}


def kernels() -> Facts:
    """Whether layers are compiled, and whether that is done already."""
    folder = jit.folder_of(Path(__file__).parents[1] / "fast" / "kernels")
    compiled = len(list(folder.glob("*.nbc"))) if folder.is_dir() else 0
    there = importlib.util.find_spec("numba") is not None
    return {"numba": there, "FOLIO_JIT": jit.is_wanted(), "compiled": compiled}


def cache() -> Facts:
    """The cache folder and the megabytes of what is in it."""
    folder = storage.cache_folder()
    sizes = {
        path.name: round(sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6, 1)
        for path in sorted(folder.iterdir())
        if path.is_dir()
    }
    temporary = folder.name.startswith("folio-") and folder.parent == Path(tempfile.gettempdir())
    return {"folder": shown(folder), "temporary": temporary, "megabytes": sizes}


def locks() -> Facts:
    """Whether files can be locked, and the runs that are being written."""
    holders = {run.name: storage.holder_of(run.lock_file) for run in list_runs()}
    held = {name: holder for name, holder in holders.items() if holder}
    return {"work": storage.LOCKS, "runs": len(holders), "held": held}


def disk() -> Facts:
    """Free gigabytes where Folio writes."""
    places = {
        "runs": runs_folder(),
        "cache": storage.cache_folder(),
        "temporary files": Path(tempfile.gettempdir()),
    }
    found: Facts = {}
    for what, folder in places.items():
        there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        free = round(shutil.disk_usage(there).free / GIGABYTE, 1)
        found[what] = {"folder": shown(folder), "free gigabytes": free}
    return found


def environment(variables: Mapping[str, str] = os.environ) -> Facts:
    """Variables that change what Folio does; the value of a secret is not told."""
    found = {}
    for name in sorted(variables):
        if name.startswith(PREFIXES) or name in NAMES:
            found[name] = "(set)" if SECRET.search(name) else shown(variables[name])
    return found


def extras() -> Facts:
    """Optional packages: present, or which are missing."""
    found: Facts = {}
    for extra, names in _required().items():
        if extra and extra not in ("dev", "bench", "docs"):  # for those who change Folio
            missing = [name for name in names if version_of(name) is None]
            found[extra] = f"missing: {', '.join(missing)}" if missing else "present"
    return found


# ---- what the checks look at -------------------------------------------------------------


def instruction_sets(root: Path = ROOT) -> list[str] | None:
    """What multiplies fast on this processor; None where the system does not tell."""
    with suppress(OSError):
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8")
        line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
        if line is not None:
            return [name for name in FAST_SETS + FAST_SETS_ARM if name in line[1].split()]
    return None


def graphics_cards() -> list[str]:
    """Names of NVIDIA's cards, from their driver; OSError and SubprocessError are its failures."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    words = [tool, "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=2, check=True)
    return done.stdout.split("\n")[:-1]


def version_of(name: str) -> str | None:
    """The version of an installed package; None where it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _required() -> dict[str, list[str]]:
    """Extra -> the packages that it needs; "" for those that are always needed."""
    found: dict[str, list[str]] = {}
    try:
        lines = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        return found
    for line in lines:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"](\w+)", line)
        if name is not None and name[0] != PACKAGE:
            found.setdefault(extra[1] if extra else "", []).append(name[0])
    return found


def shown(path: object) -> str:
    """A path without the name of its user.

    >>> shown(Path.home() / "notes")
    '~/notes'
    """
    with suppress(RuntimeError):
        if (home := Path.home()).name:  # "/" is nobody's
            return re.sub(rf"{re.escape(str(home))}(?![\w.-])", "~", str(path))
    return str(path)
