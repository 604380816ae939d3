"""What follows training, and where the model is larger than the card that it was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from folio.cli.watching import TerminalWatcher, print_result
from folio.device import Device, DeviceConfig
from folio.recipe import finish
from folio.recipe.finish import whole_model_does_not_fit
from folio.recipe.recipe import Recipe, make_recipe
from folio.recipe.resume import resume_run
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.held_out import evaluate_held_out
from folio.run.metrics import best_evaluation
from folio.run.opening import open_run
from folio.training import loop
from folio.training.loop import update_weights
from folio.training.parts import Ending, Training
from folio.training.state import TrainingState
from folio.training.step import Gradient
from tests.recall.making import prose, train_on
from tests.recipe.test_resume import recipe_of as tiny_recipe_of


def recipe_of(sharding: str) -> Recipe:
    return make_recipe({"model": {"vocab_size": 100}, "training": {"sharding": sharding}})


@pytest.mark.parametrize(
    ("sharding", "kind", "spare", "is_read"),
    [
        ("full", "cuda", 0, True),
        ("full", "cuda", -1, False),
        ("full", "cpu", -1, True),  # its memory is not that of a card
        ("optimizer", "cuda", -1, True),  # each card had all
    ],
)
def test_a_card_must_have_room_for_a_model_of_which_it_had_a_part(
    sharding: str, kind: Any, spare: int, is_read: bool, monkeypatch: pytest.MonkeyPatch
):
    recipe = recipe_of(sharding)
    device = Device(DeviceConfig(kind=kind, precision="bfloat16", threads=1), "test")
    room = 12 * recipe.model.n_parameters + spare
    monkeypatch.setattr(finish, "memory_limit", lambda *given: room)
    assert (whole_model_does_not_fit(recipe, device) == "") == is_read


def test_a_run_that_read_short_windows_alone_tells_the_loss_in_whole_ones_at_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "long.txt"
    path.write_text(prose(3000, seed=1))
    short = {"short_fraction": 1.0, "short_length": 4}
    recipe = tiny_recipe_of(path, schedule=short, training={"max_steps": 20})
    result = train_recipe(recipe, "short", TerminalWatcher())
    run = result.run
    best = best_evaluation(run.events("evaluation"))
    assert best is not None and best["short_length"] == 4
    device = Device(recipe.device, "test")
    exact = evaluate_held_out(open_run(run, device=device), device)[0].nats_per_token
    assert result.held_out[0].nats_per_token == pytest.approx(exact, abs=1e-5)
    assert abs(best["validation_loss"] - exact) > 1e-4
    words = f"{best['validation_loss']:.4f} in windows of 4"
    assert words in run.card_file.read_text() and words in capsys.readouterr().err


def test_a_run_without_that_room_ends_with_a_card_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(finish, "whole_model_does_not_fit", lambda *given: "not read: too large")
    path = tmp_path / "short.txt"
    path.write_text(prose(300, seed=1))
    run = train_on(path, "large", steps=2).run
    assert "not read: too large" in run.card_file.read_text()
    assert run.events()[-1]["reason"] == "finished" and not run.held_out_file.exists()


@pytest.mark.parametrize("stopped_in", ["ended", "evaluate_held_out", "write_sample", "look_back"])
def test_what_a_signal_after_the_last_step_left_out_is_made_by_resume(
    book: Path, monkeypatch: pytest.MonkeyPatch, stopped_in: str
):
    class Stopper(Watcher):
        stopped = False

        def ended(self, state: TrainingState, ending: Ending) -> None:
            self.stopped = stopped_in == "ended"

    stopper = Stopper()
    if stopped_in != "ended":
        real = getattr(finish, stopped_in)

        def stop(*given: Any) -> Any:
            stopper.stopped = True
            return real(*given)

        monkeypatch.setattr(finish, stopped_in, stop)
    recipe = tiny_recipe_of(book, ngrams={"order": 3})
    result = train_recipe(recipe, "late", stopper, lambda: stopper.stopped)
    assert result.ending == "interrupted"
    run = result.run
    assert run.events("end")[-1]["reason"] == "finished"
    again = resume_run(run, {}, Watcher())
    assert again is not None and again.ending == "finished" and again.held_out and again.sample
    assert run.ngram_weights_file.exists() and run.held_out_file.exists() and run.card_file.exists()
    assert resume_run(run, {}, Watcher()) is None


def test_a_run_that_was_never_evaluated_says_which_step_was_read(
    book: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def update(training: Training, step: int, gradient: Gradient) -> float:
        if step == 3:
            raise FloatingPointError
        return update_weights(training, step, gradient)

    monkeypatch.setattr(loop, "update_weights", update)
    recipe = tiny_recipe_of(book, corpus={"test_fraction": 0.2})
    result = train_recipe(recipe, "early", Watcher())
    assert result.ending == "non-finite" and not result.run.events("evaluation")
    assert [text.name for text in result.held_out] == ["validation", "test"]
    assert json.loads(result.run.held_out_file.read_text())[0]["step"] == 3
    assert "| best validation loss | - |" in result.run.card_file.read_text()
    print_result(result)
    assert "targets), step 3\n" in capsys.readouterr().out
    print_result(result, json=True)
    assert json.loads(capsys.readouterr().out)["best_step"] is None
