"""A study loses nothing and does nothing twice."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna", reason="folio tune needs Optuna: pip install foliolm[tune]")

from optuna.trial import TrialState  # noqa: E402

from folio.config import merge, read_toml  # noqa: E402
from folio.errors import UserError  # noqa: E402
from folio.recipe.recipe import make_recipe  # noqa: E402
from folio.recipe.speed import Throughput  # noqa: E402
from folio.recipe.watcher import Watcher  # noqa: E402
from folio.run.directory import Run  # noqa: E402
from folio.storage import StorageError  # noqa: E402
from folio.training.parallel.step import ParallelStep  # noqa: E402
from folio.training.step import Gradient  # noqa: E402
from folio.tuning import making, worker  # noqa: E402
from folio.tuning.making import ensure_study, with_trials  # noqa: E402
from folio.tuning.outcome import look  # noqa: E402
from folio.tuning.page import summary, write_best, write_page  # noqa: E402
from folio.tuning.study import Request, Study, StudyConfig, open_study  # noqa: E402
from folio.tuning.worker import claim, work  # noqa: E402
from tests.forked import Forked  # noqa: E402
from tests.tuning.studies import (  # noqa: E402
    RECIPE,
    SPACE,
    MakeStudy,
    begin,
    never,
    rates_of_runs,
    states,
    stop_after,
    trial_of,
)


def test_three_small_trials_give_a_recipe_a_page_and_the_noise(make_study: MakeStudy):
    study = make_study(trials=3, repeats=1)
    work(study, never)
    outcome = look(study, study.connect())
    assert [row.state for row in outcome.rows].count("running") == 0 and len(outcome.rows) == 3
    best = outcome.best[0]
    assert len(best.losses) == 2 and outcome.noise is not None and outcome.noise > 0
    # The best recipe trains as it is, and is the trial's.
    write_best(study, outcome)
    recipe = make_recipe(read_toml(study.best_file))
    trained = make_recipe(read_toml(Run(Path(best.run)).recipe_file))
    assert recipe.optimizer == trained.optimizer and recipe.model == trained.model
    assert recipe.training.max_steps == 27
    write_page(study, outcome)
    page = study.page_file.read_text(encoding="utf-8")
    assert page.count("<svg") >= 1 and f"<b>{best.mean:.4f}</b>" in page
    assert f"folio train {study.best_file}" in summary(study, outcome)
    assert json.loads(json.dumps(outcome.record()))["best"][0] == best.number


def test_the_objective_is_the_best_validation_loss_of_the_run(finished: Study):
    study = finished
    trial, _ = study.connect().get_trials()
    losses = [e["validation_loss"] for e in study.trial_run(0).events("evaluation")]
    assert trial.value == min(losses) and len(losses) == study.config.evaluations
    assert sorted(trial.intermediate_values) == list(range(1, study.config.evaluations + 1))


def test_an_interrupted_trial_goes_on_from_its_checkpoint(make_study: MakeStudy):
    study = make_study(trials=1)
    work(study, stop_after(20))  # the 27 steps are not done
    assert states(study) == [TrialState.RUNNING]
    before = study.trial_run(0).newest()[0].step
    assert 0 < before < 27
    work(study, never)
    assert states(study) == [TrialState.COMPLETE]
    steps = [event["step"] for event in study.trial_run(0).events("evaluation")]
    assert steps == sorted(set(steps)) and steps[-1] == 27


def test_evaluations_that_a_kill_kept_from_the_journal_are_reported_afterwards(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
):
    study = make_study(trials=1)
    with monkeypatch.context() as broken:
        broken.setattr(optuna.trial.Trial, "report", lambda *given: None)
        work(study, stop_after(20))
    work(study, never)
    (trial,) = study.connect().get_trials()
    assert sorted(trial.intermediate_values) == list(range(1, study.config.evaluations + 1))


def test_an_interrupted_study_ends_like_one_that_was_not(make_study: MakeStudy, two_trials: Path):
    whole = open_study(two_trials)
    expected = [(t.params, t.value, t.state) for t in whole.connect().get_trials()]
    parts = make_study(trials=2)
    for _ in range(2):
        work(parts, stop_after(20))
        assert TrialState.RUNNING in states(parts)
    work(parts, never)
    assert [(t.params, t.value, t.state) for t in parts.connect().get_trials()] == expected


def test_a_trial_whose_worker_is_alive_is_left_to_it(make_study: MakeStudy):
    study = make_study(trials=2)
    first = begin(study)
    second = begin(study)
    assert [first.run.name, second.run.name] == ["trial-0000", "trial-0001"]
    assert claim(study, study.connect(), set()) == "wait"
    first.held.close()  # as the operating system does when the process dies
    again = claim(study, study.connect(), set())
    assert isinstance(again, worker.Job) and again.run.name == "trial-0000"
    assert again.recipe == first.recipe  # what was drawn stays
    assert len(states(study)) == 2


def test_a_trial_that_ends_between_a_look_and_its_lock_is_left_as_it_is(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
):
    study, lock = make_study(trials=1), Study.lock
    trial, run = trial_of(begin(study)), study.trial_run(0)

    def tell_first(own: Study, run: Run) -> Any:
        trial.study.tell(trial, 1.5)
        return lock(own, run)

    monkeypatch.setattr(Study, "lock", tell_first)
    assert claim(study, study.connect(), set()) == "wait"
    assert states(study) == [TrialState.COMPLETE]
    held = lock(study, run)
    assert held is not None, "it was given back"
    held.close()


def test_a_run_that_ended_before_it_was_told_is_told_and_not_trained_again(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
):
    study = make_study(trials=1)
    with monkeypatch.context() as broken:
        broken.setattr(optuna.Study, "tell", lambda *given, **more: None)
        job = begin(study)
        with job.held:
            worker.run_trial(study, job, trial_of(job), never)
    assert states(study) == [TrialState.RUNNING]
    before = study.trial_run(0).metrics_file.read_bytes()
    work(study, never)
    assert states(study) == [TrialState.COMPLETE]
    assert study.trial_run(0).metrics_file.read_bytes() == before


def test_a_pruned_trial_stays_pruned_even_if_it_was_killed_before_it_was_told(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
):
    study = make_study(trials=1)
    with monkeypatch.context() as broken:
        broken.setattr(optuna.trial.Trial, "should_prune", lambda self: True)
        broken.setattr(optuna.Study, "tell", lambda *given, **more: None)
        job = begin(study)
        with job.held:
            worker.run_trial(study, job, trial_of(job), never)
    assert states(study) == [TrialState.RUNNING]
    work(study, never)
    assert states(study) == [TrialState.PRUNED]
    assert study.trial_run(0).newest()[0].step == 3


def test_hyperband_prunes_some_of_many_and_what_it_prunes_trains_no_further(make_study: MakeStudy):
    study = make_study(trials=5)
    assert study.config.n_brackets == 1 and study.config.first_rung == 5
    work(study, never)
    outcome = look(study, study.connect())
    counts = Counter(row.state for row in outcome.rows)
    assert counts["pruned"] >= 1 and counts["complete"] >= 1
    for row in outcome.rows:
        steps = Run(Path(row.run)).newest()[0].step
        assert steps == (27 if row.state == "complete" else 15)
    assert outcome.share < 1


def test_a_trial_that_diverges_or_fails_is_recorded_and_the_study_goes_on(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
):
    original, names = worker.train_recipe, []

    def train(recipe: Any, name: str, *rest: Any) -> Any:
        names.append(name)
        if name == "trial-0000":
            raise MemoryError("no more")
        return original(recipe, name, *rest)

    def gradients(step: Any, *given: Any) -> Gradient:
        return Gradient(math.nan, 0.0) if names[-1] == "trial-0001" else backward(step, *given)

    backward = ParallelStep.backward

    study = make_study(trials=3)
    monkeypatch.setattr(worker, "train_recipe", train)
    monkeypatch.setattr(ParallelStep, "backward", gradients)
    work(study, never)
    rows = look(study, study.connect()).rows
    assert [row.state for row in rows] == ["failed", "diverged", "complete"]
    assert rows[0].error == "MemoryError: no more" and not rows[1].curve


def test_if_every_trial_fails_the_study_says_so(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
):
    def fail(*given: Any) -> Any:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(worker, "train_recipe", fail)
    with pytest.raises(UserError, match=r"All of 5 trials failed.*no such luck"):
        work(make_study(trials=20), never)


def test_a_full_disk_is_no_trials_failure(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch):
    def full(*given: Any) -> Any:
        raise StorageError("The disk is full")

    study = make_study(trials=1)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "train_recipe", full)
        with pytest.raises(StorageError):
            work(study, never)
    assert states(study) == [TrialState.RUNNING]
    work(study, never)
    assert states(study) == [TrialState.COMPLETE]


def test_the_same_request_is_the_same_study_and_another_is_refused(make_study: MakeStudy):
    study = make_study(trials=2)
    assert make_study(trials=2) == study
    assert make_study(trials=5).config.trials == 5  # a study may grow
    with pytest.raises(UserError, match=r"another space\.optimizer\.learning_rate\.high"):
        make_study({"optimizer": {"learning_rate": {"low": 1e-5, "high": 1.0, "log": True}}})


@pytest.mark.parametrize("step_seconds", [0.01, 13.5])
def test_minutes_for_the_whole_study_are_frozen_as_epochs_of_a_trial(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_seconds: float
):
    monkeypatch.setattr(making, "measure", lambda *given: Throughput(step_seconds, 0.1))
    recipe = merge(RECIPE, {"corpus": {"sources": [str(book)]}})
    request = Request(recipe=recipe, space=SPACE, minutes=1.0, search={"trials": 8, "repeats": 0})
    study = ensure_study(tmp_path / "study", request, 2, Watcher())
    # Eight trials of half their cost on two workers: 30 s for one, 3 of them for evaluations.
    tokens = 27 / step_seconds * 4 * 16
    assert study.recipe.training.max_epochs == pytest.approx(tokens / 19_599, rel=0.005)
    assert study.config.evaluations == 9


def test_tokenizers_are_compared_in_bits_per_byte(make_study: MakeStudy):
    study = make_study({"tokenizer": {"kind": {"choices": ["character", "auto"]}}}, trials=1)
    assert study.config.unit == "bits per byte"
    work(study, never)
    (trial,) = study.connect().get_trials()
    nats = min(e["validation_loss"] for e in study.trial_run(0).events("evaluation"))
    assert trial.value == pytest.approx(nats / math.log(2))  # of ASCII, a byte a character


def test_a_database_takes_the_place_of_the_journal(make_study: MakeStudy, tmp_path: Path):
    study = make_study(trials=1, storage=f"sqlite:///{tmp_path}/study.db")
    work(study, never)
    assert states(study) == [TrialState.COMPLETE]
    assert not study.journal_file.exists() and (tmp_path / "study.db").exists()


@pytest.mark.parametrize(
    ("trials", "n_brackets", "first_rung"), [(25, 3, 2), (16, 2, 6), (3, 1, 17)]
)
def test_brackets_fit_the_number_of_trials(trials: int, n_brackets: int, first_rung: int):
    config = StudyConfig(trials=trials, evaluations=30)
    assert (config.n_brackets, config.first_rung) == (n_brackets, first_rung)
    study = Study(Path("x"), config, SPACE, RECIPE, {}, "x-1")
    pruner = study.pruner()
    pruner._try_initialization(optuna.create_study())
    assert pruner._n_brackets == n_brackets  # Optuna counts the same


def test_no_two_trials_draw_the_same_numbers(make_study: MakeStudy):
    study = make_study()
    drawn = {
        optuna.create_study(sampler=study.sampler(number)).ask().suggest_float("x", 0, 1)
        for number in range(20)
    }
    assert len(drawn) == 20 and max(drawn) - min(drawn) > 0.5


# ---- identity ------------------------------------------------------------------------------


def losses(study: Study) -> list[tuple[dict[str, Any], float | None]]:
    return [(trial.params, trial.value) for trial in study.connect().get_trials()]


@pytest.mark.parametrize("how", ["renamed", "copied", "moved"])
def test_a_study_under_another_name_goes_on_as_what_it_is(
    finished: Study, tmp_path: Path, how: str
):
    study = finished
    before = losses(study)
    target = tmp_path / "elsewhere" / "deep" / "study" if how == "moved" else tmp_path / "other"
    target.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if how == "copied" else shutil.move)(study.path, target)
    again = with_trials(open_study(target), 3)
    work(again, never)
    after = losses(again)
    assert after[:2] == before and len(after) == 3
    for rate, (params, value) in zip(rates_of_runs(again, 3), after):
        assert rate == pytest.approx(params["optimizer.learning_rate"], rel=1e-5)
        assert value is not None
    if how == "copied":  # and the first one goes its own way
        work(with_trials(open_study(study.path), 3), never)
        assert losses(study)[:2] == before


@pytest.mark.parametrize("renamed", [True, False])
def test_a_study_of_a_version_without_ids_is_recognized(
    make_study: MakeStudy, tmp_path: Path, renamed: bool
):
    study = make_study(trials=1)
    study = replace(study, id="study")  # such a version took the name of the directory
    work(study, never)
    before = losses(study)
    lines = (study.path / "study.toml").read_text().splitlines()
    (study.path / "study.toml").write_text("\n".join(x for x in lines if not x.startswith("id")))
    if renamed:
        study.path.rename(tmp_path / "other")
    path = tmp_path / "other" if renamed else study.path
    again = with_trials(open_study(path), 2)
    assert losses(again) == before
    again.path.rename(tmp_path / "third")  # from now on it has an id
    assert losses(open_study(tmp_path / "third")) == before


def test_two_studies_of_one_name_in_one_database_share_no_trials(book: Path, tmp_path: Path):
    recipe = merge(RECIPE, {"corpus": {"sources": [str(book)]}})
    search = {"repeats": 0, "trials": 1, "storage": f"sqlite:///{tmp_path}/study.db"}
    request = Request(recipe=recipe, space=SPACE, search=search)
    studies = [ensure_study(tmp_path / x / "study", request, 1, Watcher()) for x in "ab"]
    work(studies[0], never)
    assert [len(losses(study)) for study in studies] == [1, 0]
    shutil.copytree(studies[0].path, tmp_path / "copy")
    with pytest.raises(UserError, match="is a copy of the study"):
        open_study(tmp_path / "copy").connect()
    studies[0].path.rename(tmp_path / "moved")
    assert len(losses(open_study(tmp_path / "moved"))) == 1


@pytest.mark.parametrize("done", [True, False])
def test_a_run_of_other_settings_is_no_trials_loss(
    make_study: MakeStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str], done: bool
):
    study = make_study(trials=1)
    work(study, never if done else stop_after(4))
    run = study.trial_run(0).path
    foreign = read_toml(run / "recipe.toml")["optimizer"]["learning_rate"]
    study.journal_file.unlink()  # so that the first trial is drawn again, from other numbers
    work(replace(study, config=replace(study.config, seed=7)), never)
    (trial,) = study.connect().get_trials()
    assert trial.params["optimizer.learning_rate"] != pytest.approx(foreign)
    assert rates_of_runs(study, 1)[0] == pytest.approx(
        trial.params["optimizer.learning_rate"], rel=1e-5
    )
    said = capsys.readouterr().err
    assert said.count("held a run of other settings (optimizer.learning_rate") == 1
    aside = run.with_name("trial-0000-set-aside-1")
    assert read_toml(aside / "recipe.toml")["optimizer"]["learning_rate"] == foreign


@pytest.mark.parametrize("repeats", [0, 1])
def test_a_study_does_not_go_on_with_a_text_that_was_changed(
    make_study: MakeStudy, book: Path, repeats: int
):
    study = make_study(trials=1, repeats=0)
    work(study, never)
    text = book.read_text(encoding="utf-8")
    book.write_text(text.replace("e", "u"), encoding="utf-8")
    study = replace(study, config=replace(study.config, trials=2 - repeats, repeats=repeats))
    before = states(study)
    with pytest.raises(UserError, match=r"text of the study .* was changed: .* Put the old text"):
        work(study, never)
    assert states(study) == [*before, *[TrialState.RUNNING] * (1 - repeats)], "no failure"
    new = study.repeat_run(0, 2) if repeats else study.trial_run(1)
    shutil.rmtree(new.path)
    book.write_text(text, encoding="utf-8")
    work(study, never)
    assert set(states(study)) == {TrialState.COMPLETE} and worker.is_over(new)


# ---- processes -----------------------------------------------------------------------------


@pytest.mark.xdist_group("forked")
def test_a_worker_whose_command_is_gone_before_its_first_line_does_nothing(make_study: MakeStudy):
    study = make_study(trials=3)
    command = [sys.executable, "-m", "folio.tuning.worker", str(study.path)]
    assert Forked(command, stdin=subprocess.DEVNULL).wait(timeout=300) == 0
    assert states(study) == []


@pytest.mark.xdist_group("forked")
def test_a_worker_ends_when_the_process_that_started_it_is_killed(make_study: MakeStudy):
    study = make_study(trials=3)
    # A command that starts a worker, tells its number, and is killed.
    code = (
        "import sys, time; from pathlib import Path; from folio.tuning.study import open_study;"
        "from folio.tuning.watching import Workers;"
        "w = Workers(open_study(Path(sys.argv[1])), 1); print(w.processes[0].pid, flush=True);"
        "time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(study.path)]
    with Forked(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        number = int(parent.stdout.readline())
        parent.kill()
    for _ in range(3000):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker goes on")
    assert TrialState.COMPLETE not in states(study)


def test_a_study_of_a_newer_version_gets_a_line(make_study: MakeStudy):
    study = make_study(trials=1)
    file = study.path / "study.toml"
    file.write_text(file.read_text().replace("format = 1", "format = 9"))
    with pytest.raises(UserError, match="made by a newer version"):
        open_study(study.path)
