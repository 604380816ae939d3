"""Every test has a cache and a runs folder of its own; corpora are optional."""

from __future__ import annotations

import gc
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from folio.corpus import extraction
from folio.fast import calls
from folio.fast.int8 import is_exact
from folio.recipe import finish
from folio.run.card import draw_loss
from folio.run.directory import Run, runs_folder
from folio.run.look_back import look_back
from folio.storage import cache_folder
from tests.extracting import LastingWorker
from tests.forked import shorten_ends
from tests.write.chromium import Browser

ROOT = Path(__file__).parents[1]
CORPORA = Path(os.environ.get("FOLIO_CORPORA", ROOT.parent / "shared" / "corpora"))

KERNELS = cache_folder() / "kernels"
"""Compiled once for all tests."""
CHECKS = cache_folder() / "checks"
"""What is known of these kernels, also."""

collect_ignore = ["fitting.py"]
"""Not even for its doctests: it loads Lightning, which takes ten seconds."""

NEEDS_INT8 = pytest.mark.skipif(not is_exact(), reason="this processor overflows")
INT8 = pytest.param("int8", marks=NEEDS_INT8)
"""A device.precision among others."""

# A busy machine is no failure.
hypothesis.settings.register_profile("folio", deadline=None)
hypothesis.settings.load_profile("folio")

# Tests run side by side, and two processes of two threads each wait for each other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start


def group_of(item: pytest.Item) -> str:
    """The tests of a file run in one of pytest's processes, which makes once what they share; those
    of the kernels too, which it compiles while another process has something else to do.
    """
    if named := item.get_closest_marker("xdist_group"):
        return named.args[0]
    path = item.path.relative_to(ROOT).as_posix()
    return "kernels" if path.startswith(("tests/fast/", "tests/training/parallel/")) else path


FIRST = (
    *("kernels", "transformers", "forked", "kernel", "lightning", "chromium", "jit"),
    *("tests/cli/test_systems.py", "tests/recipe/test_warm_up.py", "tests/test_docs.py"),
)
"""Groups that take longest, so that at the end no process waits for another."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group_of(item)))
    places = {group: place for place, group in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(group_of(item), len(FIRST)))


def pytest_collection_finish() -> None:
    """What was imported stays, and is not looked through for garbage at each test that trains: that
    takes 0.15 seconds a time.
    """
    gc.collect()
    gc.freeze()


def new_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """Of a name that nobody has to look for: pytest would number it, and read the names of all
    folders for that, which after thousands of tests takes longer than most of them.
    """
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=tmp_path_factory.getbasetemp()))


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_folder(tmp_path_factory, re.sub(r"\W", "_", request.node.name)[:30])


def new_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An empty one, but for what is made once for all tests."""
    cache = new_folder(tmp_path_factory, "cache")
    KERNELS.mkdir(parents=True, exist_ok=True)
    (cache / "kernels").symlink_to(KERNELS)
    CHECKS.mkdir(parents=True, exist_ok=True)
    (cache / "checks").symlink_to(CHECKS)
    return str(cache)


@pytest.fixture(autouse=True)
def own_folders(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLIO_CACHE", new_cache(tmp_path_factory))
    monkeypatch.setenv("FOLIO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("FOLIO_CORPORA", str(CORPORA))


@pytest.fixture(scope="session", autouse=True)
def short_ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLIO_CACHE", new_cache(tmp_path_factory))
        shorten_ends(patch.setattr)
        yield


@pytest.fixture(scope="session", autouse=True)
def lasting_workers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "_Worker", LastingWorker)
        yield
    LastingWorker.end_all()


@pytest.fixture
def whole_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what a run leaves: it ends as users see it."""
    monkeypatch.setattr(finish, "draw_loss", draw_loss)
    monkeypatch.setattr(finish, "look_back", look_back)


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


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for all tests, which are in the group "chromium" therefore."""
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def shakespeare() -> Path:
    path = CORPORA / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip(f"{path} is absent; FOLIO_CORPORA names the folder of the corpora")
    return path


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return write_book(tmp_path)


def copied(path: Path) -> Run:
    """A copy of a run that was trained once, among the runs of a test."""
    return Run(Path(shutil.copytree(path, runs_folder() / path.name)))


def write_book(folder: Path) -> Path:
    """A text with structure, of 20,000 characters, that a tiny model learns in seconds."""
    lines = [
        f"The {i % 7}th line of verse {i % 5} sings of the {i % 11} winds.\n" for i in range(450)
    ]
    path = folder / "book.txt"
    path.write_text("".join(lines)[:20_000], encoding="utf-8")
    return path
