"""Kernels are compiled once for each version of what they are made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("numba")

USED = """
import numpy as np
from constants import ADDED
from inner.helpers import doubled
from folio.jit import kernel, must_compile

OWN = 100.0

@kernel()
def compute(x):
    return doubled(x) + ADDED + OWN

if __name__ == "__main__":
    import used
    print(must_compile(used.compute), used.compute(1.0), must_compile(used.compute))
"""
HELPERS = """
from folio.jit import kernel

FACTOR = 2.0

@kernel(inline=True)
def doubled(x):
    return x * FACTOR
"""


FORKS = """
import json, os, runpy, sys
import numba, folio.jit
numba.njit(lambda x: x + 1.0)(1.0)  # takes a second: numba loads its compiler
for line in sys.stdin:
    script, environment, *streams = json.loads(line)
    if (child := os.fork()) == 0:
        code = 1
        try:
            for own, path in enumerate(streams, 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), own)
            os.environ.update(environment)
            paths = environment.get("PYTHONPATH", "").split(os.pathsep)
            sys.path[:0] = [os.path.dirname(script), *paths]
            runpy.run_path(script, run_name="__main__")
            sys.stdout.flush()
            code = 0
        finally:
            os._exit(code)
    print(os.waitpid(child, 0)[1], flush=True)
"""

pytestmark = pytest.mark.xdist_group("jit")


@pytest.fixture(scope="module")
def forks() -> Iterator[subprocess.Popen[str]]:
    """Runs a script in a process that has numba and none of the kernels."""
    command = [sys.executable, "-c", FORKS]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


Compute = Callable[..., list[str]]
"""A cache, whether compiling is announced, and variables -> what a process says: must it compile,
the number, must it still.
"""


@pytest.fixture
def compute(forks: subprocess.Popen[str], sources: Path, tmp_path: Path) -> Compute:
    def run(cache: Path, announced: bool | None = None, **environment: str) -> list[str]:
        out, err = tmp_path / "out", tmp_path / "err"
        environment["FOLIO_CACHE"] = str(cache)
        given = [str(sources / "used.py"), environment, str(out), str(err)]
        assert forks.stdin is not None and forks.stdout is not None
        forks.stdin.write(json.dumps(given) + "\n")
        forks.stdin.flush()
        said = err.read_text() if forks.stdout.readline() == "0\n" else pytest.fail(err.read_text())
        if announced is not None:
            assert ("compiling the kernels" in said) == announced
            assert said.count("\n") == announced
        return out.read_text().split()

    return run


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    (folder / "inner").mkdir(parents=True)
    (folder / "used.py").write_text(USED, encoding="utf-8")
    (folder / "constants.py").write_text("ADDED = 10.0\n", encoding="utf-8")
    (folder / "inner" / "helpers.py").write_text(HELPERS, encoding="utf-8")
    return folder


def test_a_kernel_is_compiled_once_and_says_so(compute: Compute, sources: Path, tmp_path: Path):
    cache = tmp_path / "own"
    assert compute(cache, announced=True) == ["True", "112.0", "False"]
    assert compute(cache, announced=False) == ["False", "112.0", "False"]
    kept = {path.relative_to(cache).parts[0] for path in cache.rglob("*") if path.is_file()}
    assert kept == {"kernels"}
    assert not list(sources.rglob("*.nbi"))  # nothing stays when Folio is uninstalled


EDITS = [  # one after the other: of an own constant, an imported one, one of a helper, a helper
    ("used.py", "OWN = 100.0", "OWN = 200.0", "212.0"),
    ("constants.py", "10.0", "20.0", "222.0"),
    ("inner/helpers.py", "FACTOR = 2.0", "FACTOR = 3.0", "223.0"),
    ("inner/helpers.py", "x * FACTOR", "x - FACTOR", "218.0"),
]


def test_an_edit_takes_effect_in_the_next_process(compute: Compute, sources: Path, tmp_path: Path):
    cache = tmp_path / "own"
    assert compute(cache)[1] == "112.0"
    for file, before, after, expected in EDITS:
        text = (sources / file).read_text(encoding="utf-8")
        assert before in text
        (sources / file).write_text(text.replace(before, after), encoding="utf-8")
        assert compute(cache)[1] == expected


def test_a_constant_of_another_folder_takes_effect(compute: Compute, sources: Path, tmp_path: Path):
    other = tmp_path / "elsewhere"
    other.mkdir()
    (sources / "constants.py").rename(other / "constants.py")
    cache = tmp_path / "own"
    path = f"{other}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    assert compute(cache, PYTHONPATH=path)[1] == "112.0"
    (other / "constants.py").write_text("ADDED = 30.0\n", encoding="utf-8")
    assert compute(cache, PYTHONPATH=path)[1] == "132.0"


def test_damaged_machine_code_is_made_anew(compute: Compute, tmp_path: Path):
    cache = tmp_path / "own"
    compute(cache)
    for damage in (b"", b"no pickle"):
        for path in cache.rglob("*.nb?"):
            path.write_bytes(damage)
        assert compute(cache)[1] == "112.0"
    assert compute(cache, announced=False)[1] == "112.0"


def test_where_nothing_can_be_kept_it_is_told_once_and_runs(sources: Path, tmp_path: Path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(sources / "used.py")],
        env=os.environ | {"FOLIO_CACHE": str(tmp_path / "file")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["True", "112.0", "False"]
    assert done.stderr.count("the cache is temporary") == 1 and "FOLIO_CACHE" in done.stderr


def test_a_user_without_a_home_compiles_in_memory(sources: Path):
    code = """if True:
        import sys
        from pathlib import Path
        def no_home(): raise RuntimeError("Could not determine home directory.")
        Path.home = no_home
        sys.path.insert(0, sys.argv[1])
        import used
        print(used.compute(1.0))
    """
    without = {k: v for k, v in os.environ.items() if k not in ("FOLIO_CACHE", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(sources)],
        env=without,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["112.0"] and "the cache is temporary" in done.stderr


def test_the_switch_turns_all_kernels_off(monkeypatch: pytest.MonkeyPatch):
    from folio import jit

    assert jit.available()
    monkeypatch.setenv("FOLIO_JIT", "off")
    assert not jit.available()
