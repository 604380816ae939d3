from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from folio import console
from folio.corpus import extraction
from folio.corpus.corpus import CorpusConfig, read_documents
from folio.corpus.extraction import Task
from folio.corpus.formats.known import format_of
from folio.corpus.reading import ReadingOptions, settings_of
from folio.storage import cache_folder
from tests.corpus.making import write


def texts(folder: Path) -> list[str]:
    return [document.text for document in read_documents([str(folder)], CorpusConfig()).documents]


def test_a_content_is_extracted_once_whatever_its_file_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    page = write(tmp_path, "one/a.html", "<p>The page.</p>")
    assert texts(page.parent) == ["The page.\n"]
    started = []
    worker = extraction._Worker
    monkeypatch.setattr(extraction, "_Worker", lambda: started.append(1) or worker())
    (tmp_path / "two").mkdir()
    shutil.copy(page, tmp_path / "two" / "b.html")
    assert texts(tmp_path / "two") == ["The page.\n"]
    assert not started
    page.write_text("<p>Another.</p>")
    assert texts(page.parent) == ["Another.\n"]
    assert started == [1]


def test_the_cache_tells_contents_readers_their_versions_and_settings_apart():
    page, book = format_of("a.html"), format_of("a.epub")
    assert page is not None and book is not None
    task = Task(Path("a.html"), "1" * 64, page, {})
    others = [
        replace(task, sha256="2" * 64),
        replace(task, format=book),
        replace(task, format=replace(page, revision=page.revision + 1)),
        replace(task, settings={"text_column": "body"}),
    ]
    assert len({task.target, *(other.target for other in others)}) == 5
    assert replace(task, path=Path("b.html")).target == task.target
    # What earlier versions read under the same settings is not read again.
    assert settings_of(page, ReadingOptions()) == {}
    assert settings_of(page, ReadingOptions(encoding="cp1250")) == {"encoding": "cp1250"}


def test_long_reading_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in ("a.html", "b.html"):
        write(tmp_path, name, f"<p>The page {name}</p>")
    texts(tmp_path)
    assert capsys.readouterr().err == ""  # not for small ones
    shutil.rmtree(cache_folder())
    monkeypatch.setattr(extraction, "PROGRESS_BYTES", 0)
    monkeypatch.setattr(extraction, "MEGABYTE", 10)
    monkeypatch.setattr(console, "PLAIN_SECONDS", 0.0)
    texts(tmp_path)
    size = sum((tmp_path / name).stat().st_size for name in ("a.html", "b.html"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"{size // 10}/{size // 10}  MB") and "b.html" in "".join(lines)
