"""What makes Folio slow on a machine, and what to do about it, by the facts of `checks.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from folio.device import WORTHWHILE
from folio.doctor.checks import Facts

LEAST_DISK = 2.0
"""Free gigabytes below which a run with its checkpoints may not fit."""

TOO_DIFFERENT = 4.0
"""Ratio of the rates of two matmuls that their shapes alone do not explain."""

LEAST_MEMORY = 2.0
"""Gigabytes below which not even the smallest sizes train well."""


def reasons(report: dict[str, Facts]) -> list[str]:
    """What is slow, a sentence each; facts that a check could not find out say nothing."""
    return [*_processor(report), *_precision(report), *_kernels(report), *_files(report)]


def _processor(report: dict[str, Facts]) -> Iterator[str]:
    machine, versions = report["machine"], report["versions"]
    cores, whole = machine.get("cores"), machine.get("cores of the machine")
    if cores and whole and cores < whole:
        yield (
            f"Folio may use {cores} of {whole} cores: OMP_NUM_THREADS, an affinity or the quota of "
            f"a container limits it."
        )
    there = whole or cores  # the load is that of the machine
    if there and machine.get("load", 0) > 1.5 * there:
        yield (
            f"Other programs are running: {machine['load']} want {there} cores. A training takes "
            f"longer by as much, and figures measured now are too low."
        )
    sets = machine.get("instructions")
    if sets is not None and not {"avx2", "asimd"} & set(sets):
        yield "The processor has no AVX2, so kernels compute two numbers at once in place of eight."
    if (machine.get("memory gigabytes") or LEAST_MEMORY) < LEAST_MEMORY:
        yield f"There are {machine['memory gigabytes']} GB of memory: take --size nano or micro."
    if machine.get("graphics cards") and "+cpu" in str(versions.get("torch")):
        yield (
            "There is a graphics card, and this torch is built for processors alone. Install the "
            "build for CUDA: https://pytorch.org/get-started/locally/"
        )


def _precision(report: dict[str, Facts]) -> Iterator[str]:
    found: dict[str, Any] = report["precision"].get("remembered", {}) | report["precision"].get(
        "now", {}
    )
    known = [rates for rates in found.values() if "cpu float32" in rates]
    singles = [rates["cpu float32"] for rates in known]
    if singles and min(singles) < max(singles) / TOO_DIFFERENT:
        yield (
            f"The rates of float32 that are remembered go from {min(singles):.3g} to "
            f"{max(singles):.3g} GFLOP/s: probably other programs were running. Remove "
            f"precision.json from the cache folder, and they are measured again."
        )
    ratios = [
        rates["cpu bfloat16"] / rates["cpu float32"] for rates in known if "cpu bfloat16" in rates
    ]
    if ratios and max(ratios) < WORTHWHILE:
        yield (
            f"The processor multiplies bfloat16 at {max(ratios):.2g} times the rate of float32: "
            f"Folio trains in float32. With AMX or AVX-512 BF16 it would be several times as fast."
        )


def _kernels(report: dict[str, Facts]) -> Iterator[str]:
    facts = report["kernels"]
    if facts.get("numba") is False:
        yield "numba is missing, so nothing is compiled: pip install numba"
    elif facts.get("FOLIO_JIT") is False:
        yield "FOLIO_JIT=off turns the compiled kernels off. Unset it."
    elif facts.get("compiled") == 0:
        yield "The kernels of this version are not compiled yet, which takes the first run seconds."


def _files(report: dict[str, Facts]) -> Iterator[str]:
    if report["cache"].get("temporary"):
        yield (
            "The cache folder cannot be written, so each command compiles and reads anew. Name "
            "another one: FOLIO_CACHE=FOLDER"
        )
    for what, place in report["disk"].items():
        if isinstance(place, dict) and place["free gigabytes"] < LEAST_DISK:
            yield f"{place['free gigabytes']} GB are free for {what} in {place['folder']}."
    if report["locks"].get("work") is False:
        yield "Files cannot be locked on this system: take care that no two commands write one run."
