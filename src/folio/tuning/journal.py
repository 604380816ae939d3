"""Makes Optuna's journal safe against a kill at any moment."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from folio.storage import locked


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
