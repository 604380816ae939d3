"""folio runs reads what it shows once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from folio.run.directory import Run
from tests.cli.conftest import Folio
from tests.conftest import copied

OLDER = Path(__file__).parents[1] / "data" / "format-0"


def test_a_page_beside_a_picture_replaces_no_file_of_the_user(folio: Folio, tmp_path: Path):
    mine = tmp_path / "compare.html"
    mine.write_text("my own")
    outcome = folio("runs", "--compare", "a", "b", "--page", "--out", str(tmp_path / "new.svg"))
    assert outcome.code == 2 and f"{mine} is neither" in outcome.err


def test_a_comparison_reads_the_events_of_each_run_once(
    folio: Folio, monkeypatch: pytest.MonkeyPatch
):
    names = [copied(OLDER / name).name for name in ("adamw-character", "muon-character")]
    read, events = list[str](), Run.events

    def counted(run: Run, *kind: str):
        read.append(run.name)
        return events(run, *kind)

    monkeypatch.setattr(Run, "events", counted)
    outcome = folio("runs", "--compare", *names, "--page")
    assert outcome.code == 0 and "░ muon-character\n" in outcome.out, outcome.err
    assert read == names


def test_runs_of_one_name_are_told_apart_by_their_folders(folio: Folio, tmp_path: Path):
    paths = []
    for folder, name in (("a", "adamw-character"), ("b", "muon-character")):
        (tmp_path / folder).mkdir()
        paths.append(str(copied(OLDER / name).path.rename(tmp_path / folder / "trial-1")))
    outcome = folio("runs", "--compare", *paths, "--json")
    facts = json.loads(outcome.out)
    assert [fact["run"] for fact in facts] == paths
    assert [fact["same_recipe"] for fact in facts] == [[path] for path in paths]
    assert f"with {paths[0]} and {paths[1]}" in outcome.err
