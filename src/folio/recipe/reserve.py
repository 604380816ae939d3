"""Takes the name of a new run before any work is done for it, and holds it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from folio.errors import UserError
from folio.recipe.recipe import Recipe
from folio.run.directory import Run, check_name
from folio.storage import new_folder, storage_error, visible

LONGEST_STEM = 120
"""In bytes; preset and number follow, and file systems allow 255 for names beside a run's."""


@contextmanager
def new_run(recipe: Recipe, name: str | None, folder: Path) -> Iterator[Run]:
    """Reserve a name for a run: nobody else can take it or write into it until the context ends.

    Raises:
        UserError: the run exists, another process is making it, or the name is invalid.
    """
    if name is not None:
        check_name(name)
    run, held = _reserve(recipe, name, folder)
    with held:
        yield run


def _reserve(recipe: Recipe, name: str | None, folder: Path) -> tuple[Run, ExitStack]:
    while True:
        run = Run(folder / (name if name is not None else _new_name(recipe, folder)))
        _refuse_existing(run)
        with ExitStack() as held:
            try:
                held.enter_context(new_folder(run.path, run.lock_file, "run", run.exists))
            except UserError:
                # Another command may have just taken the same number.
                if name is None and _new_name(recipe, folder) != run.name:
                    continue
                raise
            _refuse_existing(run)  # it may have been finished while nobody held the lock
            _remove_start(run)
            held.callback(_give_up, run)
            return run, held.pop_all()


def _refuse_existing(run: Run) -> None:
    """Raise a UserError if a run is there, or a folder of something else, unless that is what was
    left of a start, with its lock.
    """
    if run.exists():
        raise UserError(
            f"The run {run.path} exists already. Go on with it: folio resume {run.word}. "
            f"Or give another --name."
        )
    found = visible(run.path) if run.path.is_dir() else set[str]()
    of_a_start = {path.name for path in (run.lock_file, *run.start_paths())}
    if found and (run.lock_file.name not in found or not found <= of_a_start):
        raise UserError(
            f"{run.path} is there and is not a run, so its files would be mixed with those of one. "
            f"Give another --name."
        )


def _give_up(run: Run) -> None:
    """Remove what a start wrote that failed, and the lock, by which a killed one is known."""
    if not run.exists():
        _remove_start(run)
        run.lock_file.unlink(missing_ok=True)


def _remove_start(run: Run) -> None:
    """Remove what a start that was killed left, so that nothing of it gets into the new run."""
    for path in run.start_paths():
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, path) from error


def _new_name(recipe: Recipe, folder: Path) -> str:
    """<corpus>-<preset>-<number>, with the first number after the existing ones.

    Names that differ in case alone are one name, as they are to the disks of macOS and Windows.
    """
    first = recipe.corpus.sources[0]
    stem = "stdin" if first == "-" else re.sub(r"[^\w.-]+", "-", Path(first).stem).strip("-.")
    stem = stem.encode("utf-8")[:LONGEST_STEM].decode("utf-8", errors="ignore")
    base = f"{stem or 'text'}-{recipe.preset}"
    taken = [0]
    for path in folder.glob("*-*"):
        name, _, number = path.name.rpartition("-")
        if name.casefold() == base.casefold() and number.isdecimal():
            taken.append(int(number))
    return f"{base}-{max(taken) + 1}"
