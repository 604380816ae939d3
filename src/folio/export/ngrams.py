"""The n-grams beside a run's model, as they leave with it, or stay behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from folio.model.gpt import GPT
from folio.ngrams.gpt import GPTWithNGrams
from folio.ngrams.table import NGrams
from folio.ngrams.weights import Weights
from folio.run.model import Model
from folio.run.ngrams import both_losses, read_ngram_weights


class Counted(NamedTuple):
    """The n-grams of a training text, and how they are read beside a model."""

    ngrams: NGrams
    weights: Weights
    record: Mapping[str, Any]
    """The content of ngrams.json, which tells the losses with and without them, too."""


def ngrams_of(opened: Model) -> Counted | None:
    """Return the n-grams that a model is read beside; None if it is read alone."""
    model = opened.model
    if not isinstance(model, GPTWithNGrams):
        return None
    record = read_ngram_weights(opened.run)
    assert record is not None  # by which the run was opened with n-grams
    return Counted(model.ngrams, model.weights, record)


def without_ngrams(opened: Model) -> Model:
    """Return a run with its model alone."""
    if ngrams_of(opened) is None:
        return opened
    model = GPT(opened.model.config)
    model.load_state_dict(opened.model.state_dict())
    return replace(opened, model=model.eval().requires_grad_(False))


def left_out(opened: Model) -> dict[str, Any] | None:
    """Read ngrams.json of a run whose model was opened without its n-grams; None for others."""
    return None if ngrams_of(opened) else read_ngram_weights(opened.run)


def go_along(ngrams: NGrams) -> str:
    """Say what leaves with n-grams."""
    return (
        f"{len(ngrams):,} n-grams go along, which hold the training text up to {ngrams.order} "
        f"tokens at a time: whoever gets the export can read pieces of the text out of it"
    )


def stay_behind(record: Mapping[str, Any]) -> str:
    """Say what is lost without n-grams.

    Args:
        record: the content of ngrams.json.
    """
    return f"the {record['ngrams']:,} n-grams beside the model are left out: {both_losses(record)}"
