"""What a run's curves say, in words, with one command to try."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from folio.run.metrics import Event

Verdict = Literal[
    "healthy", "overfit", "by heart", "underfit", "diverging", "learning nothing", "too early"
]

OVERFIT_BY = 0.02
"""Rise of the validation loss above its best, as a share, that counts as overfitting. Seeds
differ by less than half of that on a million characters."""

STILL_FALLING = 0.02
"""Fall of the validation loss over the last half of a run, as a share, that says that it
ended too soon."""

NARROW_GAP = 0.05
"""Gap between validation and training loss, as a share, below which nothing is memorized."""

RISEN = 1.15
"""Training loss over its lowest, both averaged over a twentieth of the run, that says that
the steps are too large."""

NOTHING = 0.02
"""Nats per token that a model must be better than bare frequencies, to have learned."""

FEW_STEPS = 30
"""Before, a loss that does not rise says nothing yet."""


@dataclass(frozen=True)
class Diagnosis:
    """A verdict, the reason for it in numbers, and what to do."""

    verdict: Verdict
    reason: str
    command: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason} Try: {self.command}"


def diagnose(
    events: list[Event], frequency_loss: float, run: str, by_heart: dict[str, Any] | None = None
) -> Diagnosis:
    """Read the curves.

    Args:
        events: of metrics.jsonl.
        frequency_loss: of a model that knows only how often each token occurs, in nats.
        run: how commands name the run.
        by_heart: what by_heart.json has, of this end of the run; None where nobody looked.
    """
    steps = [event for event in events if event["event"] == "step"]
    evaluations = [event for event in events if event["event"] == "evaluation"]
    ends = [event for event in events if event["event"] == "end"]
    rate = ends[-1]["peak_learning_rate"] if ends else 1e-3
    other_rate = f"folio train {run}/recipe.toml --optimizer.learning-rate "
    if ends and ends[-1]["reason"] == "non-finite":
        return Diagnosis(
            "diverging",
            f"the loss or a gradient was not finite at step {ends[-1]['step']}.",
            f"{other_rate}{rate / 10:g}",
        )
    if not evaluations or not steps:
        return Diagnosis("too early", "there is no evaluation yet.", f"folio resume {run}")

    best = min(evaluations, key=lambda event: event["validation_loss"])
    last = evaluations[-1]
    validation, training = last["validation_loss"], last["training_loss"]
    smooth = smoothed([event["loss"] for event in steps])
    frequencies = f"{frequency_loss:.3f}, which is that of bare token frequencies"

    worse_than_at_first = smooth[-1] > smooth[0] and training > frequency_loss
    if smooth[-1] > min(smooth) * RISEN or worse_than_at_first:
        return Diagnosis(
            "diverging",
            f"the training loss rose from {min(smooth):.3f} to {smooth[-1]:.3f}, where bare token "
            f"frequencies give {frequency_loss:.3f}.",
            f"{other_rate}{rate / 10:g}",
        )
    if best["validation_loss"] > frequency_loss - NOTHING and training > frequency_loss - NOTHING:
        if last["step"] < FEW_STEPS and smooth[-1] <= smooth[0]:
            return Diagnosis(
                "too early",
                f"a validation loss of {validation:.3f} after so few steps says little; the first "
                f"aim is {frequencies}.",
                f"folio resume {run} --minutes 10",
            )
        return Diagnosis(
            "learning nothing",
            f"the validation loss {best['validation_loss']:.3f} is no better than {frequencies}.",
            f"{other_rate}{rate * 10 if rate < 1e-3 else rate / 10:g}",
        )
    if validation > best["validation_loss"] * (1 + OVERFIT_BY):
        return Diagnosis(
            "overfit",
            f"since step {best['step']} the validation loss rose from "
            f"{best['validation_loss']:.3f} to {validation:.3f}, while the training loss is "
            f"{training:.3f}. The best checkpoint is kept and used.",
            f"folio train {run}/recipe.toml --model.residual-dropout 0.2 "
            f"--training.max-steps {best['step']}",
        )
    if by_heart and by_heart["alarming"]:
        known, new = by_heart["known"], by_heart["new"]
        return Diagnosis(
            "by heart",
            f"it says {known['count']} of {known['of']} passages of its training text word for "
            f"word, and {new['count']} of {new['of']} of new text. The "
            f"training loss is {training:.3f}, the validation loss {validation:.3f}.",
            f"folio train {run}/recipe.toml --model.residual-dropout 0.2 "
            f"--training.max-steps {max(last['step'] // 4, 1)}",
        )
    earlier = [e for e in evaluations if e["step"] <= last["step"] / 2]
    fall = (earlier[-1]["validation_loss"] - validation) / validation if earlier else 1.0
    if fall > STILL_FALLING and validation - training < NARROW_GAP * validation:
        return Diagnosis(
            "underfit",
            f"the validation loss {validation:.3f} was still falling, and the training loss "
            f"{training:.3f} is hardly below it: it has not seen enough.",
            f"folio resume {run} --minutes 10",
        )
    return Diagnosis(
        "healthy",
        f"the validation loss {validation:.3f} came down to its best and stayed; the training "
        f"loss is {training:.3f}.",
        f"folio sample {run}",
    )


def smoothed(losses: list[float], pieces: int = 20) -> list[float]:
    """Means over consecutive pieces of a series, since single batches differ.

    >>> smoothed([1.0, 3.0, 4.0, 6.0], pieces=2)
    [2.0, 5.0]
    """
    pieces = min(pieces, len(losses))
    edges = [round(i * len(losses) / pieces) for i in range(pieces + 1)]
    return [sum(losses[a:b]) / (b - a) for a, b in pairwise(edges)]
