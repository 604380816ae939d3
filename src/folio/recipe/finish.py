"""What follows training: held-out texts, a sample, the diagnosis, the picture and the card."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from folio.device import Device, one_thread
from folio.generation.chat import answer
from folio.generation.sampling import SamplingConfig
from folio.process import peak_memory
from folio.recipe.budget import END_SECONDS
from folio.recipe.memory import memory_limit
from folio.recipe.recipe import Recipe
from folio.run.add_ngrams import add_ngrams
from folio.run.card import diagnose_run, draw_loss, write_card
from folio.run.diagnosis import Diagnosis
from folio.run.directory import Run
from folio.run.fine_tuning import before_and_after, losses_before
from folio.run.held_out import HeldOut, evaluate_alone, evaluate_held_out, evaluate_on
from folio.run.inline import run_html
from folio.run.look_back import look_back
from folio.run.model import Model
from folio.run.ngrams import in_words
from folio.run.opening import open_run
from folio.run.prediction import Estimate, compare_with_prediction
from folio.storage import write_json
from folio.tokenizers.base import CHAT_TOKENS, TokenIds
from folio.training.parts import Ending, Training
from folio.training.state import TrainingState


@dataclass(frozen=True, repr=False)
class Result:
    """How a training ended; `folio.load(result.run.path)` opens its model."""

    run: Run
    """The run directory that was written."""
    ending: Ending
    """Why training ended; `interrupted` also where that happened to what follows it."""
    state: TrainingState
    """Number of steps and tokens, seconds, and the best validation loss."""
    diagnosis: Diagnosis
    """Whether the run is healthy, overfit, underfit ..., and what to try next."""
    sample: str
    """A text that the model wrote. Empty after an interrupt: `folio resume` continues, and writes
    one at the end."""
    held_out: list[HeldOut]
    """Losses of the best checkpoint on each held-out text, and of the last one on the test text;
    empty after an interrupt."""

    def __repr__(self) -> str:
        loss = self.state.best_validation_loss
        return (
            f"Result({str(self.run.path)!r}, {self.ending} at step {self.state.step}, "
            f"best validation loss {loss:.4f})"
        )

    def _repr_html_(self) -> str:
        return run_html(self.run, self.held_out, self.sample)


@one_thread()
def finish(
    run: Run,
    recipe: Recipe,
    ending: Ending,
    state: TrainingState,
    training: Training,
    best_validation_nll: NDArray[np.float32] | None,
    sample_tokens: int,
    should_stop: Callable[[], bool],
) -> Result:
    """Draw the curves, evaluate, sample, diagnose, and write the card.

    Apart from reading held-out text, everything computed here is small, and must not wait for other
    programs.

    Args:
        run, recipe, ending, state, training: the parts of the run, as they are at the end.
        best_validation_nll: (N - 1,) nats by the best checkpoint, if it was just evaluated.
        sample_tokens: length of the sample.
        should_stop: after True, everything that resuming does not need is skipped; so is the card
            of a training that has ended, and `folio resume` makes up for both.
    """
    held_out: list[HeldOut] = []
    looked: list[tuple[str, str]] = []
    sample, counted, n_read = "", None, recipe.training.validation_sample
    no_room = whole_model_does_not_fit(recipe, training.device)
    if ending != "interrupted" and not no_room and not should_stop():
        opened = open_run(run, device=training.device)
        alone: list[HeldOut] = []
        if recipe.ngrams.order and (counted := add_ngrams(opened, recipe.ngrams)):
            if recipe.start.run:
                alone = evaluate_alone(opened, training.device, best_validation_nll, n_read)
            opened, best_validation_nll = open_run(run, device=training.device), None
        of_best = evaluate_held_out(opened, training.device, best_validation_nll, n_read) + alone
        held_out = list(of_best)
        if state.read_step < state.step and run.tokens_file("test").exists():
            opened_last = open_run(run, "last", training.device)
            last = evaluate_on(opened_last, "test", training.device, n_read)
            held_out += [replace(last, name="test, last step")] if last else []
        held_out += losses_before(run)
        step = {"step": opened.checkpoint.step}  # the others say in their names which it is
        write_json(
            run.held_out_file,
            [text.record() | (step if text in of_best else {}) for text in held_out],
        )
        if sample_tokens and not should_stop():
            deadline = training.deadline
            seconds = deadline.budget.sample_seconds if deadline else math.inf
            sample = write_sample(opened, sample_tokens, recipe.seed or 1, seconds, should_stop)
        if not should_stop():
            looked = look_back(opened, state.seconds, _seconds_left(training))
    draw_loss(run)
    diagnosis = diagnose_run(run)
    rows = facts(run, recipe, ending, state, held_out, looked)
    rows += [("n-grams", in_words(counted))] if counted else []
    measured = Estimate(
        max_steps=training.pace.planned,
        memory_bytes=_peak_bytes(training),
        seconds=state.seconds if ending == "finished" else None,
        loss=state.best_validation_loss if ending == "finished" else None,
    )
    rows += compare_with_prediction(run, measured)
    rows += [("held-out text", no_room)] if no_room else []
    if ending in ("finished", "patience") and should_stop():
        ending = "interrupted"
    else:
        write_card(run, rows, [sample] if sample else [])
    return Result(run, ending, state, diagnosis, sample, held_out)


def whole_model_does_not_fit(recipe: Recipe, device: Device) -> str:
    """Why a card that had a part of a model in training has no room to read a text with all of it,
    in words; empty if it has.
    """
    if recipe.training.sharding != "full" or device.config.kind == "cpu":
        return ""
    n_models = 3  # of the best step, of the last, and a copy in float32 on its way to less
    needed = n_models * 4 * recipe.model.n_parameters
    free = memory_limit(recipe, device)
    if needed <= free:
        return ""
    return (
        f"not read, since that takes {needed / 1e9:.1f} GB with the whole model, and the card has "
        f"{free / 1e9:.1f} GB left, or may use no more: `folio evaluate` reads it elsewhere"
    )


def _peak_bytes(training: Training) -> int | None:
    """Peak memory of the training, of a GPU its own; None if unknown."""
    peak = training.step.peak_bytes
    return max(peak_memory(), peak) if training.device.config.kind == "cpu" else peak or None


def _seconds_left(training: Training) -> float:
    """Seconds left for the look back in a budget in minutes; the picture, the card and exiting
    follow.
    """
    if (deadline := training.deadline) is None:
        return math.inf
    return deadline.budget.seconds - END_SECONDS - deadline.used()


def write_sample(
    opened: Model,
    n_tokens: int,
    seed: int,
    seconds: float,
    should_stop: Callable[[], bool] = lambda: False,
) -> str:
    """Let the model write for at most `seconds`; a chat model answers a question."""
    text, until = "", time.monotonic() + seconds
    config = SamplingConfig(temperature=0.8, seed=seed)
    asked = _first_question(opened)
    if asked is None:
        written = opened.write([""], config, n_tokens, stop=False, compiled=False)
        pieces = (drawn.text for _, drawn in written)
    else:
        batch = opened.batch(1, compiled=False)
        pieces = answer(batch, opened.tokenizer, asked, config, n_tokens)
    for piece in pieces:
        text += piece
        if time.monotonic() > until or should_stop():
            break
    if asked is None:
        return text
    return f"> {opened.tokenizer.decode(asked, skip_special=True)}\n{text}"


def _first_question(opened: Model) -> TokenIds | None:
    """The first conversation of the validation text up to its answer, if it fits half a context."""
    if not opened.run.tokens_file("validation.mask").exists():
        return None
    user, assistant, _ = (opened.tokenizer.special_tokens[name] for name in CHAT_TOKENS)
    ids, most = np.asarray(opened.validation()), opened.model.config.context_length // 2
    for first in np.flatnonzero(ids == user).tolist():
        asked = ids[first : first + most]
        if (asked == assistant).any():
            return asked[: int((asked == assistant).argmax()) + 1]
    return None


def _what_counts(run: Run) -> list[tuple[str, str]]:
    tokens = run.corpus()["tokens"]
    if "counted" not in tokens:
        return []
    n, of = tokens["counted"]["training"], tokens["training"]
    return [("what counts", f"{n:,} of {of:,} training tokens: of conversations the answers")]


def sample_command(run: Run) -> str:
    """The command that lets a run write, or answer."""
    chat = " --chat" if run.tokens_file("train.mask").exists() else ""
    return f"folio sample {shlex.quote(str(run.path))}{chat}"


def facts(
    run: Run,
    recipe: Recipe,
    ending: Ending,
    state: TrainingState,
    held_out: list[HeldOut],
    looked: list[tuple[str, str]],
) -> list[tuple[str, str]]:
    """Collect the rows of the run card."""
    ledger = run.corpus()["ledger"]
    speed, best = state.tokens / max(state.seconds, 1e-9), state.best_validation_loss
    is_evaluated, short = math.isfinite(best), state.best_short_length
    read = f" in windows of {short}" if short else ""
    sources, canaries = recipe.corpus.sources, recipe.corpus.canaries
    counting = " that count" if _what_counts(run) else ""
    return [
        ("text", f"{', '.join(sources[:3])}{' ...' if sources[3:] else ''}"),
        (
            "characters for training, validation",
            f"{ledger['training']:,}, {ledger['validation']:,}",
        ),
        *([("begins with", recipe.start.run)] if recipe.start.run else []),
        *_what_counts(run),
        ("model", f"{recipe.preset}, {recipe.model.n_parameters:,} parameters"),
        ("steps", f"{state.step:,} of {recipe.training.max_steps:,} ({ending})"),
        ("tokens read", f"{state.tokens:,}{counting} ({state.place.epoch} whole epochs)"),
        (
            "best validation loss",
            f"{best:.4f}{read} at step {state.best_step:,}" if is_evaluated else "-",
        ),
        *((f"loss, {text.name}", str(text)) for text in held_out if not text.is_before),
        *before_and_after(held_out),
        *looked,
        ("time", f"{state.seconds:.0f} s, {speed:,.0f} tokens/s"),
        ("device", f"{recipe.device.kind}, {recipe.device.precision}"),
        *([("planted", f"{canaries} canaries: canaries.json")] if canaries else []),
        ("sample again", f"`{sample_command(run)}`"),
    ]
