"""A study is made once, and is the same under another name."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna", reason="folio tune needs Optuna: pip install foliolm[tune]")


from folio.config import merge  # noqa: E402
from folio.errors import UserError  # noqa: E402
from folio.recipe.speed import Throughput  # noqa: E402
from folio.recipe.watcher import Watcher  # noqa: E402
from folio.tuning import making  # noqa: E402
from folio.tuning.making import ensure_study, with_trials  # noqa: E402
from folio.tuning.study import Request, Study, open_study  # noqa: E402
from folio.tuning.worker import work  # noqa: E402
from tests.tuning.studies import (  # noqa: E402
    RECIPE,
    SPACE,
    MakeStudy,
    losses,
    never,
    rates_of_runs,
)


def test_of_two_commands_at_once_the_second_finds_the_study_of_the_first(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = merge(RECIPE, {"corpus": {"sources": [str(book)]}})
    requests = [Request(recipe=recipe, space=SPACE, search={"repeats": n}) for n in (0, 1)]
    make, answers = making._make, list[Any]()

    def second() -> None:
        try:
            ensure_study(tmp_path / "study", requests[1], 1, Watcher())
        except UserError as error:
            answers.append(str(error))

    thread = threading.Thread(target=second)

    def make_while_another_asks(*given: Any) -> Study:
        monkeypatch.setattr(making, "_make", make)
        thread.start()
        time.sleep(0.2)  # it waits, or would make one of its own
        return make(*given)

    monkeypatch.setattr(making, "_make", make_while_another_asks)
    study = ensure_study(tmp_path / "study", requests[0], 1, Watcher())
    thread.join()
    assert open_study(study.path) == study and study.config.repeats == 0
    assert len(answers) == 1 and "exists with another repeats" in answers[0]


def test_a_command_that_gives_up_waiting_leaves_the_folder_to_the_one_that_makes_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*given: Any, **how: Any) -> Any:
        raise KeyboardInterrupt

    lock = making.locks_in(tmp_path / "study") / "making"
    lock.parent.mkdir(parents=True)
    lock.touch()
    monkeypatch.setattr(making, "locked", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_study(tmp_path / "study", Request(recipe={}, search={}), 1, Watcher())
    assert lock.exists()


def test_a_study_that_could_not_be_made_leaves_nothing(tmp_path: Path):
    request = Request(recipe={"corpus": {"sources": ["nothing.txt"]}}, search={})
    for _ in range(2):
        with pytest.raises(UserError, match="There is no file"):
            ensure_study(tmp_path / "runs" / "study", request, 1, Watcher())
        assert list(tmp_path.iterdir()) == []


def test_the_same_request_is_the_same_study_and_another_is_refused(make_study: MakeStudy):
    study = make_study(trials=2)
    assert make_study(trials=2) == study
    assert make_study(trials=5).config.trials == 5  # a study may grow
    with pytest.raises(UserError, match=r"another space\.optimizer\.learning_rate\.high"):
        make_study({"optimizer": {"learning_rate": {"low": 1e-5, "high": 1.0, "log": True}}})


def test_minutes_for_the_whole_study_are_frozen_as_epochs_of_a_trial(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(making, "measure", lambda *given: Throughput(0.01, 0.1))
    recipe = merge(RECIPE, {"corpus": {"sources": [str(book)]}})
    request = Request(recipe=recipe, space=SPACE, minutes=1.0, search={"trials": 8, "repeats": 0})
    study = ensure_study(tmp_path / "study", request, 2, Watcher())
    # Eight trials of half their cost on two workers: 30 s for one, 3 of them for evaluations.
    tokens = 27 / 0.01 * 4 * 16
    assert study.recipe.training.max_epochs == pytest.approx(tokens / 19_599, abs=0.01)
    assert study.config.evaluations == 9


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


def test_a_study_of_a_newer_version_gets_a_line(make_study: MakeStudy):
    study = make_study(trials=1)
    file = study.path / "study.toml"
    file.write_text(file.read_text().replace("format = 1", "format = 9"))
    with pytest.raises(UserError, match="made by a newer version"):
        open_study(study.path)
