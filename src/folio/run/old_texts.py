"""What the weights of a run learned before its own training, from run to run back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from folio.errors import UserError
from folio.run.checkpoint import MANIFEST, MODEL, list_checkpoints
from folio.run.directory import Run
from folio.storage import read_json


@dataclass(frozen=True)
class OldTexts:
    """The training texts of the run that a run began with, of the one that this began with, and so
    on.
    """

    files: dict[str, Path]
    """Path of each run -> a token file with its training text, the newest first. Its ids mean the
    same to the newer runs, whose vocabularies can only have more tokens at their ends."""
    missing: str
    """What else was learned, or may have been, and is not there, in words; empty if nothing."""


def old_texts(run: Run) -> OldTexts:
    """Follow start.json from run to run, as far as they are there with the weights that were
    taken.
    """
    files: dict[str, Path] = {}
    missing, seen = list[str](), {run.path.resolve()}
    while run.start_file.exists():
        start = read_json(run.start_file, dict)
        origin, kept = Run(Path(start["run"])), run.tokens_file("kept")
        there = _has_weights(origin, start["sha256"])
        text = origin.tokens_file("train") if there and not kept.exists() else kept
        if text.exists():
            files[str(origin.path)] = text
        else:
            missing.append(f"the text of {origin.path}")
        if not there and text.exists():
            missing.append(f"what {origin.path} may have begun with")
        if not there or origin.path.resolve() in seen:
            break
        seen.add(origin.path.resolve())
        run = origin
    return OldTexts(files, " and ".join(missing))


def _has_weights(run: Run, sha256: str) -> bool:
    """Whether a checkpoint of a run has these weights; another run may be at its path now."""
    for checkpoint in list_checkpoints(run.checkpoints_folder):
        with suppress(UserError):  # damaged, or just removed by a training
            if read_json(checkpoint / MANIFEST, dict)[MODEL]["sha256"] == sha256:
                return True
    return False
