"""The held-out texts of a run, and the model's loss on each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.console import percent
from folio.device import Device
from folio.evaluation.score import Score
from folio.evaluation.uncertainty import TELLING, standard_error, text_blocks
from folio.run.directory import Run
from folio.run.in_window import scores_with_window
from folio.run.model import Model
from folio.storage import read_json
from folio.tokenizers.base import TokenIds
from folio.tokens.loss_mask import open_loss_masks
from folio.tokens.token_file import open_token_file

OLD_TEXT = "old text"
"""Name of the text held out by the run that this one began with."""
OLD_TARGETS = 1 << 17
"""Of that text, which are read before training and after it, in windows evenly spaced."""
BEFORE = ", before"
"""Suffix of a text's name for the loss of the weights that the run began with."""
ALONE = ", without n-grams"
"""Suffix of a text's name for the loss of a model alone that is read beside n-grams."""
NAMES = {"elsewhere": "out-of-domain", "old": OLD_TEXT}
"""Token file -> name of its text, if different."""

OLD_NAMES = {"clean part": "novel subset", "elsewhere": "out-of-domain"}
"""Names in older files -> names of today."""


@dataclass(frozen=True)
class HeldOut:
    """An exact loss on a held-out text."""

    name: str
    """`validation`: all of that text; `novel subset`: the part of it that is new to the training
    text; `out-of-domain`: the text of `--validation`; `test`: text that no choice depends on; `old
    text`: the validation text of the run that this one began with."""
    targets: int
    nats_per_token: float
    standard_error: float
    """Standard error of that loss over texts, not over tokens; infinite for a single stretch."""
    unknown_share: float = 0.0
    """Share of its targets that the vocabulary does not have, 0 to 1."""

    @property
    def is_before(self) -> bool:
        """Whether it is the loss of the weights that a run began with."""
        return self.name.endswith(BEFORE)

    def record(self) -> dict[str, Any]:
        """Return its entry in held_out.json."""
        record = asdict(self) | {"protocol": "exact"}
        return {k: v for k, v in record.items() if k != "unknown_share" or v}

    def __str__(self) -> str:
        unknown = f", {percent(self.unknown_share)} of them unknown" if self.unknown_share else ""
        return (
            f"{self.nats_per_token:.4f} ± {self.standard_error:.4f} nats per token "
            f"({self.targets:,} targets{unknown})"
        )


def read_held_out(run: Run) -> list[HeldOut]:
    """The content of held_out.json; empty if there is none."""
    if not run.held_out_file.exists():
        return []
    names = [field.name for field in fields(HeldOut)]
    records = read_json(run.held_out_file, list)
    found = [
        HeldOut(**{name: x for name, x in record.items() if name in names}) for record in records
    ]
    return [replace(text, name=OLD_NAMES.get(text.name, text.name)) for text in found]


def evaluate_held_out(
    opened: Model,
    device: Device | None = None,
    validation_nll: NDArray[np.float32] | None = None,
    sample: int = 0,
) -> list[HeldOut]:
    """Score each held-out text of a run once, in windows side by side.

    Args:
        opened: the run.
        device: as in `Model.score`.
        validation_nll: (N - 1,) nats of the validation targets, if they are known already; nan
            where they were not read.
        sample: targets of each text that are read, in windows evenly spaced; 0 reads all.
    """
    run, validation = opened.run, opened.validation()
    if len(validation) < 2:
        return []
    nll = validation_nll
    if nll is None:
        nll = opened.nats(validation, device, sample)
    blocks = _blocks(opened, validation, run.families("validation"))
    counted = _counted(opened, "validation", nll)
    texts = [_held_out("validation", opened, validation, nll, blocks, counted)]
    if run.tokens_file("clean").exists():
        clean = (open_token_file(run.tokens_file("clean"))[1:] == 1) & counted
        if 0 < clean.sum() < counted.sum():
            texts.append(_held_out("novel subset", opened, validation, nll, blocks, clean))
    others = [evaluate_on(opened, name, device, sample) for name in ("elsewhere", "test")]
    others += [evaluate_on(opened, "old", device, OLD_TARGETS)]  # as before training
    return texts + [text for text in others if text]


def evaluate_alone(
    opened: Model,
    device: Device | None = None,
    validation_nll: NDArray[np.float32] | None = None,
    sample: int = 0,
) -> list[HeldOut]:
    """Score new and old text without n-grams, to be compared with the loss before training; as
    `evaluate_held_out`.
    """
    new = evaluate_on(opened, "validation", device, sample, validation_nll)
    old = evaluate_on(opened, "old", device, OLD_TARGETS)
    return [replace(text, name=text.name + ALONE) for text in (new, old) if text]


def evaluate_on(
    opened: Model,
    name: str,
    device: Device | None = None,
    sample: int = 0,
    nll: NDArray[np.float32] | None = None,
) -> HeldOut | None:
    """Score the text of one token file of a run; None if the run has no such file. `sample` as in
    `evaluate_held_out`, `nll` as its `validation_nll`.
    """
    path = opened.run.tokens_file(name)
    tokens = open_token_file(path, opened.tokenizer.fingerprint) if path.exists() else ()
    if len(tokens) < 2:
        return None
    nll = opened.nats(tokens, device, sample) if nll is None else nll
    blocks = _blocks(opened, tokens, opened.run.families(name))
    if not (counted := _counted(opened, name, nll)).any():
        return None
    return _held_out(NAMES.get(name, name), opened, tokens, nll, blocks, counted)


def _counted(opened: Model, name: str, nll: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N - 1,) which targets of a text count and were read."""
    was_read, counted = ~np.isnan(nll), counted_targets(opened, name)
    return was_read if counted is None else was_read & counted


def counted_targets(opened: Model, name: str) -> NDArray[np.bool_] | None:
    """(N - 1,) which targets of a text count; None if all do."""
    files = {name: opened.run.tokens_file(f"{name}.mask")}
    masks = open_loss_masks(files, opened.tokenizer.fingerprint)
    return masks[name][1:] == 1 if name in masks else None


def score_validation(
    opened: Model, device: Device | None, most: float = math.inf
) -> tuple[list[Score], NDArray[np.float32]]:
    """`scores_with_window` of the targets that count in the validation text."""
    families, counted = opened.run.families("validation"), counted_targets(opened, "validation")
    return scores_with_window(opened, opened.validation(), families, device, counted, most)


def too_small(texts: Sequence[HeldOut]) -> str:
    """A warning if the validation text is too small to tell models apart; else empty."""
    for text in texts[:1]:
        if 2 * text.standard_error > TELLING * text.nats_per_token:
            return (
                f"the validation text is small: its loss is known to ±{2 * text.standard_error:.3f}"
                f", so models that differ by less on it cannot be told apart. Give more text."
            )
    return ""


def _blocks(opened: Model, tokens: TokenIds, families: Sequence[int]) -> NDArray[np.int64]:
    """(N - 1,) the cluster of each target."""
    return text_blocks(tokens, opened.tokenizer.end_of_document, families)[1:]


def _held_out(
    name: str,
    opened: Model,
    tokens: TokenIds,
    nll: NDArray[np.float32],
    blocks: NDArray[np.int64],
    counted: NDArray[np.bool_],
) -> HeldOut:
    """Sum up the targets that count; all arrays are (N - 1,), of (N,) tokens."""
    each = nll[counted].astype(np.float64)
    error = standard_error(each, blocks[counted])
    unknown = opened.tokenizer.unknown
    n_unknown = 0 if unknown is None else np.count_nonzero(tokens[1:][counted] == unknown)
    return HeldOut(name, len(each), float(each.mean()), error, n_unknown / len(each))
