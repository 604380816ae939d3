"""Every test has a cache and a runs folder of its own; corpora are optional."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from folio.fast import calls
from folio.fast.int8 import is_exact
from folio.recipe.watcher import Watcher
from folio.storage import cache_folder

CORPORA = Path(os.environ.get("FOLIO_CORPORA", Path(__file__).parents[2] / "shared" / "corpora"))

KERNELS = cache_folder() / "kernels"
"""Compiled once for all tests."""
CHECKS = cache_folder() / "checks"
"""What is known of these kernels, also."""

NEEDS_INT8 = pytest.mark.skipif(not is_exact(), reason="this processor overflows")
INT8 = pytest.param("int8", marks=NEEDS_INT8)
"""A device.precision among others."""

# A busy machine is no failure.
hypothesis.settings.register_profile("folio", deadline=None)
hypothesis.settings.load_profile("folio")

# Tests run side by side, and two processes of two threads each wait for each other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start


def pytest_collection_finish() -> None:
    """What was imported stays, and is not looked through for garbage at each test that trains: that
    takes 0.15 seconds a time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_folders(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    (cache / "kernels").symlink_to(KERNELS)
    CHECKS.mkdir(parents=True, exist_ok=True)
    (cache / "checks").symlink_to(CHECKS)
    monkeypatch.setenv("FOLIO_CACHE", str(cache))
    monkeypatch.setenv("FOLIO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("FOLIO_CORPORA", str(CORPORA))


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a run; they are written one token at a time."""
    monkeypatch.setattr(Watcher, "sample_tokens", 50)


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Training flushes denormal numbers, which Hypothesis takes for a broken processor."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels take the small tensors of tests too."""
    monkeypatch.setattr(calls, "FEWEST", 1)


@pytest.fixture(params=["kernels", "torch"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything by kernels, then nothing."""
    turn_kernels(monkeypatch, on=request.param == "kernels")


def turn_kernels(monkeypatch: pytest.MonkeyPatch, on: bool) -> None:
    """Have kernels take tensors of all sizes, or none."""
    monkeypatch.setattr(calls, "FEWEST", 1)
    monkeypatch.setenv("FOLIO_JIT", "on" if on else "off")


@pytest.fixture
def shakespeare() -> Path:
    path = CORPORA / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip(f"{path} is absent; FOLIO_CORPORA names the folder of the corpora")
    return path


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A text with structure, of 20,000 characters, that a tiny model learns in seconds."""
    lines = [
        f"The {i % 7}th line of verse {i % 5} sings of the {i % 11} winds.\n" for i in range(450)
    ]
    path = tmp_path / "book.txt"
    path.write_text("".join(lines)[:20_000], encoding="utf-8")
    return path
