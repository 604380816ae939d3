"""What a loss is worth: what simpler things make of the same held-out text (baselines.json)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from folio.evaluation.compressors import PPMD_ORDER, has_ppmd, ppmd_bits, xz_bits
from folio.evaluation.ngrams import FIRST_ORDER, ngram_surprise, order_for
from folio.run.directory import Run
from folio.storage import read_json, write_json
from folio.tokens.text import BREAK, Symbols, TokenText, to_bytes

if TYPE_CHECKING:  # a card is drawn without loading torch
    from folio.evaluation.score import Score
    from folio.run.opening import Model

LITTLE = 6_000_000
"""Symbols of training text up to which a run measures n-grams at its end; a few seconds."""


@dataclass(frozen=True)
class Baseline:
    """One of them, on all of the validation text."""

    name: str
    kind: str
    """`static`: trained on the training part alone, as the model is. `adaptive`: it goes on
    learning from the held-out text as it reads it, as the model does not."""
    nats_per_character: float
    bits_per_byte: float
    nats_per_token: float
    """Over the targets of the model's exact loss, to be compared with it."""

    def record(self) -> dict[str, Any]:
        """For baselines.json."""
        return asdict(self)


@dataclass(frozen=True)
class _HeldOut:
    """A text and its size, in the units of a loss."""

    symbols: Symbols
    characters: int
    n_bytes: int
    targets: int

    def baseline(self, name: str, kind: str, nats: float) -> Baseline:
        bits = nats / math.log(2) / self.n_bytes
        return Baseline(name, kind, nats / self.characters, bits, nats / self.targets)


def measure_baselines(
    opened: Model, tell: Callable[[str], None] = lambda line: None, quick: bool = False
) -> list[Baseline]:
    """Try each on the validation text of a run.

    Args:
        opened: the run.
        tell: hears what is being done, and what could not be.
        quick: n-grams of the usual order, and no compressors.

    Returns:
        In the order of what they know; none where there is no validation text.
    """
    training = TokenText(opened.training(), opened.tokenizer)
    validation = TokenText(opened.validation(), opened.tokenizer)
    if validation.n_characters == 0 or len(validation.tokens) < 2:
        return []
    symbols = validation.between(0, len(validation))
    n_bytes = int(np.count_nonzero(symbols != BREAK))
    held_out = _HeldOut(symbols, validation.n_characters, n_bytes, len(validation.tokens) - 1)
    uniform, frequencies = _characters(training, validation)
    found = [
        held_out.baseline("every character as likely", "static", uniform),
        held_out.baseline("character frequencies", "static", frequencies),
    ]
    order = FIRST_ORDER
    if not quick:
        tell("n-grams: which order")
        order = order_for(training)
    tell(f"n-grams of {order} bytes")
    for kind, nats in ngram_surprise(training.chunks(), symbols, order).items():
        found.append(held_out.baseline(f"n-grams of {order}", kind, float(nats.sum())))
    if not quick:
        before = b"".join(map(to_bytes, training.chunks())) + b"\0"
        text = to_bytes(symbols)
        tell("xz")
        found.append(held_out.baseline("xz -9e", "adaptive", xz_bits(before, text) * math.log(2)))
        if has_ppmd():
            tell("PPMd")
            nats = ppmd_bits(before, text) * math.log(2)
            found.append(held_out.baseline(f"PPMd, order {PPMD_ORDER}", "adaptive", nats))
        else:
            tell("PPMd is not installed: pip install 'foliolm[baselines]'")
    return found


def write_baselines(run: Run, baselines: list[Baseline]) -> None:
    """Keep them beside the run's curves."""
    write_json(run.baselines_file, [baseline.record() for baseline in baselines])


def read_baselines(run: Run) -> list[Baseline]:
    """Take them back; none where nobody measured them."""
    if not run.baselines_file.exists():
        return []
    return [Baseline(**record) for record in read_json(run.baselines_file)]


def compare(score: Score, baselines: list[Baseline]) -> str:
    """What a model's exact loss is worth, in a sentence."""
    loss = score.nats_per_token
    compressors = [b for b in baselines if b.name.startswith("PPMd")]
    tables = [b for b in baselines if b.name.startswith("n-grams") and b.kind == "static"]
    ppmd, table = (of[0] if of else None for of in (compressors, tables))

    def gap(other: Baseline) -> str:
        share = loss / other.nats_per_token - 1
        return f"{abs(share):.0%} {'below' if share < 0 else 'above'} {other.name}"

    if ppmd is not None and loss < ppmd.nats_per_token:
        return (
            f"Your model is {gap(ppmd)}, which even learns from the text as it reads it: it "
            f"learned more than spelling."
        )
    if table is not None and loss < table.nats_per_token:
        more = f", and {gap(ppmd)}, which learns from the text as it reads it" if ppmd else ""
        return f"Your model is {gap(table)}: it learned more than a table of spellings knows{more}."
    if table is not None:
        return (
            f"Your model is {gap(table)}: a table of spellings predicts this text better. It has "
            f"not read enough, or is too small."
        )
    return ""


def _characters(training: TokenText, validation: TokenText) -> tuple[float, float]:
    """Nats of a text where every character is as likely, and where each is as in training."""
    counts = sum(map(_code_points, training.pieces()), np.zeros(0x110000, np.int64))
    there = sum(map(_code_points, validation.pieces()), np.zeros(0x110000, np.int64))
    n_kinds = np.count_nonzero(counts) + 1  # and one for all that are new
    chances = np.maximum(counts, 1) / (counts.sum() + 1)
    used = there > 0
    return float(there.sum() * np.log(n_kinds)), float(-(there[used] @ np.log(chances[used])))


def _code_points(piece: str) -> np.ndarray:
    codes = np.frombuffer(piece.encode("utf-32-le", errors="replace"), np.uint32)
    return np.bincount(codes, minlength=0x110000)
