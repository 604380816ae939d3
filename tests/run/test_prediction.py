"""A run remembers what was predicted for it, and its card says how far off that was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from folio.recipe.expected_loss import TrainingBudget, write_anchors
from folio.recipe.prepare import prepare
from folio.recipe.recipe import Recipe, make_recipe
from folio.recipe.resume import resume_run
from folio.recipe.speed import Throughput
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import Run
from folio.run.prediction import Estimate, compare_with_prediction, predict


def tiny(book: Path, **training: object) -> Recipe:
    return make_recipe(
        {
            "corpus": {"sources": [str(book)]},
            "model": {"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16},
            "training": {"batch_size": 8, "evaluation_interval": 4, **training},
            "device": {"kind": "cpu", "threads": 1, "precision": "float32"},
        }
    )


def test_the_card_of_a_budget_in_minutes_compares_time_and_memory(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    # 12 steps of 10 ms and 3 evaluations of 20 ms make 0.18 s.
    monkeypatch.setattr("folio.recipe.budget.measure", lambda *_: Throughput(0.01, 0.02))
    run = train_recipe(tiny(book, minutes=0.5, max_steps=12), "timed", Watcher()).run
    card = run.card_file.read_text()
    assert "| memory against its prediction | " in card and "| time against its prediction" in card
    both = json.loads(run.prediction_file.read_text())
    assert both["predicted"]["max_steps"] == both["measured"]["max_steps"] == 12
    assert both["predicted"]["seconds"] == pytest.approx(0.18)
    assert both["measured"]["seconds"] == pytest.approx(run.events("end")[0]["seconds"], abs=1e-3)


def test_the_loss_is_compared_where_the_text_was_planned_for(book: Path):
    recipe = tiny(book, max_steps=8)
    budgets = [TrainingBudget(800_000, 768, steps, 18_000) for steps in (150, 500)]
    tokens = prepare(recipe, lambda _: None).files["train"]
    write_anchors(tokens, [(budget, 2.0) for budget in budgets])
    run = train_recipe(recipe, "planned", Watcher()).run
    assert "| loss against its prediction | " in run.card_file.read_text()


def test_a_run_that_goes_on_further_is_not_held_to_its_first_prediction(book: Path):
    run = train_recipe(tiny(book, max_steps=8), "longer", Watcher()).run
    assert "against its prediction" in run.card_file.read_text()
    assert resume_run(run, {"training": {"max_steps": 12}}, Watcher()) is not None
    assert "against its prediction" not in run.card_file.read_text()


def test_errors_are_of_the_measured_against_the_predicted(tmp_path: Path):
    run = Run(tmp_path / "run")
    predict(run, Estimate(max_steps=5, memory_bytes=10**9, seconds=100.0, loss=2.0, loss_band=0.05))
    measured = Estimate(max_steps=5, memory_bytes=1_200_000_000, seconds=80.0, loss=2.11)
    assert dict(compare_with_prediction(run, measured)) == {
        "memory against its prediction": "1.0 GB predicted, 1.2 GB measured (+20%)",
        "time against its prediction": "1 min 40 s predicted, 1 min 20 s measured (-20%)",
        "loss against its prediction": "2.00 ± 0.10 predicted, 2.1100 measured (outside the band)",
    }
