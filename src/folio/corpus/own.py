"""Recognizes what Folio itself has written (runs, studies, stores and pages), which is not text to
learn from.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path

from folio.report import html_page

_RUN_FILES = ("metrics.jsonl", "corpus.json", "tokenizer.json")
"""At least one of them is beside the recipe.toml of a run."""
_STORE_FILES = ("tokenizer.json", "shards")
"""At least one of them is beside the store.json of a store of tokens."""
_STUDY_FILES = ("journal.log", "best.toml", "study.html", "trials")
"""At least one of them is beside the study.toml of a study."""


def is_own_folder(folder: Path) -> bool:
    """Whether a folder is the folder of all runs, or one of what Folio writes."""
    return _is_runs_folder(folder) or is_run(folder)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run, a study or a store of tokens."""
    kinds = ("recipe.toml", _RUN_FILES), ("study.toml", _STUDY_FILES), ("store.json", _STORE_FILES)
    with suppress(OSError):  # whoever reads it says what is wrong
        return any(
            (folder / main).is_file() and any((folder / name).exists() for name in others)
            for main, others in kinds
        )
    return False


def is_page(path: Path) -> bool:
    """Whether a file that is named as one is an HTML page that Folio wrote."""
    return path.suffix.lower() in (".html", ".htm") and has_page(path)


def has_page(path: Path) -> bool:
    """Whether a file of any name has an HTML page that Folio wrote."""
    head = _head(path)
    return any(head.startswith(begin) for begin in _page_begins())


def has_picture(path: Path) -> bool:
    """Whether a file of any name has a picture as Folio draws them, an SVG of matplotlib."""
    head = _head(path)
    return b"<svg" in head and b"<dc:title>Matplotlib " in head


def _head(path: Path) -> bytes:
    with suppress(OSError):
        if path.is_file():  # opening a pipe would wait for who writes
            with path.open("rb") as file:
                return file.read(4096)
    return b""


@cache
def _page_begins() -> tuple[bytes, ...]:
    """How Folio's pages begin, up to the point where they differ."""
    template = files("folio.explain").joinpath("page.html").read_text("utf-8")
    begins = (html_page("", "").partition('">\n<title>')[0], template.partition("color-scheme")[0])
    return tuple(begin.encode("utf-8") for begin in begins)


def _is_runs_folder(folder: Path) -> bool:
    runs = Path(os.environ.get("FOLIO_RUNS", "runs"))
    return folder.name == runs.name and folder.resolve() == runs.resolve()
