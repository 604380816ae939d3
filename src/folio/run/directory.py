"""The file names in a run directory, and how a run is found. No other file knows them, except
`corpus/own.py`, which stands to the left and tells runs from text by some of them.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folio.errors import UserError
from folio.run.checkpoint import (
    TO_READ,
    Checkpoint,
    checkpoint_name,
    list_checkpoints,
    newest_checkpoint,
    open_checkpoint,
    step_of,
)
from folio.run.formats import require_readable, stamped
from folio.run.metrics import Event, read_events
from folio.storage import locked, read_json, storage_error, write_json

RESERVED = {
    *("con", "prn", "aux", "nul"),
    *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10)),
}
"""Names that no file may have on Windows, whatever follows a dot."""
LONGEST_NAME = 200
"""In bytes; file systems allow 255, and files beside a folder have longer names."""
POINTERS = ("best", "last")
"""Files of a run that name one of its checkpoints."""


def runs_folder() -> Path:
    """Where runs are made and found by name; `FOLIO_RUNS` overrides it."""
    return Path(os.environ.get("FOLIO_RUNS", "runs"))


def check_name(name: str) -> None:
    """Check that every system and every verb accepts a name for a run or a study.

    Raises:
        UserError: it is not accepted; the message says why.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] (a script's)
        raise UserError(f"name must be text, got {name!r}.")
    wrong = [c for c in name if not c.isprintable() or c in '/\\<>:"|?*']
    reason = None
    if not name.strip():
        reason = "it is empty"
    elif wrong:
        reason = f"it contains {wrong[0]!r}"
    elif name.startswith(("-", "~")):
        reason = f"it begins with '{name[0]}', which commands take for something else"
    elif name[0] in ". " or name[-1] in ". ":
        reason = "it begins or ends with a dot or a blank"
    elif name.partition(".")[0].rstrip().lower() in RESERVED:
        reason = "Windows keeps it for a device"
    elif (n_bytes := len(os.fsencode(name))) > LONGEST_NAME:
        reason = f"it has {n_bytes} bytes, more than {LONGEST_NAME}"
    if reason:
        shown = name if len(name) <= 40 else f"{name[:40]}..."
        raise UserError(f"The name {shown!r} is not a plain name: {reason}. Give another --name.")


@dataclass(frozen=True)
class Run:
    """The paths of a run directory."""

    path: Path

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.path.name

    @property
    def word(self) -> str:
        """How a command refers to this run: by name if that finds it, else by path; quoted for a
        shell.
        """
        found_by_name = self.path == runs_folder() / self.name
        return shlex.quote(self.name if found_by_name else str(self.path))

    @property
    def again(self) -> str:
        """The command that trains its recipe once more; it is for a shell, too."""
        return f"folio train {shlex.quote(str(self.recipe_file))}"

    @property
    def lock_file(self) -> Path:
        """Held by the process that writes the run."""
        return self.path / "lock"

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe, with every choice written out."""
        return self.path / "recipe.toml"

    @property
    def asked_file(self) -> Path:
        """The recipe as it was asked for, with what it left open; missing in a run of 0.1."""
        return self.path / "asked.toml"

    @property
    def tokenizer_file(self) -> Path:
        """The run's tokenizer, as a standard tokenizer.json."""
        return self.path / "tokenizer.json"

    @property
    def corpus_file(self) -> Path:
        """Sources, counts, split and ledger of the text."""
        return self.path / "corpus.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object per event, from which every plot is drawn."""
        return self.path / "metrics.jsonl"

    @property
    def learned_file(self) -> Path:
        """One JSON object per evaluation of a run with a page or loggers: losses of kinds of
        tokens, a sample, and the memory in use.
        """
        return self.path / "learned.jsonl"

    @property
    def training_page(self) -> Path:
        """The page of `folio train --page`."""
        return self.path / "page.html"

    @property
    def logged_file(self) -> Path:
        """The ids of the run in programs of `folio train --log`, and the steps that they have."""
        return self.path / "log.json"

    @property
    def picture_file(self) -> Path:
        """The plot of the losses."""
        return self.path / "loss.svg"

    @property
    def card_file(self) -> Path:
        """The run card, README.md."""
        return self.path / "README.md"

    @property
    def start_file(self) -> Path:
        """The run that this one began with, and its loss; missing in a run from scratch."""
        return self.path / "start.json"

    @property
    def held_out_file(self) -> Path:
        """The losses on the held-out texts."""
        return self.path / "held_out.json"

    @property
    def prediction_file(self) -> Path:
        """What was predicted for the run before it began."""
        return self.path / "prediction.json"

    @property
    def pace_file(self) -> Path:
        """What the clock of a budget in minutes decided."""
        return self.path / "pace.jsonl"

    @property
    def by_heart_file(self) -> Path:
        """Which passages the model knew word for word when the run ended."""
        return self.path / "by_heart.json"

    @property
    def ngrams_file(self) -> Path:
        """The n-grams of the training text, of a run that counts them."""
        return self.path / "tokens" / "ngrams.safetensors"

    @property
    def ngram_weights_file(self) -> Path:
        """How much n-grams count beside the model, known at the end of training."""
        return self.path / "ngrams.json"

    @property
    def canaries_file(self) -> Path:
        """The canaries planted in the training text."""
        return self.path / "canaries.json"

    @property
    def baselines_file(self) -> Path:
        """How simpler models do on the validation text."""
        return self.path / "baselines.json"

    @property
    def parts_file(self) -> Path:
        """Which documents are in the training text."""
        return self.path / "tokens" / "parts.safetensors"

    @property
    def recall_file(self) -> Path:
        """The results of `folio recall`."""
        return self.path / "recall.json"

    @property
    def recall_page(self) -> Path:
        """The results of `folio recall` as a page."""
        return self.path / "recall.html"

    @property
    def recall_text_file(self) -> Path:
        """The results of `folio recall --text FILE`, which looks in another text."""
        return self.path / "recall-text.json"

    @property
    def recall_text_page(self) -> Path:
        """The results of `folio recall --text FILE` as a page."""
        return self.path / "recall-text.html"

    @property
    def exports_folder(self) -> Path:
        """Exports for other programs."""
        return self.path / "export"

    @property
    def checkpoints_folder(self) -> Path:
        """One folder for each kept checkpoint."""
        return self.path / "checkpoints"

    def start_paths(self) -> list[Path]:
        """What a start may write before the recipe, with which this folder becomes a run."""
        texts = self.tokenizer_file, self.tokens_file("train").parent
        records = self.corpus_file, self.canaries_file, self.prediction_file
        weights = self.checkpoints_folder, self.ngram_weights_file
        origin = self.start_file, *weights, *map(self._pointer, POINTERS)
        return [*texts, *records, *origin, self.pace_file, self.asked_file]

    def tokens_file(self, part: str) -> Path:
        """The token file of a part.

        Parts: `train`, `validation`, `elsewhere` (out-of-domain text that was held out), `test`
        (held-out text that no choice depends on), `kept` and `old` (the training text and the
        held-out text of the run that this one began with), and `clean` (1 for each validation token
        that is new to the training text; missing if the tokenizer does not preserve the text).
        """
        return self.path / "tokens" / f"{part}.bin"

    def exists(self) -> bool:
        """Whether this folder is a run."""
        return self.recipe_file.is_file()

    def events(self, kind: str | None = None) -> list[Event]:
        """The events of metrics.jsonl, or those of one kind."""
        return read_events(self.metrics_file, kind)

    def corpus(self) -> dict[str, Any]:
        """The content of corpus.json."""
        record = read_json(self.corpus_file, dict)
        require_readable("corpus", record, self.corpus_file)
        for needed in ("ledger", "tokens"):  # now, and not at the end of a training
            record[needed]
        return record

    def families(self, part: str) -> Sequence[int]:
        """The family of similar documents of each text of a part; empty if it was not recorded."""
        return self.corpus().get("families", {}).get(part, ())

    def lock(self) -> AbstractContextManager[None]:
        """Lock the run for the one process that writes; raises UserError if there is another."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, self.path) from error
        return locked(self.lock_file, f"The run {self.path}")

    # ---- checkpoints ---------------------------------------------------------------------

    def newest(self) -> tuple[Checkpoint, list[str]]:
        """The newest checkpoint that can be read, and what is wrong with newer ones.

        Raises:
            UserError: there is none.
        """
        checkpoint, complaints = newest_checkpoint(self.checkpoints_folder, files=TO_READ)
        if checkpoint is None:
            detail = " ".join(complaints) or "It stopped before the first one was written."
            raise UserError(f"The run {self.path} has no usable checkpoint. {detail}")
        return checkpoint, complaints

    def checkpoint(self, which: str = "best") -> tuple[Checkpoint, list[str]]:
        """The checkpoint `best`, `last` or of a step; and complaints about damaged ones.

        A damaged best or last is replaced by the newest valid one; a step that the user named is
        not.
        """
        if which not in POINTERS:
            return open_checkpoint(self._step_path(which), TO_READ), []
        pointer = self._pointer(which)
        if which == "last" or not pointer.exists():
            return self.newest()
        try:
            entry = read_json(pointer, dict)
            require_readable("pointer", entry, pointer)
            return open_checkpoint(self.checkpoints_folder / entry["checkpoint"], TO_READ), []
        except UserError as error:
            checkpoint, complaints = self.newest()
            return checkpoint, list(dict.fromkeys([str(error), *complaints]))

    def point(self, which: str, step: int, validation_loss: float | None) -> None:
        """Make best.json or last.json point at a step."""
        entry = {"checkpoint": checkpoint_name(step), "step": step}
        entry |= {"validation_loss": validation_loss}
        write_json(self._pointer(which), stamped("pointer", entry))

    def _pointer(self, which: str) -> Path:
        return self.path / f"{which}.json"

    def _step_path(self, which: str) -> Path:
        there = [step_of(path) for path in list_checkpoints(self.checkpoints_folder)]
        if not which.isdecimal() or int(which) not in there:
            raise UserError(
                f"The run {self.path} has no checkpoint '{which}'. "
                f"Give best, last or one of {', '.join(map(str, there)) or 'no steps yet'}."
            )
        return self.checkpoints_folder / checkpoint_name(int(which))


def labels_of(runs: Sequence[Run]) -> list[str]:
    """The name of each run; its path, where another one is called so, as trials of two studies."""
    names = [run.name for run in runs]
    return [run.name if names.count(run.name) == 1 else str(run.path) for run in runs]


def list_runs(folder: Path | None = None) -> list[Run]:
    """All runs in a folder, sorted by last write."""
    folder = folder or runs_folder()
    if not folder.is_dir():
        return []
    runs = [Run(path) for path in folder.iterdir() if Run(path).exists()]
    return sorted(runs, key=lambda run: (_last_written(run), run.name))


def find_run(name: str | None) -> Run:
    """Find a run by name or path; without a name, the newest.

    Raises:
        UserError: no such run; the message names the nearest one.
    """
    runs = list_runs()
    if name is None:
        if not runs:
            raise UserError(f"There is no run in {runs_folder()}/. Make one with: folio train")
        return runs[-1]
    for path in (runs_folder() / name, Path(name)):
        if Run(path).exists():
            return Run(path)
    if Path(name).exists():
        raise UserError(f"{name} is not a run: it has no recipe.toml. Name a folder below runs/.")
    nearest = difflib.get_close_matches(name, [run.name for run in runs], n=1)
    hint = f"Did you mean '{nearest[0]}'?" if nearest else "folio runs lists what is there."
    raise UserError(f"There is no run '{name}'. {hint}")


def _last_written(run: Run) -> float:
    file = run.metrics_file if run.metrics_file.exists() else run.recipe_file
    return file.stat().st_mtime
