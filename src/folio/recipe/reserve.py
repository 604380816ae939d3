"""Takes the name of a new run before any work is done for it, and holds it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from folio.corpus.own import is_run
from folio.errors import UserError
from folio.recipe.recipe import Recipe
from folio.run.directory import Run, check_name
from folio.storage import new_folder, visible

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
            return run, held.pop_all()


def _refuse_existing(run: Run) -> None:
    """Raise a UserError if a run is there, or a folder of something else; what a run left that
    ended before it began, with its lock, is replaced.
    """
    if run.exists():
        raise UserError(
            f"The run {run.path} exists already. Go on with it: folio resume {run.word}. "
            f"Or give another --name."
        )
    if not run.path.is_dir():
        return
    if is_run(run.path) or (visible(run.path) and not run.lock_file.exists()):
        raise UserError(
            f"{run.path} is there and is not a run, so its files would be mixed with those of one. "
            f"Give another --name."
        )


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
