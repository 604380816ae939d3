"""Diagnoses a run from its curves, in words, with one command to try."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Literal

from folio.evaluation.shares import of_new_text
from folio.run.metrics import Event, of_kind, order_of

Verdict = Literal[
    "healthy", "overfit", "by heart", "underfit", "diverging", "learning nothing", "too early"
]

OVERFIT_BY = 0.02
"""Relative rise of the validation loss above its best that counts as overfitting. Seeds differ by
less than half of that on a million characters."""

STILL_FALLING = 0.02
"""Relative fall of the validation loss over the last half of a run that shows that it ended too
soon."""

NARROW_GAP = 0.05
"""Relative gap between validation and training loss below which nothing is memorized."""

RISEN = 1.15
"""Training loss over its lowest, both averaged over a twentieth of the run, that says that
the steps are too large."""

RISEN_BY_CHANCE = 4.0
"""Standard errors of a rise between two of those averages, below which it may be chance alone: the
last of twenty is above the lowest of them by 2 such errors on the mean where nothing changes, and
by 4 once in more than a thousand runs."""

RISEN_LEAST = 0.02
"""The same as a share of the loss of bare frequencies: a loss of 0.001 that becomes 0.003 is no
divergence."""

FAR_BELOW = 0.5
"""Training loss over validation loss, below which what the model learned does not carry over to new
text, whether or not the validation loss has begun to rise. Assumption: runs whose validation loss
was still falling had 0.6 and more."""

NOTHING = 0.02
"""Nats per token that a model must be better than bare frequencies, to have learned."""

FEW_STEPS = 30
"""Before this step, a loss that does not rise says nothing yet."""


@dataclass(frozen=True)
class Diagnosis:
    """A verdict, the numbers behind it, and what to do next."""

    verdict: Verdict
    reason: str
    command: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason} Try: {self.command}"


@dataclass(frozen=True)
class Curves:
    """What the rules read, from events that have a step and an evaluation."""

    training: list[float]
    """Means of the training loss over twentieths of the run."""
    noise: float
    """Standard error of the difference of two of them, as far as batches differ."""
    evaluations: list[Event]
    frequency_loss: float
    ending: str
    """The reason in the last `end` event; `interrupted` if there is none."""
    by_heart: Mapping[str, Any] | None = None
    """Content of by_heart.json for this end of the run; None if it was not measured."""

    @property
    def last(self) -> Event:
        return self.evaluations[-1]

    @property
    def best(self) -> Event:
        return min(self.evaluations, key=order_of)


def diagnose(
    events: list[Event],
    frequency_loss: float,
    run: str,
    recipe: Mapping[str, Any] | None = None,
    by_heart: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Diagnose a run from its curves.

    Args:
        events: the events of metrics.jsonl.
        frequency_loss: loss in nats of a model that knows only how often each token occurs.
        run: the run's name in commands.
        recipe: the table of its settings, used for advice.
        by_heart: content of by_heart.json for this end of the run; None if it was not measured.
    """
    ends = of_kind(events, "end")
    commands = Commands(run, recipe or {}, ends[-1]["peak_learning_rate"] if ends else 1e-3)
    losses = [event["loss"] for event in of_kind(events, "step")]
    curves = Curves(
        training=smoothed(losses),
        noise=noise_of_difference(losses),
        evaluations=of_kind(events, "evaluation"),
        frequency_loss=frequency_loss,
        ending=ends[-1]["reason"] if ends else "interrupted",
        by_heart=by_heart,
    )
    if curves.ending == "non-finite":
        return _not_finite(curves, ends[-1]["step"], commands)
    if not curves.evaluations:
        return Diagnosis("too early", "there is no evaluation yet.", commands.longer(curves.ending))
    if not curves.training:
        return _too_early(curves, commands)
    rules = (
        _diverging,
        _nothing,
        _overfit,
        _by_heart,
        _interrupted,
        _unsure,
        _nothing_new,
        _underfit,
    )
    for rule in rules:
        if found := rule(curves, commands):
            return found
    best = curves.best
    stopped = " and was no better since" if curves.ending == "patience" else ""
    return Diagnosis(
        "healthy",
        f"the validation loss came down to {best['validation_loss']:.3f} at step {best['step']}"
        f"{stopped}; the training loss is {curves.last['training_loss']:.3f}.",
        commands.sample(),
    )


@dataclass(frozen=True)
class Commands:
    """Commands that may help a run, as lines for a shell."""

    run: str
    recipe: Mapping[str, Any]
    peak_rate: float

    def sample(self) -> str:
        """Let the run write a sample."""
        return f"folio sample {shlex.quote(self.run)}"

    def longer(self, ending: str = "finished") -> str:
        """Continue to the end of its budget, or beyond it."""
        more = "" if ending == "interrupted" else " --minutes 10"
        return f"folio resume {shlex.quote(self.run)}{more}"

    def anew(self, **settings: Any) -> str:
        """Train another run with some settings changed; `__` stands for the dot."""
        flags = (
            f" --{name.replace('__', '.').replace('_', '-')} "
            f"{value if isinstance(value, int) else format(value, 'g')}"
            for name, value in settings.items()
        )
        return f"folio train {shlex.quote(self.run + '/recipe.toml')}{''.join(flags)}"

    def look_at_text(self) -> str:
        """Show the text that was read."""
        sources = self.recipe.get("corpus", {}).get("sources", [])
        return shlex.join(["folio", "corpus", *(source for source in sources if source != "-")])

    def other_rate(self, factor: float) -> str:
        """Train another run with other learning rates, both of Muon's."""
        optimizer = self.recipe.get("optimizer", {})
        rates = {"optimizer__learning_rate": self.peak_rate * factor}
        if optimizer.get("kind") == "muon" and "matrix_learning_rate" in optimizer:
            rates["optimizer__matrix_learning_rate"] = optimizer["matrix_learning_rate"] * factor
        return self.anew(**rates)

    def regularized(self, **settings: Any) -> str:
        """Train another run with more dropout."""
        now = self.recipe.get("model", {}).get("residual_dropout", 0.0)
        return self.anew(model__residual_dropout=min(round(now + 0.2, 2), 0.5), **settings)


def counts_as_worse(loss: float, best: float, standard_error: float | None) -> bool:
    """Whether a validation loss is above the best one by more than its standard error.

    Args:
        loss, best: in nats per token.
        standard_error: standard error of the loss over texts; if it is None or not finite, as for a
            single text, each rise counts.

    >>> counts_as_worse(1.52, 1.50, 0.024), counts_as_worse(1.53, 1.50, 0.024)
    (False, True)
    """
    known = standard_error is not None and math.isfinite(standard_error)
    return not loss <= best + (standard_error if known and standard_error else 0.0)


def stale_evaluations(before: int, loss: float, best: float, standard_error: float | None) -> int:
    """Evaluations that count towards `training.patience`, including a new one.

    A better loss resets the count, a rise within the error is ignored, any other adds one.

    Args:
        before: the count so far.
        loss, best, standard_error: as in counts_as_worse; the best one before this evaluation.
    """
    if loss < best:
        return 0
    return before + counts_as_worse(loss, best, standard_error)


# ---- the rules: the first with a result is the verdict ---------------------------------------


def _not_finite(curves: Curves, step: int, commands: Commands) -> Diagnosis:
    known = curves.training and curves.training[-1] < RISEN_LEAST * curves.frequency_loss
    if known and curves.training[-1] <= min(curves.training) * RISEN:
        return Diagnosis(
            "overfit",
            f"a number was not finite at step {step}, after the training loss had come down to "
            f"{curves.training[-1]:.4f}: there was nothing left to learn.",
            commands.anew(training__max_steps=max(1, step // 2)),
        )
    return Diagnosis(
        "diverging",
        f"the loss, a gradient or a weight was not finite at step {step}.",
        commands.other_rate(0.1),
    )


def _diverging(curves: Curves, commands: Commands) -> Diagnosis | None:
    smooth, frequency_loss = curves.training, curves.frequency_loss
    rise, by_chance = smooth[-1] - min(smooth), RISEN_BY_CHANCE * curves.noise
    least = max(min(smooth) * (RISEN - 1), RISEN_LEAST * frequency_loss, by_chance)
    rose = rise > least
    worse_than_at_first = (
        smooth[-1] > smooth[0] + by_chance
        and curves.last["training_loss"] > frequency_loss + NOTHING
    )
    broken = not math.isfinite(curves.last["validation_loss"])
    if not (rose or worse_than_at_first or broken):
        return None
    return Diagnosis(
        "diverging",
        f"the training loss rose from {min(smooth):.3f} to {smooth[-1]:.3f}, where bare token "
        f"frequencies give {frequency_loss:.3f}.",
        commands.other_rate(0.1),
    )


def _nothing(curves: Curves, commands: Commands) -> Diagnosis | None:
    """The model is no better than token frequencies."""
    last, frequency_loss = curves.last, curves.frequency_loss
    validation, best = last["validation_loss"], curves.best["validation_loss"]
    frequencies = f"{frequency_loss:.3f}, which is that of bare token frequencies"
    if frequency_loss < NOTHING and best < 2 * NOTHING:
        return Diagnosis(
            "learning nothing",
            f"the text is one token again and again, so there is nothing to learn: bare token "
            f"frequencies give {frequency_loss:.3f}, the model {best:.3f}.",
            commands.look_at_text(),
        )
    if min(best, last["training_loss"]) <= frequency_loss - NOTHING:
        return None
    if last["step"] < FEW_STEPS and curves.training[-1] <= curves.training[0]:
        return Diagnosis(
            "too early",
            f"a validation loss of {validation:.3f} after so few steps says little; the first "
            f"aim is {frequencies}.",
            commands.longer(curves.ending),
        )
    return Diagnosis(
        "learning nothing",
        f"the validation loss {best:.3f} is no better than {frequencies}.",
        commands.other_rate(10 if commands.peak_rate < 1e-3 else 0.1),
    )


def _overfit(curves: Curves, commands: Commands) -> Diagnosis | None:
    best, last = curves.best, curves.last
    if not best["step"]:  # it learned nothing to keep
        return None
    lowest, validation, training = (
        best["validation_loss"],
        last["validation_loss"],
        last["training_loss"],
    )
    rose = validation > lowest * (1 + OVERFIT_BY)
    if rose and counts_as_worse(validation, lowest, last.get("standard_error")):
        return Diagnosis(
            "overfit",
            f"since step {best['step']} the validation loss rose from {lowest:.3f} to "
            f"{validation:.3f}, while the training loss is {training:.3f}. The best checkpoint is "
            f"kept and used.",
            commands.regularized(training__max_steps=best["step"]),
        )
    return None


def _by_heart(curves: Curves, commands: Commands) -> Diagnosis | None:
    """The model repeats passages of its text word for word; or else its losses are far apart."""
    last, looked = curves.last, curves.by_heart
    validation, training = last["validation_loss"], last["training_loss"]
    if looked is not None and looked["alarming"]:
        known, new = looked["known"], looked["new"]
        return Diagnosis(
            "by heart",
            f"it says {known['count']} of {known['of']} passages of its training text word for "
            f"word, and {of_new_text(new['count'], new['of'])}. The training loss is "
            f"{training:.3f}, the validation loss {validation:.3f}.",
            commands.regularized(training__max_steps=max(last["step"] // 4, 1)),
        )
    if training < FAR_BELOW * validation:
        return Diagnosis(
            "overfit",
            f"the training loss {training:.3f} is far below the validation loss {validation:.3f}: "
            f"much of what it learned does not carry over to new text. More text helps most.",
            commands.regularized(),
        )
    return None


def _interrupted(curves: Curves, commands: Commands) -> Diagnosis | None:
    """The run was interrupted."""
    return _too_early(curves, commands) if curves.ending == "interrupted" else None


def _too_early(curves: Curves, commands: Commands) -> Diagnosis:
    last = curves.last
    why = "the run was interrupted" if curves.ending == "interrupted" else "no step is recorded"
    return Diagnosis(
        "too early",
        f"{why}; its validation loss is {last['validation_loss']:.3f} at step {last['step']}.",
        commands.longer(curves.ending),
    )


def _unsure(curves: Curves, commands: Commands) -> Diagnosis | None:
    """The training loss came down, but the validation loss is not surely below that of token
    frequencies.
    """
    best, frequency_loss = curves.best, curves.frequency_loss
    error = best.get("standard_error") or 0.0
    error = error if math.isfinite(error) else 0.0  # of a single text it is unknown
    if best["validation_loss"] + 2 * error <= frequency_loss:
        return None
    within = f" ± {2 * error:.3f}" if error else ""
    return Diagnosis(
        "too early",
        f"the validation loss {best['validation_loss']:.3f}{within} is not surely below "
        f"{frequency_loss:.3f}, which is that of bare token frequencies. More text would tell.",
        commands.look_at_text(),
    )


def _nothing_new(curves: Curves, commands: Commands) -> Diagnosis | None:
    """The weights with which a run began had learned, and no later ones were better."""
    best, last = curves.best, curves.last
    if best["step"] > 0:
        return None
    return Diagnosis(
        "learning nothing",
        f"the weights it began with had the lowest validation loss, {best['validation_loss']:.3f}; "
        f"at step {last['step']} it is {last['validation_loss']:.3f}. Perhaps they know this text.",
        commands.look_at_text(),
    )


def _underfit(curves: Curves, commands: Commands) -> Diagnosis | None:
    last = curves.last
    validation, training = last["validation_loss"], last["training_loss"]
    narrow = validation - training < NARROW_GAP * validation
    like_last = [e for e in curves.evaluations if order_of(e)[0] == order_of(last)[0]]
    if len(like_last) == 1:  # what is near to it fell as it did
        fall = curves.training[len(curves.training) // 2] - curves.training[-1]
    else:
        earlier = [e for e in like_last if e["step"] <= last["step"] / 2]
        # The first evaluation may fall into the second half.
        fall = (earlier or like_last)[-1 if earlier else 0]["validation_loss"] - validation
    falling = fall > STILL_FALLING * validation
    if curves.ending == "patience" or not (falling and narrow):
        return None
    return Diagnosis(
        "underfit",
        f"the validation loss {validation:.3f} was still falling, and the training loss "
        f"{training:.3f} is hardly below it: it has not seen enough.",
        commands.longer(),
    )


PIECES = 20
"""Of a run, over which training losses are averaged."""
FEWEST_LOSSES = 5
"""That tell how far batches differ."""


def smoothed(losses: list[float], pieces: int = PIECES) -> list[float]:
    """Means over consecutive pieces of a series, since single batches differ.

    >>> smoothed([1.0, 3.0, 4.0, 6.0], pieces=2)
    [2.0, 5.0]
    """
    if not losses:
        return []
    pieces = min(pieces, len(losses))
    edges = [round(i * len(losses) / pieces) for i in range(pieces + 1)]
    return [sum(losses[a:b]) / (b - a) for a, b in pairwise(edges)]


def noise_of_difference(losses: list[float]) -> float:
    """Standard error of the difference of two means that `smoothed` gives; infinite where there are
    too few losses to tell.

    A loss is compared with the mean of its neighbours: batches are read in a random order, so the
    rest is chance, whatever the trend; the median is that of the noise even where a loss jumps.

    >>> round(noise_of_difference([2.0, 1.9, 2.0, 1.9, 2.0, 9.0]), 2)
    0.17
    """
    losses = [loss for loss in losses if math.isfinite(loss)]
    if len(losses) < FEWEST_LOSSES:
        return math.inf
    bends = (abs(a - 2 * b + c) for a, b, c in zip(losses, losses[1:], losses[2:]))
    # Of numbers with the standard error s, |a - 2b + c| has the median 0.6745 * sqrt(6) * s.
    of_one = median(bends) / (0.6745 * math.sqrt(6))
    return of_one * math.sqrt(2 / max(1.0, len(losses) / PIECES))
