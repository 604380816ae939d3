"""The page of a training follows it, and changes nothing of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import folio
from folio.config import Table, merge
from folio.errors import UserError
from folio.evaluation.token_groups import CLASSES, PLACES
from folio.recipe import keep_learned, keep_page
from folio.recipe.recipe import make_recipe
from folio.recipe.resume import resume_run
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import Run
from folio.run.metrics import append_event
from folio.run.page import learned
from folio.storage import read_json
from folio.training.parts import Evaluation, Training
from folio.training.state import TrainingState
from tests.recipe.test_resume import TINY
from tests.test_report import Reader


def trained(book: Path, name: str, *changes: Table, watcher: Watcher | None = None) -> Run:
    shorter = {"training": {"max_steps": 20, "evaluation_interval": 5}}
    table = merge(TINY, {"corpus": {"sources": [str(book)]}}, shorter, *changes)
    return train_recipe(make_recipe(table), name, watcher or Watcher()).run


WITH_PAGE: Table = {"training": {"page": True}}


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so many tokens however slow the machine is."""
    monkeypatch.setattr(keep_learned, "SAMPLE_TOKENS", 20)
    monkeypatch.setattr(keep_learned, "LEAST_SECONDS", 60.0)


@pytest.mark.parametrize("fast", ["on", "off"])
def test_a_page_changes_no_byte_and_no_random_number(book: Path, fast: str):
    """With dropout, which draws at each step; the fast one in two processes."""
    device: Table = {"device": {"fast": fast, "threads": 2 if fast == "on" else 1}}
    short: Table = {"training": {"max_steps": 6, "evaluation_interval": 3}}
    runs = [trained(book, "plain", device, short), trained(book, "paged", device, short, WITH_PAGE)]
    for step in (3, 6):
        states: list[Any] = []
        for run in runs:
            folder = run.checkpoints_folder / f"step-{step:08}"
            files = [folder / f"{part}.safetensors" for part in ("model", "optimizer")]
            state = read_json(folder / "state.json")
            states.append([*(file.read_bytes() for file in files), state["random"], state["place"]])
        assert states[0] == states[1]
    assert runs[1].training_page.exists() and not runs[0].training_page.exists()
    assert not runs[0].learned_file.exists()


class Looks(Watcher):
    """Reads the page at each evaluation."""

    def __init__(self) -> None:
        self.pages: list[str] = []

    def begin(self, run: Run, training: Training, state: TrainingState) -> None:
        self.run = run

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        self.pages.append(self.run.training_page.read_text(encoding="utf-8"))


def test_the_page_follows_the_training_and_then_rests(book: Path):
    looks = Looks()
    run = trained(book, "seen", WITH_PAGE, watcher=looks)
    during = [Reader(page) for page in looks.pages]
    assert not any(read.open for read in during)
    assert ["training: step 5 of 20" in read.text["p"][0] for read in during[:2]] == [True, False]
    assert [len(read.text["pre"]) for read in during] == [1, 2, 3, 4]  # samples
    assert all("location.reload()" in page and 'type="checkbox"' in page for page in looks.pages)
    page = run.training_page.read_text(encoding="utf-8")
    read = Reader(page)
    assert "location.reload" not in page and read.text["p"][0].startswith("finished: step 20 of 20")
    assert {"letters", "upper case", "first letter", "speed", "validation"} <= set(read.text["li"])
    labels = [a["aria-label"] for _, a in read.attributes if a.get("role") == "img"]
    assert len(labels) == 5 and all(labels)
    assert "default-src 'none'" in page and not re.search(r"https?:|src=", page)


def test_what_was_learned_adds_up_to_the_loss(book: Path):
    run = trained(book, "learned", WITH_PAGE)
    for entry, event in zip(learned(run), run.events("evaluation"), strict=True):
        assert entry["step"] == event["step"]
        assert set(entry["classes"]) <= set(CLASSES) and set(entry["places"]) <= set(PLACES)
        losses = [loss for loss, _ in entry["classes"].values()]
        assert min(losses) < event["validation_loss"] < max(losses)
        assert entry["memory_bytes"] > 1e7 and entry["sample"]
    digits = [entry["classes"]["digits"][0] for entry in learned(run)]
    assert digits[-1] < digits[0]


def test_a_run_that_goes_on_keeps_its_page(book: Path):
    run = trained(book, "longer", WITH_PAGE)
    # As after a crash: an evaluation whose checkpoint was never written.
    append_event(run.learned_file, {"event": "learned", "step": 999, "classes": {}, "places": {}})
    assert resume_run(run, {"training": {"max_steps": 25}}, Watcher()) is not None
    assert [entry["step"] for entry in learned(run)] == [5, 10, 15, 20, 25]
    assert "step 25 of 25" in run.training_page.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_ends_no_training(
    book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(run: Run, follow: bool) -> None:
        raise UserError("The disk is full.")

    monkeypatch.setattr(keep_page, "write_training_page", full)
    run = trained(book, "full", WITH_PAGE)
    assert run.events("end")[-1]["reason"] == "finished"
    assert "warning: the page was not written: The disk is full." in capsys.readouterr().err


def test_corrections_of_low_rank_write_samples_too(book: Path):
    base = trained(book, "base")
    start: Table = {"start": {"run": str(base.path), "lora": 2, "keep": 0.0}}
    result = folio.train(book, **{"training": {"max_steps": 4, "page": True}}, **start)
    assert all(entry["sample"] for entry in learned(result.run))
