from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from folio.cli.main import main
from tests.corpus.making import write

TEXT = "sea ship wind light tower fog bird rope sail stone quay rain lamp door"
WORDS = TEXT.split()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Thirty pages, each of its own words but for a notice; two in another version."""
    for i in range(30):
        body = " ".join(f"{WORDS[(i + j) % 14]}{i}x{j}" for j in range(60))
        page = "<nav>Home</nav><p>All rights reserved.</p><p>{}\u200b</p>"
        write(tmp_path, f"notes/{i}.html", page.format(body))
        if i in (3, 4):
            write(tmp_path, f"notes/{i}-old.html", page.format(f"{body} and more"))
    write(tmp_path, "notes/broken.pdf", b"%PDF")
    write(tmp_path, "notes/picture.png", b"png")
    return tmp_path / "notes"


def test_the_report_tells_where_each_byte_went(notes: Path, capfd: pytest.CaptureFixture[str]):
    main(["corpus", str(notes)])
    out = capfd.readouterr().out
    for words in (
        "32 documents", "2 clusters of near-duplicates", "whole clusters", "boilerplate",
        "navigation", "control characters", "Latin", "broken.pdf is left out", "skipped: 1 .png",
    ):  # fmt: skip
        assert words in out, words


def test_the_page_says_the_same_and_escapes_what_users_write(
    notes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    write(notes, "<script>.html", "<p>Some text.</p>")
    page = tmp_path / "page.html"
    main(["corpus", str(notes), "--html", str(page)])
    html = page.read_text()
    assert "&lt;script&gt;.html" in html and "<script>" not in html
    assert "33 documents" in html and "All rights reserved." in html
    assert capfd.readouterr().err.strip() == str(page)
    assert not re.search(r"(src|href)=", html)  # loads nothing


def test_json_adds_up(notes: Path, capfd: pytest.CaptureFixture[str]):
    main(["corpus", str(notes), "--json", "--corpus.split", "clusters"])
    out = capfd.readouterr().out
    report = json.loads(out)
    ledger = report["ledger_bytes"]
    parts = sum(sum(ledger[part].values()) for part in ("kept", "dropped", "rewritten"))
    assert ledger["in"] == parts
    assert report["leakage"]["after"]["grams"] == 0
    assert sum(row["documents"] for row in report["lengths"]) == report["documents"] == 32
    assert report["refused"] == {str(notes / "broken.pdf"): "it is damaged, or not a PDF"}


def test_scripts_are_counted_by_letter(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    write(tmp_path, "a.txt", "abcé, 12 Ωмир שלום 世界かな 한국 🦊!")
    main(["corpus", str(tmp_path / "a.txt"), "--json"])
    scripts = json.loads(capfd.readouterr().out)["scripts"]
    expected = {"Latin": 4, "Greek": 1, "Cyrillic": 3, "Hebrew": 4, "Han": 2, "Kana": 2}
    assert scripts == expected | {"Hangul": 2, "emoji": 1}


def test_what_comes_next_takes_the_text_as_it_was_given(
    notes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    other = write(notes.parent, "other notes.txt", "Some other text. " * 30)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    main(["corpus", str(notes), "--validation", str(other), "--corpus.split", "documents"])
    words = f"{notes} --validation '{other}' --corpus.split documents"
    assert f"folio train {words} " in capsys.readouterr().err


def test_a_recipe_names_its_text(notes: Path, capfd: pytest.CaptureFixture[str]):
    recipe = write(notes.parent, "recipe.toml", f'[corpus]\nsources = ["{notes}"]\n')
    main(["corpus", str(recipe), "--json"])
    assert json.loads(capfd.readouterr().out)["documents"] == 32
