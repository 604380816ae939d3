"""The file that a user names for what a verb writes: nothing of the user's own is replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from folio.errors import UserError


def check_output(path: Path | None, flag: str, is_ours: Callable[[Path], bool]) -> None:
    """Check before the work that a file may be written where the user wants it.

    Args:
        path: None where none is named.
        flag: the flag that named it.
        is_ours: whether a file has what the verb writes. Such a file is replaced, whatever its
            name, and so is an empty one.

    Raises:
        UserError: something else is there.
    """
    if path is None or not path.exists():
        return
    if not path.is_file():
        raise UserError(f"{flag} must be a file, and {path} is a folder or a device.")
    if path.stat().st_size and not is_ours(path):
        raise UserError(
            f"{flag} must be a new file or an earlier result, and {path} is neither. Give another "
            f"name, or remove it."
        )
