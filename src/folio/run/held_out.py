"""The texts that a run held out, and what its model makes of each, with the error of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.score import exact_windows, surprise_of_each
from folio.evaluation.uncertainty import TELLING, standard_error, text_blocks
from folio.run.opening import OpenRun
from folio.tokenizers.base import TokenIds
from folio.tokens.token_file import open_token_file


@dataclass(frozen=True)
class HeldOut:
    """A loss on a held-out text, exact."""

    name: str
    """`validation`: all of that text; `clean part`: what of it is new to the training text;
    `elsewhere`: held-out text of another kind; `test`: text that nothing was chosen by."""
    targets: int
    nats_per_token: float
    standard_error: float
    """Of that loss over texts of the kind, not over tokens; infinite for a single stretch."""

    def record(self) -> dict[str, Any]:
        """For held_out.json."""
        return asdict(self) | {"protocol": "exact"}

    def __str__(self) -> str:
        return (
            f"{self.nats_per_token:.4f} ± {self.standard_error:.4f} nats per token "
            f"({self.targets:,} targets)"
        )


def evaluate_held_out(opened: OpenRun) -> list[HeldOut]:
    """Read each held-out text of a run once, in windows side by side."""
    run, families = opened.run, opened.run.corpus().get("families", {})
    validation = opened.validation()
    if len(validation) < 2:
        return []
    surprise, blocks = _read(opened, validation, families.get("validation", ()))
    target = ~np.isnan(surprise)
    texts = [_held_out("validation", surprise, blocks, target)]
    if run.tokens_file("clean").exists():
        clean = target & (open_token_file(run.tokens_file("clean")) == 1)
        if 0 < clean.sum() < target.sum():
            texts.append(_held_out("clean part", surprise, blocks, clean))
    return texts + [text for name in ("elsewhere", "test") if (text := evaluate_on(opened, name))]


def evaluate_on(opened: OpenRun, name: str) -> HeldOut | None:
    """Read the text of one token file of a run; None where it has none."""
    path = opened.run.tokens_file(name)
    tokens = open_token_file(path, opened.tokenizer.fingerprint) if path.exists() else ()
    if len(tokens) < 2:
        return None
    families = opened.run.corpus().get("families", {}).get(name, ())
    surprise, blocks = _read(opened, tokens, families)
    return _held_out(name, surprise, blocks, ~np.isnan(surprise))


def too_small(texts: Sequence[HeldOut]) -> str:
    """A warning where the validation text is too small to tell models apart; else empty."""
    for text in texts[:1]:
        if 2 * text.standard_error > TELLING * text.nats_per_token:
            return (
                f"the validation text is small: its loss is known to ±{2 * text.standard_error:.3f}"
                f", so models that differ by less on it cannot be told apart. Give more text."
            )
    return ""


def _read(
    opened: OpenRun, tokens: TokenIds, families: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    windows = exact_windows(len(tokens), opened.model.config.context_length)
    surprise = surprise_of_each(opened.fast_model(), tokens, windows)
    return surprise, text_blocks(tokens, opened.tokenizer.end_of_document, families)


def _held_out(
    name: str,
    surprise: NDArray[np.float32],
    blocks: NDArray[np.int64],
    where: NDArray[np.bool_],
) -> HeldOut:
    chosen = surprise[where].astype(np.float64)
    return HeldOut(name, len(chosen), float(chosen.mean()), standard_error(chosen, blocks[where]))
