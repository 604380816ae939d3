"""A resumed run equals one that was never interrupted, bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from folio.config import Table, merge, read_toml
from folio.errors import UserError
from folio.recipe import resume
from folio.recipe.finish import Result
from folio.recipe.recipe import Recipe, make_recipe, read_recipe
from folio.recipe.resume import resume_run
from folio.recipe.train import train_recipe
from folio.recipe.watcher import LoggingWatcher, Watcher
from folio.run.directory import Run, find_run
from folio.training import loop
from folio.training.parts import Evaluation
from folio.training.state import TrainingState
from tests.conftest import INT8, turn_kernels

TINY = {
    "preset": "modern",
    "model": {
        "n_layers": 1,
        "n_heads": 2,
        "d_model": 16,
        "context_length": 16,
        "residual_dropout": 0.2,  # draws from the random state, which must survive too
        "attention_dropout": 0.1,
        "embedding_dropout": 0.1,
    },
    "training": {
        "batch_size": 4,
        "micro_batch_size": 3,
        "max_steps": 40,
        "evaluation_interval": 15,
        "keep_checkpoints": 50,
    },
    "corpus": {"validation_fraction": 0.02},
    "device": {"kind": "cpu", "precision": "float32", "threads": 1},
}


def recipe_of(book: Path, **changes: Any) -> Recipe:
    return make_recipe(merge(TINY, {"corpus": {"sources": [str(book)]}}, changes))


def stop_at(step: int) -> tuple[Watcher, Callable[[], bool]]:
    """A watcher and its question: yes from that step on."""

    class Stopper(Watcher):
        at = 0

        def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
            self.at = state.step

    stopper = Stopper()
    return stopper, lambda: stopper.at >= step


def resumed(run: Run, changes: Table, *watching: Any) -> Result:
    result = resume_run(run, changes, *watching)
    assert result is not None
    return result


def weights_of(run: Run, step: int) -> tuple[bytes, bytes]:
    checkpoint, _ = run.checkpoint(str(step))
    folder = checkpoint.path
    return (folder / "model.safetensors").read_bytes(), (
        folder / "optimizer.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", INT8])
def test_copies_on_threads_of_their_own_resume_exactly_too(
    book: Path, precision: str, monkeypatch: pytest.MonkeyPatch
):
    turn_kernels(monkeypatch, on=True)
    changes: Any = {
        "device": {"precision": precision, "threads": 2},
        "training": {"max_steps": 16, "evaluation_interval": 6},
    }
    whole = train_recipe(recipe_of(book, **changes), "threads", Watcher()).run
    parts = train_recipe(recipe_of(book, **changes), "threads-parts", *stop_at(9)).run
    assert resumed(parts, {}, Watcher()).ending == "finished"
    assert weights_of(parts, 16) == weights_of(whole, 16)


# 15 is an evaluation, 16 follows one, 23 is between two; an epoch has 306 windows.
@pytest.mark.parametrize("steps", [[15], [16], [7, 23, 24]])
def test_resumed_training_matches_uninterrupted_training(book: Path, whole: Run, steps: list[int]):
    result = train_recipe(recipe_of(book), "parts", *stop_at(steps[0]))
    assert result.ending == "interrupted"
    run = result.run
    for step in steps[1:]:
        assert resumed(run, {}, *stop_at(step)).ending == "interrupted"
    assert resumed(run, {}, Watcher()).ending == "finished"
    assert weights_of(run, 40) == weights_of(whole, 40)
    losses = [[(e["step"], e["loss"]) for e in r.events("step")] for r in (run, whole)]
    assert losses[0] == losses[1]
    assert [e["validation_loss"] for e in run.events("evaluation")] == [
        e["validation_loss"] for e in whole.events("evaluation")
    ]


def test_training_across_epochs_resumes_in_the_middle_of_one(book: Path):
    changes = {"model": {"context_length": 8}, "training": {"batch_size": 500, "max_steps": 8}}
    changes["training"]["micro_batch_size"] = 0
    whole = train_recipe(recipe_of(book, **changes), "whole", Watcher()).run
    parts = train_recipe(recipe_of(book, **changes), "parts", *stop_at(6)).run
    resume_run(parts, {}, Watcher())
    assert weights_of(parts, 8) == weights_of(whole, 8)
    assert whole.checkpoint("8")[0].state["place"]["epoch"] == 1


def test_a_budget_raised_later_with_a_horizon_matches_one_run(book: Path):
    horizon = {"schedule": {"horizon_steps": 40}}
    whole = train_recipe(recipe_of(book, **horizon), "whole", Watcher()).run
    first = {"training": {"max_steps": 20}}
    parts = train_recipe(recipe_of(book, **merge(horizon, first)), "parts", Watcher()).run
    assert resume_run(parts, {}, Watcher()) is None
    assert resumed(parts, {"training": {"max_steps": 40}}, Watcher()).ending == "finished"
    assert weights_of(parts, 40) == weights_of(whole, 40)


def test_the_resolved_recipe_gives_the_same_bytes(book: Path, whole: Run):
    again = train_recipe(make_recipe(read_toml(whole.recipe_file)), "again", Watcher()).run
    assert weights_of(again, 40) == weights_of(whole, 40)
    assert (
        again.recipe_file.read_text().split("\n")[1:]
        == whole.recipe_file.read_text().split("\n")[1:]
    )


def test_after_damage_the_newest_whole_checkpoint_goes_on_to_the_same_bytes(book: Path, whole: Run):
    expected = weights_of(whole, 40)
    told: list[str] = []

    class Listener(Watcher):
        def tell(self, line: str) -> None:
            told.append(line)

    for step in (30, 40):
        file = whole.checkpoints_folder / f"step-{step:08d}" / "optimizer.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    result = resume_run(whole, {"training": {"max_steps": 40}}, Listener())
    assert result is not None and result.ending == "finished"
    assert sum("damaged" in line for line in told) == 2
    assert any("going on from" in line and "step-00000015" in line for line in told)
    assert weights_of(whole, 40) == expected
    steps = [event["step"] for event in whole.events("step")]
    assert steps == sorted(set(steps))


def test_where_no_checkpoint_is_whole_none_is_removed_and_those_that_can_be_read_are(whole: Run):
    for path in whole.checkpoints_folder.glob("*/optimizer.safetensors"):
        path.write_bytes(b"")
    before = sorted(whole.checkpoints_folder.rglob("*"))
    with pytest.raises(UserError, match=r"No checkpoint of .* is whole, so it cannot go on"):
        resume_run(whole, {"training": {"max_steps": 44}}, Watcher())
    assert sorted(whole.checkpoints_folder.rglob("*")) == before
    assert find_run(str(whole.path)).checkpoint("last")[0].step == 40  # its weights are whole


def test_a_run_that_was_killed_before_its_card_was_written_goes_on_to_its_end(whole: Run):
    expected = weights_of(whole, 40)

    class Dying(Watcher):
        def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
            assert not whole.card_file.exists(), "that of an earlier end"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume_run(whole, {"training": {"max_steps": 44}}, Dying())
    whole.held_out_file.unlink()
    assert resumed(whole, {"training": {"max_steps": 40}}, Watcher()).state.step == 40
    assert whole.held_out_file.exists() and whole.card_file.exists()
    whole.card_file.unlink()
    assert resumed(whole, {}, Watcher()).ending == "finished"
    assert weights_of(whole, 40) == expected and resume_run(whole, {}, Watcher()) is None


def test_patience_that_was_lost_stays_lost_until_more_is_asked_for(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    losses = chain((2.0, 3.0, 3.0, 3.0), repeat(1.0))
    monkeypatch.setattr(loop, "evaluate", lambda *_: Evaluation(next(losses), 1.0, 0.05))
    changes = {"training": {"evaluation_interval": 5, "patience": 2}}
    run = train_recipe(recipe_of(book, **changes), "patient", Watcher()).run
    assert resume_run(run, {}, Watcher()) is None
    run.card_file.unlink()
    again = resumed(run, {}, Watcher())
    assert (again.ending, again.state.step) == ("patience", 15)
    longer = resumed(run, {"training": {"max_steps": 30}}, Watcher())
    assert (longer.ending, longer.state.step) == ("finished", 30)


def test_an_evaluation_after_the_checkpoint_of_its_step_is_known_when_the_run_goes_on(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    losses = iter((3.0, 2.5, 2.0, 9.0))
    monkeypatch.setattr(loop, "evaluate", lambda *_: Evaluation(next(losses), 1.0))
    changes = {"training": {"save_interval": 10, "evaluation_interval": 14, "keep_checkpoints": 1}}
    run = train_recipe(recipe_of(book, **changes), "late", Watcher()).run
    assert [e["step"] for e in run.events("evaluation")] == [14, 28, 40]
    longer = {"training": {"max_steps": 80, "evaluation_interval": 80}}
    assert resumed(run, longer, *stop_at(50)).state.best_step == 40
    assert resumed(run, {}, Watcher()).state.best_step == 40
    opened, complaints = run.checkpoint("best")
    assert opened.step == 40 and not complaints


def test_an_evaluation_that_a_kill_cut_off_from_its_checkpoint_stands_once(book: Path):
    class Dying(Watcher):
        def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
            if state.step == 30:
                raise KeyboardInterrupt  # between the line in the metrics and the checkpoint

    recipe = recipe_of(book, training={"save_interval": 10})
    with pytest.raises(KeyboardInterrupt):
        train_recipe(recipe, "cut", Dying())
    run = find_run("cut")
    resumed(run, {}, Watcher())
    assert [e["step"] for e in run.events("evaluation")] == [15, 30, 40]


def test_a_run_without_a_checkpoint_begins_again(book: Path, whole: Run):
    expected = weights_of(whole, 40)
    shutil.rmtree(whole.checkpoints_folder)
    assert resume_run(whole, {"training": {"max_steps": 40}}, Watcher()) is not None
    assert weights_of(whole, 40) == expected


def test_a_run_that_had_not_begun_may_be_longer(book: Path):
    changes = {"schedule": {"warmup_fraction": 0}}
    run = train_recipe(recipe_of(book, **changes), "begun", *stop_at(10)).run
    shutil.rmtree(run.checkpoints_folder)
    assert resumed(run, {"training": {"max_steps": 44}}, Watcher()).state.step == 44


def test_fewer_steps_than_were_done_are_refused(whole: Run):
    recipe = whole.recipe_file.read_bytes()
    with pytest.raises(UserError, match="steps already, and 1 are fewer"):
        resume_run(whole, {"training": {"max_steps": 1}}, Watcher())
    assert whole.recipe_file.read_bytes() == recipe


def test_a_batch_may_change_its_size_unless_its_rows_read_on_where_they_stood(book: Path):
    for order in ("shuffled", "sequential"):
        run = train_recipe(recipe_of(book, stream={"order": order}), order, *stop_at(10)).run
        if order == "shuffled":
            resumed(run, {"training": {"batch_size": 6}}, Watcher())
            continue
        with pytest.raises(UserError, match=r"training\.batch_size must stay 4, got 6"):
            resume_run(run, {"training": {"batch_size": 6}}, Watcher())
        resumed(run, {"training": {"batch_size": 4}}, Watcher())


def test_the_scale_of_float16_goes_on_too(book: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("folio.training.step.FLOAT16_SCALE", 2.0**60)  # halved many times
    recipe = recipe_of(book, device={"precision": "float16", "fast": "off"})
    whole = train_recipe(recipe, "whole", Watcher()).run
    parts = train_recipe(recipe, "parts", *stop_at(10)).run
    monkeypatch.setattr("folio.training.step.FLOAT16_SCALE", 2.0**14)  # fine, but another
    resumed(parts, {}, Watcher())
    scales = [run.checkpoint("last")[0].state["loss_scale"] for run in (whole, parts)]
    assert 1 < scales[0] == scales[1] != 2.0**14
    assert weights_of(parts, 40) == weights_of(whole, 40)


@pytest.mark.parametrize(
    ("first", "then", "scale"), [("float16", "float32", 1.0), ("float32", "float16", 2.0**16)]
)
def test_the_scale_of_float16_is_that_of_float16_alone(
    book: Path, first: str, then: str, scale: float
):
    recipe = recipe_of(book, device={"precision": first, "fast": "off"})
    run = train_recipe(recipe, "crossed", *stop_at(10)).run
    resumed(run, {"device": {"precision": then}}, Watcher())
    assert run.checkpoint("last")[0].state["loss_scale"] == scale
    norms = [event["gradient_norm"] for event in run.events("step")]
    assert max(norms[10:]) < 10 * max(norms[:10])


def test_a_longer_run_does_not_go_back_to_short_windows(book: Path):
    short = {"schedule": {"short_fraction": 0.5, "short_length": 4}}
    run = train_recipe(recipe_of(book, **short), "short", Watcher()).run
    resumed(run, {"training": {"max_steps": 80}}, Watcher())
    recipe = read_recipe(run)
    assert recipe.schedule.short_fraction * recipe.training.max_steps == 20


def test_a_longer_run_does_not_go_back_to_short_windows_that_the_clock_made_fewer(book: Path):
    planned_again = {"short_fraction": 0.7, "short_length": 4, "pace": ["0:100", "10:50"]}
    recipe = recipe_of(book, schedule=planned_again, training={"max_steps": 50})
    run = train_recipe(recipe, "fewer", *stop_at(40)).run  # short until step 37, of 70 planned
    told: list[str] = []

    class Listener(Watcher):
        def tell(self, line: str) -> None:
            told.append(line)

    _, should_stop = stopper = stop_at(45)
    watcher = LoggingWatcher(Listener(), stopper[0])
    resumed(run, {"training": {"max_steps": 200}}, watcher, should_stop)
    assert not any("windows of 4 tokens only" in line for line in told)
    assert round(read_recipe(run).schedule.short_fraction * 200) == 40


def test_who_stops_while_windows_are_short_is_told(book: Path):
    short = {"schedule": {"short_fraction": 0.5, "short_length": 4}}
    told: list[str] = []

    class Listener(Watcher):
        def tell(self, line: str) -> None:
            told.append(line)

    for step in (10, 30):
        _, should_stop = stopper = stop_at(step)
        listener = LoggingWatcher(Listener(), stopper[0])
        train_recipe(recipe_of(book, **short), f"stopped-{step}", listener, should_stop)
    assert sum("windows of 4 tokens only" in line for line in told) == 1


def test_a_resumed_run_needs_no_source_files(book: Path):
    run = train_recipe(recipe_of(book), "parts", *stop_at(10)).run
    book.unlink()
    assert resumed(run, {}, Watcher()).ending == "finished"


def test_settings_other_than_training_stay(book: Path):
    run = train_recipe(recipe_of(book), "parts", *stop_at(10)).run
    with pytest.raises(UserError, match="not model"):
        resume_run(run, {"model": {"n_layers": 3}}, Watcher())


def test_training_settings_left_to_folio_are_chosen_anew(book: Path):
    run = train_recipe(recipe_of(book), "short", Watcher()).run
    changes = {"max_steps": 44, "log_interval": 0, "evaluation_interval": 0}
    longer = resume_run(run, {"training": changes}, Watcher())
    assert longer is not None and longer.state.step == 44
    chosen = make_recipe(read_toml(run.recipe_file)).training
    assert chosen.log_interval == 1 and chosen.evaluation_interval >= 1


def test_a_longer_run_evaluates_as_a_new_one_of_its_length_unless_told_how_often(book: Path):
    open_ones = {"evaluation_interval": 0, "log_interval": 0}
    new = train_recipe(recipe_of(book, training={**open_ones, "max_steps": 60}), "new", Watcher())
    for given in ({}, {"evaluations": 6}, {"log_interval": 7, "evaluation_sample": 50}):
        changes: Any = {"training": {**open_ones, "max_steps": 6, **given}}
        run = train_recipe(recipe_of(book, **changes), None, Watcher()).run
        resumed(run, {"training": {"max_steps": 60}}, Watcher())
        settings = read_recipe(new.run).training
        if "evaluations" in given:
            given = {"evaluation_interval": 10}
        assert read_recipe(run).training == replace(settings, **given)


def test_a_longer_run_decides_anew_whether_it_is_worth_compiling(whole: Run):
    text = whole.recipe_file.read_text().replace('compile = "auto"', 'compile = "off"')
    whole.recipe_file.write_text(text)  # as of a short run on CUDA
    resumed(whole, {"training": {"max_steps": 42}}, Watcher())
    assert read_recipe(whole).device.compile == "auto"


def test_how_often_a_longer_run_evaluates_is_said_in_one_of_two_ways(book: Path):
    for number, given, changed in (
        (1, {"evaluation_interval": 0, "evaluations": 2}, {"evaluation_interval": 7}),
        (2, {"evaluation_interval": 7}, {"evaluations": 4}),
    ):
        changes: Any = {"training": {"max_steps": 6, **given}}
        run = train_recipe(recipe_of(book, **changes), f"said-{number}", Watcher()).run
        resumed(run, {"training": {"max_steps": 28, **changed}}, Watcher())
        assert read_recipe(run).training.evaluation_interval == 7
        resumed(run, {"training": {"max_steps": 42}}, Watcher())  # what was said stays said
        assert read_recipe(run).training.evaluation_interval == (7 if number == 1 else 11)


def test_a_run_that_does_not_know_what_was_asked_for_keeps_what_it_has(book: Path, whole: Run):
    whole.asked_file.unlink()
    resumed(whole, {"training": {"max_steps": 44}}, Watcher())
    assert read_recipe(whole).training.evaluation_interval == 15


def test_the_last_the_best_and_the_newest_checkpoints_are_kept(book: Path):
    changes = {
        "training": {"keep_checkpoints": 2, "save_interval": 5, "evaluation_interval": 10},
        # After the first evaluations everything gets worse.
        "optimizer": {"learning_rate": 0.02, "weight_decay": 0},
        "schedule": {"warmup_fraction": 0},
    }
    run = train_recipe(recipe_of(book, **changes), "kept", Watcher()).run
    names = sorted(int(path.name[5:]) for path in run.checkpoints_folder.iterdir())
    best = run.checkpoint("best")[0].step
    assert names == sorted({best, 35, 40})
    assert run.checkpoint("last")[0].step == 40
    losses = {e["step"]: e["validation_loss"] for e in run.events("evaluation")}
    assert losses[best] == min(losses.values())


def test_defaults_take_no_place_of_what_a_damaged_recipe_lacks(whole: Run):
    head, _, _ = whole.recipe_file.read_text().partition("[optimizer]")
    whole.recipe_file.write_text(head)
    with pytest.raises(UserError, match=r"recipe\.toml is damaged: it must have an entry 'optim"):
        resume_run(whole, {"training": {"max_steps": 45}}, Watcher())


def test_memory_on_another_device_is_that_of_the_sharding_that_was_asked_for(
    whole: Run, monkeypatch: pytest.MonkeyPatch
):
    counted: list[str] = []

    def fit(recipe: Recipe, *rest: Any) -> tuple[Recipe, int]:
        counted.append(recipe.training.sharding)
        return recipe, 0

    monkeypatch.setattr(resume, "fit_memory", fit)
    changes = {"training": {"max_steps": 45, "sharding": "full"}, "device": {"fast": "off"}}
    result = resume_run(whole, changes, Watcher())
    assert counted == ["full"]
    assert result is not None and result.state.step == 45
    assert read_recipe(whole).training.sharding == "full"


def test_a_recipe_of_a_newer_folio_with_other_tables_is_not_called_damaged(whole: Run):
    whole.recipe_file.write_text("format = 99\n")
    with pytest.raises(UserError, match=r"recipe\.toml .*newer version of Folio"):
        resume_run(whole, {"training": {"max_steps": 45}}, Watcher())


def test_what_a_newer_folio_wrote_is_not_removed(whole: Run):
    manifest = whole.newest()[0].path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    before = sorted(path.name for path in whole.checkpoints_folder.iterdir())
    with pytest.raises(UserError, match="newer version of Folio"):
        resume_run(whole, {"training": {"max_steps": 45}}, Watcher())
    assert sorted(path.name for path in whole.checkpoints_folder.iterdir()) == before
