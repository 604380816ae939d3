"""folio doctor tells what is there, whatever is broken, and no secret."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from folio import device
from folio.cli.main import main
from folio.doctor import checks
from folio.run.directory import Run, runs_folder

MEASURED = ["versions", "machine", "precision", "kernels"]
SECTIONS = [*MEASURED, "cache", "locks", "disk", "environment", "extras"]
SHAPE = "1024 x 256"
RATES = {("cpu", "float32"): 50.0, ("cpu", "bfloat16"): 200.0}


@pytest.fixture(autouse=True)
def remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache in which an earlier command measured the precisions."""
    monkeypatch.setenv("FOLIO_CACHE", str(tmp_path / "cache"))
    device._remembered(f"{SHAPE}: cpu float32, cpu bfloat16", lambda: RATES)


def test_text_and_json_have_every_section_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str],
):
    before = sorted(Path(os.environ["FOLIO_CACHE"]).rglob("*"))
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert list(report) == [*SECTIONS, "slow"]
    main(["doctor"])
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if line in SECTIONS] == SECTIONS
    assert f"{SHAPE}: cpu float32 50, cpu bfloat16 200" in text
    assert sorted(Path(os.environ["FOLIO_CACHE"]).rglob("*")) == before
    assert not runs_folder().exists()


@pytest.mark.parametrize("broken", ["versions", "machine", "precision", "disk", "cache"])
def test_a_check_that_fails_says_so_and_the_others_go_on(
    broken: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def fail(*given: object) -> None:
        raise PermissionError("nobody may look")

    monkeypatch.setattr(checks, broken, fail)
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report[broken] == {"failed": "PermissionError: nobody may look"}
    assert not [name for name in SECTIONS if name != broken and "failed" in report[name]]


def test_torch_is_not_loaded_where_the_rates_are_remembered():
    code = "from folio.doctor.checks import examine; examine(); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numba", "matplotlib"} & set(done.stdout.split())


def test_rates_are_measured_where_none_are_known_or_on_request():
    assert checks.precision() == {
        "remembered": {SHAPE: {"cpu float32": 50.0, "cpu bfloat16": 200.0}}
    }
    (Path(os.environ["FOLIO_CACHE"]) / "precision.json").write_text("damaged", encoding="utf-8")
    found = checks.precision()
    assert found["remembered"] == {} and found["now"][SHAPE]["cpu float32"] > 0
    assert set(found["now"][SHAPE]) == {"cpu float32", "cpu bfloat16"}


def test_no_secret_and_no_home_is_told():
    home = str(Path.home())
    told = {"FOLIO_RUNS": f"{home}/runs", "OMP_NUM_THREADS": "3"}
    found = checks.environment(told | {"FOLIO_API_KEY": "sesame", "USER": "me"})
    assert found == {"FOLIO_API_KEY": "(set)", "FOLIO_RUNS": "~/runs", "OMP_NUM_THREADS": "3"}


@pytest.mark.parametrize(
    ("home", "path", "told"),
    [("/", "/work/runs", "/work/runs"), ("/home/al", "/home/alice:/home/al", "/home/alice:~")],
)
def test_a_home_is_a_whole_folder_and_of_somebody(
    home: str, path: str, told: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Path, "home", lambda: Path(home))
    assert checks.shown(path) == told


def test_a_driver_that_hangs_takes_nothing_else_away(monkeypatch: pytest.MonkeyPatch):
    def hang(words: list[str], timeout: float, **options: object) -> None:
        raise subprocess.TimeoutExpired(words, timeout)

    monkeypatch.setattr(checks.shutil, "which", lambda name: name)
    monkeypatch.setattr(checks.subprocess, "run", hang)
    found = checks.machine()
    assert found["cores"] >= 1 and found["graphics cards"] is None
    assert "timed out after 2 seconds" in found["nvidia-smi"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks of this kind")
def test_a_run_that_is_being_written_is_named_with_its_process():
    run = Run(runs_folder() / "mine")
    run.path.mkdir(parents=True)
    run.recipe_file.touch()
    with run.lock():
        assert f"process {os.getpid()}" in checks.locks()["held"]["mine"]
    assert checks.locks() == {"work": True, "runs": 1, "held": {}}


def test_extras_follow_from_the_metadata(monkeypatch: pytest.MonkeyPatch):
    required = ["numpy>=2", 'a-thing>=1; extra == "tune"', 'rich>=13; extra == "serve"']
    required += ['pytest>=8; extra == "dev"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: required)
    assert checks.extras() == {"tune": "missing: a-thing", "serve": "present"}
    assert set(checks.versions()) == {"folio", "python", "system", "numpy"}


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        ("model name : X\nflags : fpu avx2 fma avx512f\n", ["avx2", "fma", "avx512f"]),
        ("Features : fp asimd bf16\n", ["asimd", "bf16"]),
        ("flags : fpu sse2\n", []),
        (None, None),
    ],
)
def test_instruction_sets_are_those_of_the_processor(
    tmp_path: Path, text: str | None, sets: list[str] | None
):
    if text is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc" / "cpuinfo").write_text(text, encoding="utf-8")
    assert checks.instruction_sets(tmp_path) == sets
