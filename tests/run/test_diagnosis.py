"""The verdicts, on runs that were broken on purpose."""

from __future__ import annotations

import math
import random
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folio.config import merge, overrides_table
from folio.corpus.builtin import BUILTIN
from folio.recipe.recipe import Recipe, make_recipe
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.diagnosis import diagnose, stale_evaluations
from folio.run.metrics import Event, append_event, best_loss, of_kind, read_events

BASE: dict[str, Any] = {
    "preset": "gpt2",
    "model": {"n_layers": 1, "n_heads": 2, "d_model": 32, "context_length": 16},
    "optimizer": {"learning_rate": 1e-2},
    "training": {"batch_size": 16, "max_steps": 100, "evaluation_interval": 20},
    "device": {"kind": "cpu", "precision": "float32", "threads": 1},
}


def verdict(path: Path, **changes: Any) -> tuple[str, str]:
    recipe = make_recipe(merge(BASE, {"corpus": {"sources": [str(path)]}}, changes))
    diagnosis = train_recipe(recipe, None, Watcher()).diagnosis
    return diagnosis.verdict, str(diagnosis)


LARGER = {"n_layers": 2, "d_model": 64, "context_length": 32}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Real text that every machine has."""
    path = tmp_path / "docs.txt"
    path.write_text(next(BUILTIN["python-docs"]()).text[:60_000])
    return path


def test_a_run_that_learned_is_healthy(docs: Path):
    training = {"max_steps": 500, "evaluation_interval": 125}
    assert (
        verdict(docs, model=LARGER, optimizer={"learning_rate": 5e-3}, training=training)[0]
        == "healthy"
    )


@pytest.mark.usefixtures("whole_end")
def test_a_tiny_text_read_often_is_overfit(docs: Path):
    docs.write_text(docs.read_text()[:3000])
    name, words = verdict(
        docs,
        model=LARGER,
        optimizer={"learning_rate": 3e-3},
        training={"max_steps": 400, "evaluation_interval": 100},
    )
    assert name == "overfit"
    assert "does not carry over to new text" in words and "--model.residual-dropout" in words


def test_a_run_that_was_cut_short_is_underfit(docs: Path):
    name, words = verdict(docs, training={"max_steps": 80, "evaluation_interval": 10})
    assert name == "underfit"
    assert "folio resume" in words


@pytest.mark.parametrize("steps", [1, 6])
def test_a_few_steps_are_too_early_to_say_that_nothing_is_learned(docs: Path, steps: int):
    name, words = verdict(docs, training={"max_steps": steps, "evaluation_interval": 3})
    assert name == "too early"
    assert "--minutes 10" in words


@pytest.mark.parametrize(("rate", "expected"), [(10.0, "learning nothing"), (100.0, "diverging")])
def test_steps_that_are_too_large_spoil_everything(docs: Path, rate: float, expected: str):
    name, words = verdict(
        docs, optimizer={"learning_rate": rate, "gradient_clip": 0}, schedule={"warmup_fraction": 0}
    )
    assert name == expected
    assert f"--optimizer.learning-rate {rate / 10:g}" in words


def test_a_rate_of_nearly_nothing_learns_nothing(docs: Path):
    name, words = verdict(docs, optimizer={"learning_rate": 1e-7})
    assert name == "learning nothing"
    assert "--optimizer.learning-rate 1e-06" in words


def test_noise_is_learning_nothing(tmp_path: Path):
    path = tmp_path / "noise.txt"
    path.write_text("".join(random.Random(1).choices("abcdefgh", k=60_000)))
    assert verdict(path)[0] == "learning nothing"


def test_a_training_loss_that_rises_again_is_diverging():
    events: list[dict[str, Any]] = [
        {"event": "step", "step": i, "loss": 3 - i / 50 if i < 50 else 2 + (i - 50) / 50}
        for i in range(100)
    ]
    events += [
        {"event": "evaluation", "step": i, "validation_loss": loss, "training_loss": loss}
        for i, loss in ((50, 2.0), (100, 3.0))
    ]
    events += [{"event": "end", "step": 100, "reason": "finished", "peak_learning_rate": 0.01}]
    diagnosis = diagnose(events, 3.3, "runs/x")
    assert diagnosis.verdict == "diverging"
    assert "rose from 2." in diagnosis.reason


SHORT = [1.9, 1.75, 1.659, 2.1, 1.95, 1.7, 2.0, 1.8, 2.239]
"""Batches of a fine-tuning of nine steps: each is harder or easier by chance."""


def test_noise_between_batches_is_no_divergence():
    evaluations = [(0, 1.95, 1.9), (5, 1.94, 1.88), (9, 1.93, 1.86)]
    assert diagnose(curves(SHORT, evaluations), 6.0, "runs/x").verdict == "healthy"
    assert diagnose(curves([*SHORT[:2], 2.4], evaluations), 6.0, "runs/x").verdict == "healthy"
    draw = random.Random(1)
    for n in (6, 9, 20, 50, 200):
        noise = [draw.gauss(2.0, 0.2) for _ in range(n)]
        assert diagnose(curves(noise, evaluations), 6.0, "runs/x").verdict == "healthy", n


@pytest.mark.parametrize(
    "more", [[2.3, 3.0, 4.1, 5.2], [7.0], [4, 8, 16], [2.0 + i / 5 for i in range(40)]], ids=len
)
def test_a_divergence_is_found_in_the_noise_between_batches(more: list[float]):
    evaluations = [(0, 1.95, 1.9), (5, 2.1, 2.0), (12, more[-1], more[-1])]
    diagnosis = diagnose(curves(SHORT + more, evaluations), 6.0, "runs/x")
    assert diagnosis.verdict == "diverging" and "rose from 1." in diagnosis.reason


def test_a_loss_that_is_not_finite_is_said():
    events = [{"event": "end", "reason": "non-finite", "step": 7, "peak_learning_rate": 0.5}]
    diagnosis = diagnose(events, 3.0, "runs/x")
    assert diagnosis.verdict == "diverging" and "step 7" in diagnosis.reason
    assert diagnosis.command.endswith("--optimizer.learning-rate 0.05")


# ---- curves that nobody trained --------------------------------------------------------------


def curves(
    training: list[float],
    validation: list[tuple[int, float, float]],
    reason: str = "finished",
    error: float | None = None,
) -> list[Event]:
    """Events of a run: a training loss for each step; (step, validation, training) evaluations."""
    events: list[Event] = [
        {"event": "step", "step": i + 1, "loss": loss} for i, loss in enumerate(training)
    ]
    events += [
        {
            "event": "evaluation",
            "step": step,
            "validation_loss": on_validation,
            "training_loss": on_training,
            "standard_error": error,
        }
        for step, on_validation, on_training in validation
    ]
    end = {"event": "end", "step": len(training), "reason": reason, "peak_learning_rate": 0.01}
    return [*events, end]


def fall(start: float, end: float, n: int = 300) -> list[float]:
    """As losses fall: fast, then slowly, with the noise of batches."""
    draw = random.Random(1)
    return [end + (start - end) * 0.97**i + draw.uniform(-0.03, 0.03) * end for i in range(n)]


MUON = {"optimizer": {"kind": "muon", "learning_rate": 0.01, "matrix_learning_rate": 0.02}}


def test_a_run_that_was_interrupted_after_one_evaluation_is_no_verdict():
    events = curves(fall(4.2, 2.1, 108), [(85, 2.3, 2.25)], "interrupted")
    diagnosis = diagnose(events, 3.3, "runs/x")
    assert diagnosis.verdict == "too early" and diagnosis.command == "folio resume runs/x"
    # The same of one that was killed, and so has no end.
    assert diagnose(events[:-1], 3.3, "runs/x").verdict == "too early"
    at_once = diagnose(curves([], [(1, 4.3, 4.2)], "interrupted"), 3.3, "runs/x")
    assert at_once.reason == "the run was interrupted; its validation loss is 4.300 at step 1."


@pytest.mark.parametrize(
    ("training", "validation", "expected"),
    [
        (fall(4.2, 2.1), (300, 2.1, 2.05), "healthy"),
        (fall(4.2, 2.1), (300, 2.9, 2.05), "healthy"),
        (fall(4.2, 2.1, 100), (100, 2.25, 2.2), "underfit"),
        (fall(4.2, 2.1, 100), (100, 2.9, 2.2), "healthy"),
        (fall(4.2, 2.1), (300, 4.5, 2.05), "overfit"),
        (fall(4.2, 3.26), (300, 3.29, 3.26), "too early"),
    ],
)
def test_a_run_that_finished_has_a_verdict_from_one_evaluation(
    training: list[float], validation: tuple[int, float, float], expected: str
):
    assert diagnose(curves(training, [validation], error=0.01), 3.3, "runs/x").verdict == expected


def test_a_training_loss_far_below_the_validation_loss_is_not_called_by_heart():
    events = curves(fall(4.2, 0.128), [(100, 3.37, 0.9), (200, 3.365, 0.3), (300, 3.36, 0.128)])
    diagnosis = diagnose(events, 4.0, "runs/x", {"model": {"residual_dropout": 0.1}})
    assert diagnosis.verdict == "overfit" and "by heart" not in diagnosis.reason
    assert "what it learned does not carry over to new text" in diagnosis.reason
    assert diagnosis.command == "folio train runs/x/recipe.toml --model.residual-dropout 0.3"
    one = diagnose(curves(fall(4.2, 0.128), [(300, 3.36, 0.128)]), 4.0, "runs/x")
    assert one.verdict == "overfit"


@pytest.mark.parametrize(
    ("best", "error", "expected"),
    [
        (2.8, 0.02, "healthy"),
        (2.8, math.inf, "healthy"),  # of a single text nobody knows it
        (2.8, 0.15, "the validation loss 2.800 ± 0.300 is not surely below 3.000"),
        (3.1, 0.01, "the validation loss 3.100 ± 0.020 is not surely below 3.000"),
        (3.1, None, "the validation loss 3.100 is not surely below 3.000"),
    ],
)
def test_a_loss_that_is_not_surely_below_that_of_frequencies_is_not_healthy(
    best: float, error: float | None, expected: str
):
    events: list[Event] = [
        {"event": "step", "step": n, "loss": 3.0 - n / 500} for n in range(1, 101)
    ]
    events += [
        {"event": "evaluation", "step": step, "validation_loss": loss}
        | {"training_loss": 2.6, "standard_error": error}
        for step, loss in ((50, best + 0.1), (100, best))
    ]
    events += [{"event": "end", "step": 100, "reason": "finished", "peak_learning_rate": 1e-3}]
    assert str(diagnose(events, 3.0, "runs/x")).startswith(
        expected if expected == "healthy" else f"too early: {expected}"
    )


def test_a_step_that_is_named_in_a_command_has_all_of_its_digits():
    evaluations = [(1_234_567, 2.0, 1.9), (2_000_000, 2.3, 1.5)]
    command = diagnose(curves(fall(4, 1.9), evaluations, error=0.01), 3, "x").command
    assert command.endswith("--training.max-steps 1234567")


def test_a_rise_within_the_standard_error_is_no_overfitting():
    evaluations = [(100, 2.3, 2.0), (200, 2.0, 1.9), (300, 2.05, 1.85)]
    assert diagnose(curves(fall(4, 1.9), evaluations, error=0.01), 3, "x").verdict == "overfit"
    assert diagnose(curves(fall(4, 1.9), evaluations, error=0.06), 3, "x").verdict == "healthy"
    # A single text has no standard error.
    assert diagnose(curves(fall(4, 1.9), evaluations), 3, "x").verdict == "overfit"


def test_weights_that_were_best_before_training_learned_nothing_new():
    recipe = {"corpus": {"sources": ["letters.txt"]}}

    def verdict_of(last: float) -> tuple[str, str]:
        evaluations = [(0, 0.655, 0.60), (20, 0.664, 0.57), (40, last, 0.55)]
        events = curves(fall(0.6, 0.55, 40), evaluations, error=0.08)
        diagnosis = diagnose(events, 3.3, "runs/x", recipe)
        return diagnosis.verdict, diagnosis.command

    assert verdict_of(0.656) == ("learning nothing", "folio corpus letters.txt")
    assert verdict_of(0.8) == ("learning nothing", "folio corpus letters.txt")
    assert verdict_of(0.640)[0] == "healthy"


def test_losses_in_short_windows_are_compared_with_each_other_alone():
    evaluations = [(100, 2.1, 2.0), (140, 2.0, 1.95), (240, 2.2, 2.15), (300, 2.1, 2.09)]
    events = curves(fall(2.2, 2.09), evaluations, error=0.01)
    # Without the lengths, the loss would have risen from 2.0.
    assert diagnose(events, 3.3, "runs/x").verdict == "overfit"
    for event in events:
        if event["event"] == "evaluation" and event["step"] < 200:
            event["short_length"] = 128
    found = diagnose(events, 3.3, "runs/x")
    assert found.verdict == "underfit" and best_loss(of_kind(events, "evaluation")) == 2.1
    interrupted = diagnose([e for e in events if e["step"] < 200], 3.3, "runs/x")
    assert "its validation loss is 2.000 at step 140" in interrupted.reason


def test_who_lost_patience_is_not_told_to_train_longer():
    evaluations = [(100, 2.3, 2.25), (200, 2.0, 1.98), (300, 2.01, 1.99)]
    events = curves(fall(4, 2.0), evaluations, "patience", error=0.02)
    diagnosis = diagnose(events, 3.3, "runs/x")
    assert diagnosis.verdict == "healthy" and "no better since" in diagnosis.reason
    assert diagnosis.command == "folio sample runs/x"
    assert diagnose(curves(fall(4, 2.0), evaluations), 3.3, "runs/x").verdict == "underfit"


def test_a_loss_of_nearly_nothing_that_doubles_is_no_divergence():
    text = fall(3.0, 0.001, 200) + [0.0015 + i / 1e5 for i in range(100)]
    evaluations = [(100, 0.01, 0.004), (200, 0.006, 0.003), (300, 0.006, 0.004)]
    assert diagnose(curves(text, evaluations), 3.0, "runs/x").verdict == "healthy"
    nothing = diagnose(curves(fall(0.4, 1e-6), [(300, 1e-6, 1e-6)]), 0.0, "runs/x")
    assert nothing.verdict == "learning nothing" and "one token" in nothing.reason


def test_numbers_that_are_not_finite_after_all_was_learned_are_no_divergence():
    events = curves(fall(3.0, 0.0004), [(100, 3.1, 0.3), (200, 3.2, 0.001)], "non-finite")
    assert diagnose(events, 3.0, "runs/x").verdict == "overfit"
    events = curves([4.0, 5.0, 90.0], [], "non-finite")
    diagnosis = diagnose(events, 3.0, "runs/x", MUON)
    assert diagnosis.verdict == "diverging"
    flags = "--optimizer.learning-rate 0.001 --optimizer.matrix-learning-rate 0.002"
    assert diagnosis.command == f"folio train runs/x/recipe.toml {flags}"
    adamw = {"optimizer": {**MUON["optimizer"], "kind": "adamw"}}
    assert "matrix" not in diagnose(events, 3.0, "runs/x", adamw).command


def test_a_validation_loss_that_is_not_finite_is_diverging(tmp_path: Path):
    events = curves(fall(4, 3), [(100, 3.0, 3.0), (300, math.inf, math.inf)])
    assert diagnose(events, 3.3, "runs/x").verdict == "diverging"
    for event in events:
        append_event(tmp_path / "metrics.jsonl", event)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "Infinity" not in text and '"validation_loss": null' in text
    assert read_events(tmp_path / "metrics.jsonl") == events


@pytest.mark.parametrize("reason", ["finished", "interrupted", "patience", "non-finite"])
@settings(max_examples=25)
@given(st.data())
def test_any_curve_has_a_verdict_whose_command_the_command_line_takes(reason: str, data: Any):
    loss = st.floats(1e-7, 50) | st.just(math.inf)
    n = data.draw(st.integers(0, 40))
    training = data.draw(st.lists(loss, min_size=n, max_size=n))
    steps = data.draw(st.lists(st.integers(1, 40), max_size=5, unique=True).map(sorted))
    evaluations = [(step, data.draw(loss), data.draw(loss)) for step in steps]
    events = curves(training, evaluations, reason, data.draw(st.none() | st.floats(0, 5)))
    diagnosis = diagnose(events, data.draw(st.floats(0, 12)), "runs/my run's", MUON)
    enough = 1 if reason in ("finished", "patience") else 2
    if len(evaluations) < enough or reason in ("interrupted", "non-finite"):
        assert diagnosis.verdict != "healthy"
    _, verb, *words = shlex.split(diagnosis.command)
    if verb in ("sample", "resume"):
        assert words[0] == "runs/my run's"
    if verb == "train":
        assert words[0] == "runs/my run's/recipe.toml"
        flags = [(flag.removeprefix("--"), value) for flag, value in batched(words[1:])]
        assert make_recipe(overrides_table(Recipe, flags))


def batched(words: list[str]) -> list[tuple[str, str]]:
    return list(zip(words[::2], words[1::2]))


def test_patience_counts_what_is_worse_by_more_than_the_error_and_begins_anew_when_better():
    losses, error = [3.0, 2.0, 2.01, 2.03, 2.02, 1.99, 2.2, 2.3], 0.024
    best, stale, found = math.inf, 0, []
    for loss in losses:
        stale = stale_evaluations(stale, loss, best, error)
        best = min(best, loss)
        found.append(stale)
    assert found == [0, 0, 0, 1, 1, 0, 1, 2]
    for unknown in (None, math.inf, math.nan, 0.0):
        assert stale_evaluations(1, 2.001, 2.0, unknown) == 2
    assert stale_evaluations(0, math.nan, 2.0, error) == 1
