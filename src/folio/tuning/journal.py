"""Opens where Optuna keeps its trials, and makes its journal safe against a kill at any moment."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from folio.errors import UserError
from folio.storage import locked

IN_MEMORY = ("sqlite://", "sqlite:///", "sqlite:///:memory:")


class JournalLock:
    """A lock held by the operating system while a process appends.

    Optuna's own locks are files, and one left behind by a killed process blocks everyone. Half a
    line left behind would corrupt the next one, so it is cut off; its writer never learned that it
    was written.
    """

    def __init__(self, journal: Path, lock: Path) -> None:
        self.journal, self.lock = journal, lock
        self.held = ExitStack()

    def acquire(self) -> bool:
        self.held.enter_context(locked(self.lock, f"The journal {self.journal}", wait=True))
        cut_torn_line(self.journal)
        return True

    def release(self) -> None:
        self.held.close()


def cut_torn_line(journal: Path) -> None:
    """Truncate a file after its last line end."""
    with journal.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        if not end:
            return
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def open_journal(journal: Path, locks: Path) -> JournalStorage:
    """Open the storage of a study."""
    lock = JournalLock(journal, locks / "journal")
    # Optuna does not export its lock interface, which is acquire and release.
    return JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))  # type: ignore[arg-type]


def open_database(url: str) -> BaseStorage:
    """Open the database of a study, which makes its tables if it has none.

    Raises:
        UserError: there is no such database, or it cannot be reached.
    """
    try:
        if url in IN_MEMORY:
            raise ValueError("the memory of a process is not seen by the others")
        return get_storage(url)
    except Exception as error:  # each driver has errors of its own
        why = str(error).partition("\n")[0].rstrip(".")
        raise UserError(
            f"--storage {url} cannot be opened: {why}. Give a database such as "
            f"sqlite:///study.db, or leave it out."
        ) from None
