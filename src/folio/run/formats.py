"""Versions of the files that Folio writes, and what to say about one that cannot be read.

A version goes up when an older Folio would misread what a newer one writes. A file without one was
written before November 2026, and counts as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from folio.errors import UserError

KEY = "format"
Kind = Literal["checkpoint", "recipe", "corpus", "study", "pointer", "start"]


@dataclass(frozen=True)
class Versions:
    """The versions of one kind of file."""

    written: int
    oldest: int
    """Oldest version that can still be read."""
    anew: str
    """The command that makes a new one."""


FORMATS: dict[Kind, Versions] = {
    "checkpoint": Versions(1, 0, "folio train RUN/recipe.toml"),
    "recipe": Versions(2, 0, "folio train TEXT"),  # 2: may begin with another run
    "corpus": Versions(1, 0, "folio train RUN/recipe.toml"),
    "study": Versions(1, 0, "folio tune TEXT"),
    "pointer": Versions(1, 0, "folio train RUN/recipe.toml"),
    "start": Versions(1, 1, "folio train RUN/recipe.toml"),
}


def stamped(kind: Kind, table: Mapping[str, Any]) -> dict[str, Any]:
    """Add the version of its kind to a table.

    >>> stamped("corpus", {"documents": 2})
    {'format': 1, 'documents': 2}
    """
    return {KEY: FORMATS[kind].written, **table}


def require_readable(kind: Kind, table: Mapping[str, Any], path: Path | str) -> None:
    """Refuse a file of a version that this program cannot read.

    Args:
        kind: the kind of file.
        table: its content.
        path: for the message.

    Raises:
        UserError: its version is newer, or too old.
    """
    versions, version = FORMATS[kind], table.get(KEY, 0)
    if type(version) is not int:
        raise UserError(f"{path} is damaged: its {KEY} must be a whole number, got {version!r}.")
    if version > versions.written:
        raise UserError(
            f"{path} was made by a newer version of Folio ({kind} format {version}; this one reads "
            f"up to {versions.written}). Update Folio (git pull in a clone)."
        )
    if version < versions.oldest:
        raise UserError(
            f"{path} was made by an older version of Folio ({kind} format {version}; this one "
            f"reads from {versions.oldest} on). Start anew with: {versions.anew}"
        )
