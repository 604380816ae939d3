"""Events of a run -> the numbers that loggers show, by name.

A name is the kind of event and the field in the run's own files: `evaluation/validation_loss` is
that of metrics.jsonl, `learned/letters` that of learned.jsonl, `held_out/test` that of
held_out.json.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from folio.run.held_out import HeldOut
from folio.run.metrics import Event

SHOWN = {
    "step": ("train", ("loss", "learning_rate", "gradient_norm", "tokens")),
    "evaluation": (
        "evaluation",
        ("validation_loss", "standard_error", "training_loss", "best_validation_loss"),
    ),
    "learned": ("learned", ("memory_bytes",)),
}
"""Kind of event -> the first part of its names, and the fields that are shown."""


def values_of(event: Event, before: Event | None) -> dict[str, float]:
    """The numbers of an event; those that are not finite are left out.

    Args:
        event: a line of metrics.jsonl or learned.jsonl.
        before: the line of metrics.jsonl before it, after which the tokens per second are counted.

    >>> step = {"event": "step", "step": 2, "tokens": 80, "seconds": 4.0, "loss": 1.5}
    >>> values_of(step, {"event": "step", "step": 1, "tokens": 40, "seconds": 2.0})
    {'train/loss': 1.5, 'train/tokens': 80, 'train/tokens_per_second': 20.0}
    """
    prefix, fields = SHOWN.get(event["event"], ("", ()))
    found = {field: event[field] for field in fields if field in event}
    for groups in ("classes", "places"):
        found |= {group: loss for group, (loss, _) in event.get(groups, {}).items()}
    if event["event"] == "step":
        start = before or {"tokens": 0, "seconds": 0.0}
        if (seconds := event["seconds"] - start["seconds"]) > 0:
            found["tokens_per_second"] = (event["tokens"] - start["tokens"]) / seconds
    return _named(prefix, found)


def held_out_values(texts: Iterable[HeldOut]) -> dict[str, float]:
    """The final losses on the held-out texts, with their standard errors.

    >>> held_out_values([HeldOut("test, last step", 100, 1.5, 0.25)])
    {'held_out/test_last_step': 1.5, 'held_out/test_last_step_standard_error': 0.25}
    """
    found = dict[str, float]()
    for text in texts:
        found |= {
            text.name: text.nats_per_token,
            f"{text.name} standard error": text.standard_error,
        }
    return _named("held_out", found)


def _named(prefix: str, found: Mapping[str, Any]) -> dict[str, float]:
    """With names that every logger takes."""
    words = {re.sub(r"\W+", "_", name): value for name, value in found.items()}
    return {
        f"{prefix}/{word}": value
        for word, value in words.items()
        if value is not None and math.isfinite(value)
    }
