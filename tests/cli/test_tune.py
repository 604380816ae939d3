"""folio tune as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from folio.run.directory import runs_folder
from tests.cli.conftest import Folio, caller
from tests.forked import Forked

pytest.importorskip("optuna", reason="folio tune needs Optuna: pip install foliolm[tune]")
pytestmark = pytest.mark.xdist_group("forked")

FLAGS = (
    "--preset gpt2 --model.n-layers 1 --model.d-model 16 --model.n-heads 2",
    "--model.context-length 16 --training.batch-size 4 --corpus.validation-fraction 0.02",
    "--device.kind cpu --device.precision float32 --device.threads 1 --repeats 0",
)


@pytest.fixture
def folio(capfd: pytest.CaptureFixture[str]) -> Folio:
    return caller(capfd, "tune")


def flags() -> list[str]:
    return list[str](" ".join(FLAGS).split())


def test_a_study_of_two_workers_is_shown_and_grows_when_asked(
    folio: Folio, book: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(subprocess, "Popen", Forked)
    command = [str(book), *flags(), "--epochs", "0.05"]
    code, out, err = folio(*command, "--trials", "2", "--workers", "2")
    assert code == 0, err
    study = runs_folder() / "tune-book"
    assert "trial 0: " in err and "trial 1: " in err and "2 at a time" in err
    assert f"folio train {study}/best.toml" in out and f"{study}/study.html" in out
    assert (study / "best.toml").exists() and (study / "study.html").exists()
    # The directory goes on where the command left off.
    metrics = study / "trials" / "trial-0000" / "metrics.jsonl"
    before = metrics.stat().st_mtime_ns
    code, out, err = folio(str(study), "--trials", "3", "--json")
    assert code == 0, err
    record = json.loads(out)
    assert [row["number"] for row in record["rows"]] == [0, 1, 2]
    assert "there already: 2 trials" in err and "trial 0: " not in err
    assert metrics.stat().st_mtime_ns == before


def test_ctrl_c_saves_and_the_same_command_goes_on(folio: Folio, book: Path):
    command = [str(book), *flags(), "--trials", "1", "--training.max-steps", "3000"]
    process = Forked(
        [sys.executable, "-m", "folio", "tune", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    last = runs_folder() / "tune-book" / "trials" / "trial-0000" / "last.json"
    deadline = time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    # A terminal sends it to all processes of a command at once.
    for number in (*children_of(process.pid), process.pid):
        os.kill(number, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "1 running" in out and "interrupted; everything is saved" in err
    step = json.loads(last.read_text())["step"]
    assert 0 < step < 3000


def children_of(process: int) -> list[int]:
    try:
        found = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
    except FileNotFoundError:  # not Linux
        return []
    return [int(word) for word in found.split()]


MISTAKES = {
    "BOOK --trials 0": "--trials must be 1 or more, got 0",
    "BOOK --workers 0": "--workers must be at least 1 here, got 0",
    "BOOK --workers 99999999999": "--workers must be at most",
    "BOOK --epochs 0": "--epochs must be above 0, got 0",
    "BOOK --minutes inf": "--minutes must be at most 5000000, got inf",
    "BOOK --minutes nan": "--minutes must be above 0, got nan",
    "BOOK --epochs 3 --minutes 3": "Leave one of them out",
    "BOOK --name a/b": "not a plain name",
    "BOOK --space nothing.toml": "There is no file nothing.toml",
    "BOOK --model.n-layer 3": "Did you mean 'model.n_layers'?",
    "BOOK --training.minutes 5": "Leave --training.minutes out",
    "BOOK --training.evaluation-interval 9": "Leave --training.evaluation-interval out",
    "nothing.txt": "There is no file, folder or built-in corpus",
    "-": "put it into a file",
    "STUDY --epochs 3": "only --trials can change, not --epochs",
    "STUDY --seed 3": "only --trials can change, not --seed",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_gets_one_line(folio: Folio, book: Path, tmp_path: Path, command: str):
    (tmp_path / "a-study").mkdir()
    (tmp_path / "a-study" / "study.toml").touch()
    words = {"BOOK": str(book), "STUDY": str(tmp_path / "a-study")}
    code, _, err = folio(*(words.get(word, word) for word in command.split()))
    assert code == 2
    lines = err.strip().splitlines()
    assert lines[-1].startswith("error: ") and MISTAKES[command] in lines[-1]
    assert "Traceback" not in err and not runs_folder().exists()


def test_without_optuna_the_answer_is_how_to_install_it(
    folio: Folio, book: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = folio(str(book))
    assert code == 2 and "pip install 'foliolm[tune]'" in err
