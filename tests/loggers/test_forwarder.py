"""Loggers are told what a run's files say, and can neither change nor end a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.config import Table, merge
from folio.evaluation.token_groups import CLASSES
from folio.loggers.forwarder import Forwarder, forwarding
from folio.loggers.ids import remember_shown
from folio.recipe import resume, train
from folio.recipe.recipe import make_recipe, read_recipe
from folio.recipe.resume import resume_run
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import Run
from folio.run.metrics import append_event
from folio.run.page import learned
from folio.training.state import TrainingState
from tests.loggers.keeping import Kept, log_with, run_of, step_event
from tests.recipe.test_resume import TINY

AT = TrainingState(step=1)


def trained(book: Path, name: str, *log: str) -> Run:
    training = {"max_steps": 8, "evaluation_interval": 4, "log_interval": 2, "log": log}
    changes: Table = {"corpus": {"sources": [str(book)]}, "training": training}
    return train_recipe(make_recipe(merge(TINY, changes)), name, Watcher()).run


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    for room in (train, resume):
        monkeypatch.setattr(room, "require_installed", lambda names: None)
    log_with(monkeypatch, kept := Kept())
    return kept


def test_a_logger_is_told_all_that_is_in_the_files_and_changes_no_byte(book: Path, kept: Kept):
    run, plain = trained(book, "logged", "wandb"), trained(book, "plain")
    assert kept.calls[0] == "open wandb at 0, seed 1" and kept.calls[-1] == "close, failed False"
    assert kept.calls.count("flush") == 2  # checkpoints
    assert kept.steps("train/loss") == [2, 4, 6, 8]
    assert kept.steps("evaluation/validation_loss") == kept.steps("learned/letters") == [4, 8]
    shown = {name: value for _, values in kept.shown for name, value in values.items()}
    last = run.events("step")[-1]
    assert shown["train/loss"] == last["loss"] and shown["train/gradient_norm"] > 0
    assert shown["train/gradient_norm"] == last["gradient_norm"]
    assert shown["train/learning_rate"] == last["learning_rate"]
    assert shown["train/tokens_per_second"] > 0
    evaluated = run.events("evaluation")[-1]
    assert shown["evaluation/standard_error"] == evaluated["standard_error"]
    assert shown["held_out/validation"] == pytest.approx(evaluated["validation_loss"])
    assert "learned/" + CLASSES[0] in shown
    samples = [event["sample"] for event in learned(run)]
    assert [text for _, name, text in kept.texts if name == "sample"] == samples
    assert kept.texts[-1][:2] == (8, "final_sample") and kept.texts[-1][2]
    for part in ("model", "optimizer"):
        files = [r.checkpoints_folder / f"step-00000008/{part}.safetensors" for r in (run, plain)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_goes_on_where_it_was_logged_and_in_new_loggers_from_its_beginning(
    book: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
):
    run = trained(book, "longer", "wandb")
    kept.logged = 8
    assert resume_run(run, {"training": {"max_steps": 10}}, Watcher()) is not None
    assert kept.steps("train/loss") == [2, 4, 6, 8, 10]
    log_with(monkeypatch, other := Kept())
    assert resume_run(run, {"training": {"max_steps": 12, "log": ["mlflow"]}}, Watcher())
    assert other.calls[0] == "open mlflow at 10, seed 1"
    assert other.steps("train/loss") == [2, 4, 6, 8, 10, 12]
    assert other.steps("learned/letters") == other.steps("evaluation/validation_loss")


def test_what_a_logger_has_not_got_it_is_shown_when_the_run_goes_on(
    book: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
):
    run = trained(book, "gaps", "wandb")
    assert resume_run(run, {"training": {"max_steps": 12, "log": []}}, Watcher())
    kept.logged = 12
    assert resume_run(run, {"training": {"max_steps": 16, "log": ["wandb"]}}, Watcher())
    assert kept.steps("train/loss") == [2, 4, 6, 8, 10, 12, 14, 16]
    assert kept.steps("evaluation/validation_loss") == [4, 8, 12, 16]
    # Killed during an evaluation, after the checkpoint of its step.
    remember_shown(run, "wandb", {"step": 16, "evaluation": 12, "learned": 12})
    log_with(monkeypatch, again := Kept(logged=16))
    assert resume_run(run, {"training": {"max_steps": 18}}, Watcher())
    assert again.steps("train/loss") == [18]
    assert again.steps("evaluation/validation_loss") == [16, 18]


def test_a_logger_that_was_used_before_that_was_written_down_has_all_up_to_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log_with(monkeypatch, kept := Kept(logged=2))
    Forwarder("wandb", run_of(tmp_path, 4), {}, 2, [].append)
    assert kept.steps("train/loss") == [3, 4]


def test_a_run_that_is_complete_is_shown_in_one_more_program_and_on_a_page(book: Path, kept: Kept):
    run = trained(book, "complete")
    before = run.events(), run.held_out_file.read_bytes(), run.card_file.read_bytes()
    assert resume_run(run, {"training": {"log": ["mlflow"], "page": True}}, Watcher()) is None
    assert kept.calls[0] == "open mlflow at 8, seed 1" and kept.calls[-1] == "close, failed False"
    assert kept.steps("train/loss") == [2, 4, 6, 8] and kept.steps("held_out/validation") == [8]
    assert kept.steps("evaluation/validation_loss") == [4, 8] and run.training_page.exists()
    assert (run.events(), run.held_out_file.read_bytes(), run.card_file.read_bytes()) == before
    assert read_recipe(run).training.log == ("mlflow",)  # there it goes on, if it does


def test_where_a_run_is_shown_changes_no_budget(book: Path, kept: Kept):
    run = trained(book, "shown")
    before = run.pace_file.write_text('{"kept": true}\n')
    assert resume_run(run, {"training": {"log": ["tensorboard"]}}, Watcher()) is None
    assert run.pace_file.stat().st_size == before


def test_speed_is_that_between_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = run_of(tmp_path, 1)
    log_with(monkeypatch, kept := Kept())
    forwarder = Forwarder("wandb", run, {}, 1, [].append)
    append_event(run.metrics_file, step_event(1) | {"event": "evaluation", "seconds": 101.0})
    append_event(run.metrics_file, step_event(2) | {"seconds": 102.0})
    forwarder.stepped(AT, 1.0, 0.1)
    assert [values["train/tokens_per_second"] for _, values in kept.shown] == [10.0, 10.0]


@pytest.mark.parametrize("call", ["open", "numbers", "text", "flush", "close"])
def test_a_logger_that_fails_is_left_out_with_one_line(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, told = run_of(tmp_path, 1), list[str]()
    log_with(monkeypatch, kept := Kept(fails=call))
    with forwarding(["wandb", "wandb"], run, {}, 0, told.append) as forwarders:
        (forwarder,) = forwarders
        for step in (2, 3):
            append_event(run.metrics_file, step_event(step))
            append_event(run.learned_file, {"event": "learned", "step": step, "sample": "Oh"})
            forwarder.stepped(AT, 1.0, 0.1)
            forwarder.save(AT)
        forwarder.finished([], "The end")
    reason = "RuntimeError" if call == "open" else "The server is gone."
    warnings = [line for line in told if line.startswith("warning")]
    assert warnings == [f"warning: wandb is left out from here on: {reason}"]
    assert sum(made.startswith(call) for made in kept.calls) == 1


def test_a_training_that_breaks_is_logged_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log_with(monkeypatch, kept := Kept())
    with (
        pytest.raises(KeyboardInterrupt),
        forwarding(["wandb"], run_of(tmp_path, 1), {}, 0, [].append) as (forwarder,),
    ):
        raise KeyboardInterrupt
    assert kept.calls[-1] == "close, failed True"
    with forwarding(["wandb"], Run(tmp_path / "none"), {}, 0, [].append) as (forwarder,):
        forwarder.ended(AT, "interrupted")
    assert kept.calls[-1] == "close, failed False"
