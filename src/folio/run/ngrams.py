"""The n-grams beside a run's model, as add_ngrams.py left them; free of torch, without which a run
writes, and at first of numpy, without which runs are listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from folio.ngrams.weights import Weights
from folio.records import DamagedError
from folio.run.directory import Run
from folio.storage import read_json

if TYPE_CHECKING:
    from folio.ngrams.table import NGrams
    from folio.ngrams.window import WindowRule


def read_ngrams(run: Run) -> tuple[NGrams, Weights, WindowRule | None] | None:
    """Read the n-grams of a run, their weights, and how much the window counts; None if it has
    none, or they were not weighed yet.

    Raises:
        UserError: they are damaged.
    """
    from folio.ngrams.table import NGrams
    from folio.ngrams.window import WindowRule

    if (record := read_ngram_weights(run)) is None:
        return None
    try:
        weights, found = Weights.of(record["weights"]), record.get("window")
        rule = WindowRule(float(found["k"]), int(found["shortest"])) if found else None
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(run.ngram_weights_file, f"it lacks {error}") from None
    return NGrams.load(run.ngrams_file), weights, rule


def read_ngram_weights(run: Run) -> dict[str, Any] | None:
    """Read ngrams.json; None if the run has none."""
    return read_json(run.ngram_weights_file, dict) if run.ngram_weights_file.exists() else None


def told_loss(record: Mapping[str, Any]) -> float:
    """Nats per token of the held-out text, as the run reads it; `record` as in `in_words`."""
    return record["window"]["loss"] if "window" in record else record["with"]


def in_words(record: Mapping[str, Any]) -> str:
    """Say what n-grams do for a model.

    Args:
        record: the content of ngrams.json.
    """
    weights = record["weights"]
    return (
        f"{record['ngrams']:,} of up to {record['order']} tokens, to the power of "
        f"{weights['ngrams']:.2f} beside the model's {weights['model']:.2f}: {both_losses(record)}"
    )


def both_losses(record: Mapping[str, Any]) -> str:
    """Say the losses without and with n-grams; `record` as in `in_words`."""
    window = f", {told_loss(record):.4f} with the window" if "window" in record else ""
    return (
        f"validation {record['without']:.4f} nats per token without them, "
        f"{record['with']:.4f} with them{window}"
    )
