"""The ids of a run in programs that give it one, and the steps to which they have it, so that a
resumed run goes on there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from folio.run.directory import Run
from folio.storage import read_json, write_json


def known_id(run: Run, name: str) -> str | None:
    """The id of a run in a program; None if that has not seen it yet."""
    return _ids(run).get(name)


def remember_id(run: Run, name: str, id_there: str) -> None:
    """Write down the id of a run in a program."""
    write_json(run.logged_file, _ids(run) | {name: id_there})


def shown_steps(run: Run, name: str) -> dict[str, int] | None:
    """The last step of each kind of event that a program has written down; None if nobody kept
    it.
    """
    return _ids(run).get("shown", {}).get(name)


def remember_shown(run: Run, name: str, steps: Mapping[str, int]) -> None:
    """Write down what a program has, unless the run was removed."""
    if run.path.exists():
        known = _ids(run)
        shown = known.get("shown", {}) | {name: dict(steps)}
        write_json(run.logged_file, known | {"shown": shown})


def _ids(run: Run) -> dict[str, Any]:
    return read_json(run.logged_file, dict) if run.logged_file.exists() else {}
