"""The verdicts, on runs that were broken on purpose."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from folio.config import merge
from folio.corpus.builtin import BUILTIN
from folio.recipe.recipe import make_recipe
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.diagnosis import diagnose

BASE: dict[str, Any] = {
    "preset": "gpt2",
    "model": {"n_layers": 1, "n_heads": 2, "d_model": 32, "context_length": 16},
    "optimizer": {"learning_rate": 1e-2},
    "training": {"batch_size": 16, "max_steps": 200, "evaluation_interval": 20},
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
    training = {"max_steps": 500, "evaluation_interval": 50}
    assert (
        verdict(docs, model=LARGER, optimizer={"learning_rate": 5e-3}, training=training)[0]
        == "healthy"
    )


def test_a_tiny_text_read_often_is_overfit(docs: Path):
    docs.write_text(docs.read_text()[:3000])
    name, words = verdict(
        docs, model=LARGER, optimizer={"learning_rate": 3e-3}, training={"max_steps": 500}
    )
    assert name == "overfit"
    assert "since step" in words and "--training.max-steps" in words


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


def test_a_loss_that_is_not_finite_is_said():
    events = [{"event": "end", "reason": "non-finite", "step": 7, "peak_learning_rate": 0.5}]
    diagnosis = diagnose(events, 3.0, "runs/x")
    assert diagnosis.verdict == "diverging" and "step 7" in diagnosis.reason
    assert diagnosis.command.endswith("--optimizer.learning-rate 0.05")
