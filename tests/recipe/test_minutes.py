"""A budget in minutes: kept to a clock, recorded, and repeated without one to the same bytes."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from folio.config import Table, merge, read_toml
from folio.errors import UserError
from folio.recipe.budget import CommandClock
from folio.recipe.recipe import Recipe, make_recipe, read_recipe
from folio.recipe.resume import resume_run
from folio.recipe.speed import Throughput
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import Run, find_run
from folio.run.summary import facts_of
from folio.training.pace_file import read_pace

STEP, EVALUATION = 0.2, 0.5
TINY = {
    "preset": "modern",
    "model": {
        "n_layers": 1,
        "n_heads": 2,
        "d_model": 16,
        "context_length": 16,
        "residual_dropout": 0.2,
    },
    "training": {"batch_size": 4, "minutes": 0.25, "log_interval": 1, "keep_checkpoints": 99},
    "corpus": {"validation_fraction": 0.02},
    "device": {"kind": "cpu", "precision": "float32", "threads": 1},
}


class ScriptedClock(CommandClock):
    """Stands still but for what a test adds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def used(self) -> float:
        return self.seconds


class Killed(BaseException):
    """As `kill -9`: nothing is saved on the way out."""


class SlowMachine(Watcher):
    """Lets time pass: steps take longer from the 20th on. Dies after a step, if asked to."""

    sample_tokens = 0

    def __init__(self, clock: ScriptedClock, dies_after: int | None = None) -> None:
        self.clock, self.dies_after = clock, dies_after

    def stepped(self, state: Any, loss: float, learning_rate: float) -> None:
        self.clock.seconds += STEP if state.step < 20 else 2 * STEP
        if state.step == self.dies_after:
            raise Killed

    def evaluated(self, state: Any, evaluation: Any) -> None:
        self.clock.seconds += EVALUATION


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("folio.recipe.budget.measure", lambda *_: Throughput(STEP, EVALUATION))
    monkeypatch.setattr("folio.recipe.budget.evaluation_now", lambda _: EVALUATION)


def recipe_of(book: Path, **changes: Any) -> Recipe:
    return make_recipe(merge(TINY, {"corpus": {"sources": [str(book)]}}, changes))


def train_for_minutes(book: Path, name: str, dies_after: int | None = None, **changes: Any) -> Run:
    clock = ScriptedClock(1.0)
    recipe = recipe_of(book, **changes)
    return train_recipe(recipe, name, SlowMachine(clock, dies_after), clock=clock).run


def weights_of(run: Run, which: str = "last") -> bytes:
    return (run.checkpoint(which)[0].path / "model.safetensors").read_bytes()


def losses_of(run: Run) -> dict[int, float]:
    return {event["step"]: event["loss"] for event in run.events("step")}


def test_a_machine_that_becomes_slower_makes_fewer_steps_in_the_same_time(book: Path):
    clock = ScriptedClock(1.0)
    result = train_recipe(recipe_of(book), "slow", SlowMachine(clock), clock=clock)
    recipe = make_recipe(read_toml(result.run.recipe_file))
    planned, *later = recipe.schedule.pace
    assert planned == "0:54" and later, "15 s, less start, end, look and 2 evaluations"
    assert recipe.training.max_steps == result.state.step < 54
    # For the end, which takes no time here: twice what it takes elsewhere, since the machine is
    # slow, and the shares of the look and of the sample.
    assert clock.seconds == pytest.approx(15 - 2 * 0.7 - 0.6 - 0.75, abs=1.2)


def test_a_run_and_its_page_tell_the_steps_that_the_clock_has_planned_last(book: Path):
    told: list[int] = []

    class Looking(SlowMachine):
        def evaluated(self, state: Any, evaluation: Any) -> None:
            super().evaluated(state, evaluation)
            run = find_run("slow")
            told.append(facts_of(run, run.events())["max_steps"])

    clock = ScriptedClock(1.0)
    recipe = recipe_of(book, training={"page": True})
    result = train_recipe(recipe, "slow", Looking(clock), clock=clock)
    done = result.state.step
    assert done < 54 and told[-1] == done
    assert f"finished: step {done} of {done}," in result.run.training_page.read_text()


def test_the_recipe_of_the_run_repeats_it_without_a_clock(book: Path):
    first = train_for_minutes(book, "first")
    again = train_recipe(make_recipe(read_toml(first.recipe_file)), "again", Watcher()).run
    assert weights_of(again) == weights_of(first)
    assert losses_of(again) == losses_of(first)
    evaluations = [[e["validation_loss"] for e in r.events("evaluation")] for r in (first, again)]
    assert evaluations[0] == evaluations[1]
    recipes = [read_toml(run.recipe_file) for run in (first, again)]
    assert recipes[0] == recipes[1] and not again.pace_file.exists()


def test_what_was_computed_once_is_computed_again_after_a_kill(book: Path):
    often: dict[str, Any] = {"training": {"save_interval": 3}}
    n_steps = max(losses_of(train_for_minutes(book, "whole", **often)))
    # Before the first checkpoint, at one, around the change of pace, and at the end.
    for dies_after in (1, 9, 19, 23, n_steps - 1):
        name = f"killed-{dies_after}"
        with pytest.raises(Killed):
            train_for_minutes(book, name, dies_after, **often)
        run = Run(Path(book.parent / "runs" / name))
        before, plans = losses_of(run), read_pace(run.pace_file)
        clock = ScriptedClock(2.0)
        result = resume_run(run, {}, SlowMachine(clock), clock=clock)
        assert result is not None and result.ending == "finished"
        after = losses_of(run)
        assert {step: after[step] for step in before} == before
        resumed = read_pace(run.pace_file)
        assert plans and resumed and resumed[1][: len(plans[1])] == plans[1]
        if dies_after in (1, 23):  # without a clock before, and with what it decided
            again = train_recipe(make_recipe(read_toml(run.recipe_file)), None, Watcher()).run
            assert weights_of(again) == weights_of(run)


@pytest.mark.parametrize("changes", [{}, {"save_interval": 2}, {"evaluation_interval": 10}])
def test_a_resumed_run_has_what_was_left_of_its_minutes(book: Path, changes: Table):
    with pytest.raises(Killed):
        train_for_minutes(book, "killed", 25, training={"save_interval": 1})
    run = Run(book.parent / "runs" / "killed")
    used, plans = run.newest()[0].state["used_seconds"], read_pace(run.pace_file)
    clock = ScriptedClock(2.0)
    resume_run(run, {"training": changes}, SlowMachine(clock), clock=clock)
    assert used + clock.seconds == pytest.approx(15 - 2 - 0.75, abs=1.6)
    resumed = read_pace(run.pace_file)
    assert plans and resumed and resumed[1][: len(plans[1])] == plans[1]


def test_changes_that_are_refused_leave_a_run_its_clock(book: Path):
    with pytest.raises(Killed):
        train_for_minutes(book, "killed", 25)
    run = Run(book.parent / "runs" / "killed")
    before = run.pace_file.read_text(), run.recipe_file.read_text()
    with pytest.raises(UserError, match="batch_size"):
        resume_run(run, {"training": {"max_steps": 60, "batch_size": 0}}, Watcher())
    assert (run.pace_file.read_text(), run.recipe_file.read_text()) == before
    resume_run(run, {"training": {"max_steps": 60}}, SlowMachine(ScriptedClock(1.0)))
    assert run.newest()[0].step == 60 and not run.pace_file.exists()


def test_a_decision_that_was_cut_off_on_the_disk_never_counted(book: Path):
    with pytest.raises(Killed):
        train_for_minutes(book, "killed", 25, training={"save_interval": 1})
    run = Run(book.parent / "runs" / "killed")
    known = read_pace(run.pace_file)
    with run.pace_file.open("a") as file:
        file.write('{"step": 26, "la')
    assert read_pace(run.pace_file) == known
    clock = ScriptedClock(2.0)
    resume_run(run, {}, SlowMachine(clock), clock=clock)
    assert [json.loads(line) for line in run.pace_file.read_text().splitlines()]


@pytest.mark.parametrize("content", ["", "{", "[]\n"])
def test_a_budget_that_is_damaged_is_one_line(tmp_path: Path, content: str):
    path = tmp_path / "pace.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match="damaged: its first line must be a budget"):
        read_pace(path)


@pytest.mark.parametrize("saves", [True, False])
def test_a_run_that_is_removed_while_it_trains_is_not_made_again(book: Path, saves: bool):
    run = train_for_minutes(book, "gone", training={"max_steps": 4})
    clock = ScriptedClock(1.0)

    class Removing(SlowMachine):
        def stepped(self, state: Any, loss: float, learning_rate: float) -> None:
            super().stepped(state, loss, learning_rate)
            if state.step == 6:
                shutil.rmtree(run.path)

    more = {"minutes": 0.2, "save_interval": int(saves), "evaluation_interval": 50}
    with pytest.raises(UserError, match="could not be written: No such file"):
        resume_run(run, {"training": more}, Removing(clock), clock=clock)
    assert not run.path.exists()


def test_more_minutes_go_on_from_where_the_run_ended(book: Path):
    run = train_for_minutes(book, "longer")
    ended = run.newest()[0].step
    clock = ScriptedClock(1.0)
    told: list[str] = []

    class Listening(SlowMachine):
        def tell(self, line: str) -> None:
            told.append(line)

    result = resume_run(run, {"training": {"minutes": 0.2}}, Listening(clock), clock=clock)
    assert result is not None and result.ending == "finished"
    assert result.state.step > ended
    assert clock.seconds == pytest.approx(12 - 2 * 0.7 - 0.48 - 0.6, abs=1.2)
    assert any("goes back up" in line for line in told)


def test_more_minutes_have_evaluations_as_a_new_run_of_them(book: Path):
    run = train_for_minutes(book, "few")
    assert read_recipe(run).training.evaluations == 2
    resume_run(run, {"training": {"minutes": 2.0}}, Watcher(), lambda: True, ScriptedClock(1.0))
    new = train_recipe(
        recipe_of(book, training={"minutes": 2.0}), "new", Watcher(), lambda: True,
        clock=ScriptedClock(1.0),
    )  # fmt: skip
    evaluations = [read_recipe(r).training.evaluations for r in (run, new.run)]
    assert evaluations == [11, 11], "a twentieth of the time"


def test_an_interrupt_leaves_out_what_can_be_made_up_for(book: Path):
    clock = ScriptedClock(1.0)
    count = itertools.count()
    watcher = SlowMachine(clock)
    watcher.sample_tokens = 20
    result = train_recipe(recipe_of(book), "cut", watcher, lambda: next(count) == 9, clock=clock)
    assert result.ending == "interrupted" and not result.sample and not result.held_out
    assert not result.run.held_out_file.exists()
    clock.seconds = 1.0
    whole = resume_run(result.run, {}, watcher, clock=clock)
    assert whole is not None and whole.sample and whole.held_out


def test_a_budget_in_steps_beside_the_minutes_ends_the_run_first(book: Path):
    run = train_for_minutes(book, "both", training={"max_steps": 10})
    assert make_recipe(read_toml(run.recipe_file)).schedule.pace == ("0:10",)
    assert max(losses_of(run)) == 10


def test_another_budget_replaces_the_pace_of_a_recipe(book: Path):
    run = train_for_minutes(book, "timed")
    recipe = make_recipe(read_toml(run.recipe_file), {"training": {"max_steps": 5}})
    assert recipe.schedule.pace == () and recipe.training.max_steps == 5


def test_minutes_that_are_too_few_are_told_at_once(book: Path):
    told: list[str] = []

    class Listening(Watcher):
        sample_tokens = 0

        def tell(self, line: str) -> None:
            told.append(line)

    train_recipe(recipe_of(book, training={"minutes": 0.05}), "few", Listening())
    assert any("3 s are few here" in line and "which leaves" in line for line in told)


def test_counting_and_weighing_ngrams_has_its_time_within_the_minutes(book: Path):
    run = train_for_minutes(book, "counted", ngrams={"order": 4})
    planned, *_ = read_toml(run.recipe_file)["schedule"]["pace"]
    fewer = 54 - int(planned.partition(":")[2])
    assert fewer * STEP == pytest.approx(EVALUATION, abs=STEP), "the text is read twice once more"
