"""The ids of a run in programs that give it one, so that a resumed run goes on there."""

from __future__ import annotations

from typing import Any

from folio.run.directory import Run
from folio.storage import read_json, write_json


def known_id(run: Run, name: str) -> str | None:
    """The id of a run in a program; None if that has not seen it yet."""
    return _ids(run).get(name)


def remember_id(run: Run, name: str, id_there: str) -> None:
    """Write down the id of a run in a program."""
    write_json(run.logged_file, _ids(run) | {name: id_there})


def _ids(run: Run) -> dict[str, Any]:
    return read_json(run.logged_file, dict) if run.logged_file.exists() else {}
