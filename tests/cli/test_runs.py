"""folio runs reads what it shows once."""

from __future__ import annotations

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
