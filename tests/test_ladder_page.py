"""docs/ladder.md is what the measured results make of it, and the results keep their promises."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from statistics import mean

from folio.config import read_toml, to_table
from folio.ladder.ablation import CHANGES
from folio.ladder.sizes import Sizes
from folio.ladder.steps import STEPS, build_model
from folio.recipe.recipe import make_recipe
from folio.tuning.space import parse_space

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "ladder"
RESULTS = json.loads((FOLDER / "steps.json").read_text(encoding="utf-8"))
STUDY = json.loads((FOLDER / "study.json").read_text(encoding="utf-8"))
ROWS = json.loads((FOLDER / "ablation.json").read_text(encoding="utf-8"))
TIMED = json.loads((FOLDER / "ablation-time.json").read_text(encoding="utf-8"))
LOSS = {record["step"]: mean(record["validation_losses"]) for record in RESULTS}


def test_the_page_is_the_one_that_the_results_make():
    script = runpy.run_path(str(ROOT / "scripts" / "make_ladder_page.py"))
    page = (ROOT / "docs" / "ladder.md").read_text(encoding="utf-8")
    assert page == script["page"](RESULTS, ROWS, TIMED, STUDY)


def test_the_results_are_of_these_models():
    sizes = Sizes(vocab_size=67)
    for step, record in zip(STEPS, RESULTS, strict=True):
        n_parameters = sum(p.numel() for p in build_model(step, sizes).parameters())
        assert (record["step"], record["parameters"]) == (step.number, n_parameters)
        assert (record["idea"], record["expected"]) == (step.idea, step.expected)
    for rows in (ROWS, TIMED):
        assert [row["row"] for row in rows] == [change.name for change in CHANGES]


def test_each_row_at_equal_time_had_the_same_minutes_and_says_how_many_steps_it_made():
    (minutes,) = {row["minutes"] for row in TIMED}
    assert minutes > 0
    for row in TIMED:
        assert len(row["steps"]) == len(row["validation_losses"]) == 3


def test_each_step_reaches_the_loss_of_the_course_with_three_seeds():
    for record in RESULTS:
        assert len(record["seeds"]) == 3
        assert max(record["validation_losses"]) <= record["expected"] + 0.05


def test_the_order_comes_out():
    assert LOSS[0] > LOSS[1] > LOSS[2] > LOSS[3]
    assert LOSS[4] > LOSS[3] - 0.01  # deeper without residual connections is no better
    assert LOSS[4] - LOSS[5] > 0.15 > LOSS[5] - LOSS[6] > 0  # the big step, and a small one


def test_the_study_is_of_the_recipe_and_the_space_that_are_here():
    recipe = make_recipe(read_toml(ROOT / "recipes" / "tune-baby.toml"))
    space = parse_space(read_toml(ROOT / "recipes" / "spaces" / "baby.toml"))
    rates = [row["values"]["optimizer.learning_rate"] for row in STUDY["rows"]]
    (rate,) = (p for p in space.parameters if p.setting == "optimizer.learning_rate")
    assert rate.low <= min(rates) < max(rates) <= rate.high
    for row in STUDY["rows"]:
        assert set(row["values"]) == {parameter.setting for parameter in space.parameters}
        vocabulary = {"model": {"vocab_size": 60}}  # of its fifty thousand characters
        assert row["parameters"] == make_recipe(to_table(recipe), vocabulary).model.n_parameters
