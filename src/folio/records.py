"""Reads text files and tables, and says in one line what is wrong with a file that is of no use."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from folio.errors import UserError

T = TypeVar("T")

SHELLS_PIPE = re.compile(r"/dev/stdin|/(dev|proc/[^/]+)/fd/\d+")
"""The path of a pipe that a shell makes: bash gives /dev/fd/63, zsh /proc/self/fd/11. A system may
have links there (Linux) or not (macOS)."""


def read_text(path: Path) -> str:
    """Read a text file in UTF-8.

    A pipe that a shell makes, as in `--secrets <(pass show all)`, is read as well; another one may
    have no writer, and would be waited for.

    Raises:
        UserError: there is no such file, it is not a file, or it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{path} must be a file, and is a folder.")
        is_shells = stat.S_ISFIFO(mode) and SHELLS_PIPE.fullmatch(str(path))
        if not (stat.S_ISREG(mode) or is_shells):
            raise UserError(f"{path} must be a file, and is a device, a pipe or a socket.")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


def read_plain_text(path: Path) -> str:
    """Read a text file that the user wrote.

    Raises:
        UserError: as `read_text`; or it is not UTF-8.
    """
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} must be text in UTF-8: {error}.") from None


class Record(dict[str, Any]):
    """A table that was read from a file: asked for what it lacks, it names that file."""

    def __init__(self, table: Mapping[str, Any], path: Path) -> None:
        super().__init__(table)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise LackingError(self.path, f"it must have an entry {key!r}")


class DamagedError(UserError):
    """The content of a file is not what Folio wrote.

    >>> print(DamagedError(Path("a/best.json"), "it must be a table"))
    a/best.json is damaged: it must be a table. Put a copy of it back, or make it anew.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is damaged: {why}. Put a copy of it back, or make it anew.")


class LackingError(DamagedError, KeyError):
    """A file lacks an entry."""

    __str__ = ValueError.__str__  # KeyError puts quotes around it


def made_of(kind: type[T], table: Mapping[str, Any], path: Path) -> T:
    """An object whose fields are the entries of a table of a file.

    Raises:
        DamagedError: it has other entries.
    """
    try:
        return kind(**table)
    except TypeError as error:
        raise DamagedError(path, str(error)) from None


def with_path(value: Any, path: Path) -> Any:
    """Make each table in a value a `Record` of a file."""
    if isinstance(value, dict):
        return Record({key: with_path(item, path) for key, item in value.items()}, path)
    return [with_path(item, path) for item in value] if isinstance(value, list) else value
