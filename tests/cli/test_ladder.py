"""folio ladder as a user meets it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from folio.config import merge
from folio.ladder import scaled_up
from folio.ladder.steps import STEPS
from folio.recipe.recipe import read_recipe
from folio.run.directory import Run, runs_folder
from tests.cli.conftest import Folio, caller
from tests.recipe.test_conversations import write_chats


@pytest.fixture
def folio(capfd: pytest.CaptureFixture[str]) -> Folio:
    return caller(capfd, "ladder")


@pytest.fixture
def small_step_7(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16}
    training = {"batch_size": 2, "max_steps": 6, "evaluation_interval": 3}
    device = {"kind": "cpu", "precision": "float32", "threads": 1}
    table = {"model": shape, "training": training, "device": device}
    monkeypatch.setattr(scaled_up, "SETTINGS", merge(scaled_up.SETTINGS, table))
    monkeypatch.setattr("folio.recipe.speed.MEASURE_SECONDS", 0.1)


def test_without_a_step_the_list_has_every_idea(folio: Folio):
    code, out, _ = folio()
    assert code == 0
    for step in STEPS:
        assert step.idea in out and f"{step.expected}" in out
    assert [line.split()[0] for line in out.splitlines()[1:11]] == list("0123456789")


def test_a_step_shows_its_losses_and_writes(folio: Folio, book: Path):
    code, out, err = folio("1", str(book), "--max-steps", "4")
    assert code == 0
    assert "step 4: train loss " in err and ", validation loss " in err
    assert "7,683" not in out and "public course" not in out  # another text, another vocabulary
    assert "one self-attention head" in out and "step1_head.py" in out
    sample = out[1 : out.rindex("\n\nstep 1")]
    assert len(sample) == 500


def test_of_conversations_all_text_is_learned_and_nothing_else_is_told(
    folio: Folio, tmp_path: Path
):
    code, out, err = folio("1", str(write_chats(tmp_path)), "--max-steps", "4")
    assert code == 0 and "validation loss" in out
    assert "conversations" not in err and "count" not in err


def test_a_step_gives_json_and_repeats(folio: Folio, book: Path):
    one, two = (json.loads(folio("2", str(book), "--max-steps", "4", "--json")[1]) for _ in "ab")
    assert one.pop("seconds") and two.pop("seconds")
    assert one == two
    assert one["evaluations"][-1]["validation_loss"] == one["validation_losses"][0]
    assert len(one["sample"]) == 500


def test_all_makes_a_table_and_a_picture(folio: Folio, book: Path):
    flags = (str(book), "--max-steps", "2", "--seeds", "2")
    code, out, _ = folio("all", *flags)
    assert code == 0 and out.count(" ± ") == 7
    assert all(step.idea in out for step in STEPS)
    picture = runs_folder() / "ladder.svg"
    assert str(picture) in out and picture.stat().st_size > 1000
    records = json.loads(folio("all", str(book), "--max-steps", "2", "--json")[1])
    assert [record["step"] for record in records] == list(range(7))
    assert [record["seeds"] for record in records] == [[1]] * 7


def test_step_7_says_how_long_it_takes_before_it_starts(
    folio: Folio, small_step_7: None, book: Path
):
    code, out, err = folio("7", str(book))
    assert code == 0
    assert err.index("step 7 takes about") < err.index("step 3: train loss")
    assert "--minutes 10" in err and "folio resume ladder-7" in err
    assert Run(runs_folder() / "ladder-7").events("end")[-1]["step"] == 6
    assert "diagnosis" in out


def test_step_7_takes_minutes_a_name_and_a_seed(folio: Folio, small_step_7: None, book: Path):
    code, _, err = folio("7", str(book), "--minutes", "0.02", "--name", "short", "--seed", "5")
    assert code == 0 and "takes about" not in err
    assert read_recipe(Run(runs_folder() / "short")).seed == 5


def test_step_8_writes_without_end_from_the_model_of_step_7(
    folio: Folio, small_step_7: None, book: Path
):
    assert folio("7", str(book))[0] == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "folio", "ladder", "8"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    text = process.stdout.read(300)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert len(text) == 300 and process.returncode == 0


def test_step_9_repeats_a_row_beside_the_baseline(folio: Folio, book: Path):
    flags = (str(book), "--only", "rope", "--max-steps", "2", "--seeds", "2")
    code, out, _ = folio("9", *flags)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["gpt2", "rope"]
    assert (runs_folder() / "ladder-9.svg").stat().st_size > 1000
    names = {path.name for path in runs_folder().glob("ladder-9-*-*")}
    assert names == {"ladder-9-gpt2-1", "ladder-9-gpt2-2", "ladder-9-rope-1", "ladder-9-rope-2"}
    metrics = Run(runs_folder() / "ladder-9-rope-1").metrics_file
    before = metrics.stat().st_mtime_ns
    code, again, err = folio("9", *flags, "--json")
    assert code == 0 and "exists; remove it to train it again" in err
    assert metrics.stat().st_mtime_ns == before
    (base, rope) = json.loads(again)
    assert base["parameters"] - rope["parameters"] == 64 * 64  # the learned positions
    assert rope["difference"] == pytest.approx(rope["mean"] - base["mean"])
    code, _, err = folio("9", str(book), "--only", "rope", "--max-steps", "3")
    assert code == 2 and "with another training.max_steps" in err


def test_step_9_at_equal_time_says_how_many_steps_each_row_made(folio: Folio, book: Path):
    flags = (str(book), "--only", "rope", "--seeds", "1")
    assert folio("9", *flags, "--max-steps", "2")[0] == 0  # whose runs are others
    code, out, _ = folio("9", *flags, "--minutes", "0.02")
    assert code == 0
    header, *lines = out.splitlines()[:3]
    assert header.split()[:4] == ["row", "parameters", "steps", "validation"]
    picture = (runs_folder() / "ladder-9.svg").read_text(encoding="utf-8")
    assert "What newer papers changed, 0.02 minutes each" in picture
    run = Run(runs_folder() / "ladder-9-0.02min-rope-1")
    made = run.events("end")[-1]["step"]
    assert lines[1].split()[2] == f"{made:,}"
    timed, other = read_recipe(run), read_recipe(Run(runs_folder() / "ladder-9-rope-1"))
    assert (timed.model, timed.optimizer) == (other.model, other.optimizer)
    assert timed.training.confidence_penalty == other.training.confidence_penalty == 0
    code, again, err = folio("9", *flags, "--minutes", "0.02", "--json")
    assert code == 0 and "exists; remove it to train it again" in err
    assert [(r["row"], r["minutes"]) for r in json.loads(again)] == [("gpt2", 0.02), ("rope", 0.02)]
    assert json.loads(again)[1]["steps"] == [made]
    run.pace_file.write_text(run.pace_file.read_text().replace('"seconds": 1.2', '"seconds": 1.3'))
    code, _, err = folio("9", *flags, "--minutes", "0.02")
    assert code == 2 and "with another training.minutes" in err


MISTAKES = {
    "10": "There is no step '10'",
    "3 --minutes 3": "--minutes is for folio ladder 7",
    "--json": "--json is for",
    "all --only rope": "--only is for folio ladder 9",
    "9 --only roop": "Did you mean 'rope'?",
    "9 --minutes 1 --max-steps 2": "--minutes and --max-steps are both budgets",
    "9 --minutes 0": "--minutes must be above 0, got 0",
    "all --minutes 1": "--minutes is for folio ladder 7 or 9",
    "3 --seed -1": "--seed must be 0 or more, got -1",
    "3 --max-steps 0": "at least 1",
    "8 --seed 3": "--seed is for folio ladder 0 or 1",
    "8": "there is no run ladder-7",
    "2 nothing.txt": "There is no file, folder or built-in corpus",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_gets_one_line(folio: Folio, command: str):
    code, _, err = folio(*command.split())
    assert code == 2
    assert err.strip().startswith("error: ") and MISTAKES[command] in err
    assert len(err.strip().splitlines()) == 1
