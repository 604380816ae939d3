"""The file that a user names for what a verb writes: nothing of the user's own is replaced."""

from __future__ import annotations

from pathlib import Path

from folio.corpus.own import is_page
from folio.errors import UserError


def check_output(path: Path | None, flag: str, suffix: str) -> None:
    """Check before the work that a file may be written where the user wants it.

    Args:
        path: None where none is named.
        flag: the flag that named it.
        suffix: of what is written. A file of another suffix, and a page that Folio did not make,
            are kept; an empty file and an earlier result are replaced.

    Raises:
        UserError: something else is there.
    """
    if path is None or not path.exists():
        return
    if not path.is_file():
        raise UserError(f"{flag} must be a file, and {path} is a folder or a device.")
    ours = path.suffix.lower() == suffix and (suffix != ".html" or is_page(path))
    if path.stat().st_size and not ours:
        raise UserError(
            f"{flag} {path} is a file that would be replaced, and not a {suffix} file of Folio. "
            f"Give another name, or remove it."
        )
