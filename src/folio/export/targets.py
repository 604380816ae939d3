"""Every format that a run leaves in, by its name; and what is the same for all of them.

A format of your own is an entry in `TARGETS`, and one file.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from folio.config import unknown_name
from folio.errors import UserError
from folio.export.gguf import GGUF
from folio.export.hf import HF
from folio.export.ngrams import left_out, stay_behind, without_ngrams
from folio.export.page import HTML
from folio.export.target import Exported, Target
from folio.export.verify import Verified, verify
from folio.fast.written_for import comes_from
from folio.run.model import Model
from folio.run.own_code import OwnCode
from folio.storage import rename, storage_error

TARGETS: dict[str, Target] = {"hf": HF, "gguf": GGUF, "html": HTML}


def export_run(
    opened: Model, to: str, kind: str = "", out: Path | None = None, alone: bool = False
) -> tuple[Path, Exported, Verified]:
    """Write a run for another program, read it back, and compare the two.

    Args:
        opened: the run.
        to: a name in TARGETS.
        kind: type of the weights; empty takes the target's first.
        out: where to; a file or folder beside the run's checkpoints where none is given.
        alone: leave out the n-grams beside the model, if there are some.

    Returns:
        What was written where, and how far it is from the run.

    Raises:
        UserError: the target cannot say this run, or does not say it right, or it has code that is
            not Folio's, or files of something else would be replaced. Nothing is left then.
    """
    if to not in TARGETS:
        raise UserError(unknown_name("target", to, TARGETS) + f" There are {', '.join(TARGETS)}.")
    target = TARGETS[to]
    kind = kind or target.types[0]
    if kind not in target.types:
        types = ", ".join(target.types)
        raise UserError(f"--type must be one of {types} for {to}, got {kind}.")
    _require_ours(opened)
    if alone:
        opened = without_ngrams(opened)
    name = target.default_name(opened.run, kind)
    final = out or opened.run.exports_folder / name
    if Path(name).suffix and final.suffix != Path(name).suffix:  # a folder for the file
        if final.is_file():
            ending = Path(name).suffix
            raise UserError(f"--out must end in {ending} or be a folder, and {final} is a file.")
        final = final / name
    if final.name == "..":  # beside which nothing can be staged
        final = final.resolve()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=final.parent) as folder:
            staged = Path(folder) / final.name
            exported = target.write(opened, kind, staged)
            verified = verify(opened, target.read(staged), kind, exported.tolerance)
            _move(Path(folder), final.parent, replace=out is None or target.is_ours(final))
    except OSError as error:
        raise storage_error(error, final) from error
    if (record := left_out(opened)) is not None:
        exported = replace(exported, notes=[stay_behind(record), *exported.notes])
    return final, exported, verified


def _require_ours(opened: Model) -> None:
    """Refuse what no other program computes. Reading it back would not show that: here it is read
    by the same code.

    Raises:
        UserError: a layer, a function of the model or the tokenizer is not Folio's own.
    """
    code, tokenizer = OwnCode.of(opened.model), type(opened.tokenizer)
    others = [f"{name} as {place}" for place, name in (code.layers | code.functions).items()]
    others += [f"an edited {name}" for name in code.sources if name.startswith("folio.")]
    if not comes_from(tokenizer, "folio"):
        others.append(f"{tokenizer.__qualname__} as its tokenizer")
    if others:
        raise UserError(
            f"Other programs compute what Folio does, and this run has {others[0]}. Sample it "
            f"here, or train a run without that to export it."
        )


def _move(source: Path, target: Path, replace: bool) -> None:
    """Have every file of a folder in another, in place of those of the same names.

    Raises:
        UserError: one is there that may not be replaced; then none is moved.
    """
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    moves = {path: target / path.relative_to(source) for path in files}
    there = next(filter(Path.exists, moves.values()), None)
    if there is not None and not replace:
        raise UserError(
            f"{there} would be replaced, and no export wrote it. Name a folder of its own: "
            f"--out FOLDER"
        )
    for path, final in moves.items():
        final.parent.mkdir(parents=True, exist_ok=True)
        rename(path, final)
