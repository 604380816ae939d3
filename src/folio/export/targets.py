"""Every format that a run leaves in, by its name; and what is the same for all of them.

A format of your own is an entry in `TARGETS`, and one file.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from folio.config import unknown_name
from folio.corpus.own import is_page
from folio.errors import UserError
from folio.export.gguf import GGUF
from folio.export.hf import HF
from folio.export.page import HTML
from folio.export.target import Exported, Target
from folio.export.verify import Verified, verify
from folio.run.model import Model
from folio.storage import storage_error

TARGETS: dict[str, Target] = {"hf": HF, "gguf": GGUF, "html": HTML}


def export_run(
    opened: Model, to: str, kind: str = "", out: Path | None = None
) -> tuple[Path, Exported, Verified]:
    """Write a run for another program, read it back, and compare the two.

    Args:
        opened: the run.
        to: a name in TARGETS.
        kind: type of the weights; empty takes the target's first.
        out: where to; a file or folder beside the run's checkpoints where none is given.

    Returns:
        What was written where, and how far it is from the run.

    Raises:
        UserError: the target cannot say this run, or does not say it right. Nothing is left then.
    """
    if to not in TARGETS:
        raise UserError(unknown_name("target", to, TARGETS) + f" There are {', '.join(TARGETS)}.")
    target = TARGETS[to]
    kind = kind or target.types[0]
    if kind not in target.types:
        raise UserError(f"--type {kind} is not of {to}, which has {', '.join(target.types)}.")
    name = target.default_name(opened.run, kind)
    final = out or opened.run.exports_folder / name
    if Path(name).suffix and final.suffix != Path(name).suffix:  # a folder for the file
        final = final / name
    if out is not None:
        _require_own(target, final, is_folder=not Path(name).suffix)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=final.parent) as folder:
            staged = Path(folder) / final.name
            exported = target.write(opened, kind, staged)
            verified = verify(opened, target.read(staged), kind, exported.tolerance)
            _move(Path(folder), final.parent)
    except OSError as error:
        raise storage_error(error, final) from error
    return final, exported, verified


def _require_own(target: Target, final: Path, is_folder: bool) -> None:
    """Raise a UserError where files that no export wrote would be replaced."""
    file, words = target.mark
    if not file:
        if final.exists() and not is_page(final):
            raise UserError(f"{final} is there and is not a page of Folio. Name another --out.")
        return
    folder = final if is_folder else final.parent
    there = folder / file
    if not (folder.is_dir() and any(folder.iterdir()) if is_folder else there.exists()):
        return
    if not (there.is_file() and words in there.read_text(encoding="utf-8", errors="replace")):
        raise UserError(
            f"{folder} has files that an export would replace, and that none wrote. Name a folder "
            f"of its own: --out FOLDER"
        )


def _move(source: Path, target: Path) -> None:
    """Have every file of a folder in another, in place of those of the same names."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            final = target / path.relative_to(source)
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, final)
