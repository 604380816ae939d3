"""Each thing that makes Folio slow has a sentence, and a machine in order has none."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from folio.doctor.slowness import reasons

IN_ORDER: dict[str, dict[str, Any]] = {
    "versions": {"torch": "2.13.0+cpu"},
    "machine": {
        "cores": 4, "cores of the machine": 4, "memory gigabytes": 16.0, "load": 0.5,
        "instructions": ["avx2"], "graphics cards": [],
    },
    "precision": {"remembered": {"1024 x 256": {"cpu float32": 50.0, "cpu bfloat16": 200.0}}},
    "kernels": {"numba": True, "FOLIO_JIT": True, "compiled": 9},
    "cache": {"temporary": False},
    "locks": {"work": True},
    "disk": {"runs": {"folder": "runs", "free gigabytes": 50.0}},
}  # fmt: skip


def test_a_machine_in_order_has_nothing_slow():
    assert reasons(IN_ORDER) == []
    report = deepcopy(IN_ORDER)
    report["machine"]["memory gigabytes"] = None  # unknown
    assert reasons(report) == []
    report["machine"] |= {"cores": 4, "cores of the machine": 64, "load": 10.0}
    (reason,) = reasons(report)
    assert "4 of 64 cores" in reason, "the others work on the other 60"


@pytest.mark.parametrize(
    ("section", "changed", "said"),
    [
        ("machine", {"cores": 2}, "2 of 4 cores"),
        ("machine", {"load": 9.0}, "Other programs"),
        ("machine", {"instructions": []}, "AVX2"),
        ("machine", {"memory gigabytes": 1.0}, "1.0 GB of memory"),
        ("machine", {"graphics cards": ["T4"]}, "build for CUDA"),
        (
            "precision",
            {"now": {"1024 x 256": {"cpu float32": 50.0, "cpu bfloat16": 5.0}}},
            "0.1 times",
        ),
        (
            "precision",
            {"now": {"512 x 64": {"cpu float32": 9.0, "cpu bfloat16": 99.0}}},
            "from 9 to 50",
        ),
        ("kernels", {"numba": False}, "pip install numba"),
        ("kernels", {"FOLIO_JIT": False}, "FOLIO_JIT=off"),
        ("kernels", {"compiled": 0}, "not compiled yet"),
        ("cache", {"temporary": True}, "FOLIO_CACHE=FOLDER"),
        ("locks", {"work": False}, "cannot be locked"),
        ("disk", {"runs": {"folder": "runs", "free gigabytes": 0.5}}, "0.5 GB are free"),
    ],
)
def test_each_thing_that_is_slow_is_said_alone(section: str, changed: dict[str, Any], said: str):
    report = deepcopy(IN_ORDER)
    report[section] |= changed
    (reason,) = reasons(report)
    assert said in reason


@pytest.mark.parametrize("failed", IN_ORDER)
def test_what_could_not_be_found_out_says_nothing(failed: str):
    assert reasons(IN_ORDER | {failed: {"failed": "OSError: no"}}) == []
