"""One command makes a study, and leaves nothing where it cannot."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="folio tune needs Optuna: pip install foliolm[tune]")

from folio.config import merge
from folio.errors import UserError
from folio.recipe.watcher import Watcher
from folio.tuning import making
from folio.tuning.making import ensure_study
from folio.tuning.space import DEFAULT_SPACE, MUON_SPACE, parse_space
from folio.tuning.study import Request, Study, open_study
from tests.tuning.studies import RECIPE, SPACE


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
    lock = making.locks_in(tmp_path / "study") / "making"

    def interrupted(*given: Any, **how: Any) -> Any:
        lock.touch()  # by the other one
        raise KeyboardInterrupt

    monkeypatch.setattr("folio.storage.locked", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_study(tmp_path / "study", Request(recipe={}, search={}), 1, Watcher())
    assert lock.exists()


def test_a_study_that_could_not_be_made_leaves_nothing(tmp_path: Path):
    request = Request(recipe={"corpus": {"sources": ["nothing.txt"]}}, search={})
    for _ in range(2):
        with pytest.raises(UserError, match="There is no file"):
            ensure_study(tmp_path / "runs" / "study", request, 1, Watcher())
        assert list(tmp_path.iterdir()) == []


def test_a_folder_of_hidden_files_is_a_place_for_a_study_and_stays_where_none_was_made(
    tmp_path: Path,
):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / ".gitkeep").touch()
    request = Request(recipe={"corpus": {"sources": ["nothing.txt"]}}, search={})
    for _ in range(2):  # a lock is there, too, the second time
        with pytest.raises(UserError, match="There is no file"):
            ensure_study(tmp_path / "study", request, 1, Watcher())
        assert (tmp_path / "study" / ".gitkeep").exists()


@pytest.mark.parametrize("url", ["bogus://x", "sqlite:////nowhere/study.db", "sqlite://"])
def test_a_database_that_cannot_be_opened_is_one_line(url: str, book: Path, tmp_path: Path):
    recipe = merge(RECIPE, {"corpus": {"sources": [str(book)]}})
    request = Request(recipe=recipe, space=SPACE, search={"storage": url})
    with pytest.raises(UserError, match=f"^--storage {url} cannot be opened: ") as caught:
        ensure_study(tmp_path / "runs" / "study", request, 1, Watcher())
    assert "\n" not in str(caught.value) and not (tmp_path / "runs").exists()


def test_a_study_of_an_older_default_space_goes_on(book: Path, tmp_path: Path):
    recipe = merge(RECIPE, {"corpus": {"sources": [str(book)]}, "optimizer": {"kind": "muon"}})
    old = Request(recipe=recipe, space=DEFAULT_SPACE, search={})
    study = ensure_study(tmp_path / "study", old, 1, Watcher())
    again = ensure_study(tmp_path / "study", Request(recipe=recipe, search={}), 1, Watcher())
    assert again.space == study.space == parse_space(DEFAULT_SPACE)
    new = ensure_study(tmp_path / "new", Request(recipe=recipe, search={}), 1, Watcher())
    assert new.space == parse_space(MUON_SPACE)
