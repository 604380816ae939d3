"""Step 9: each row changes what it names, and its verdict is earned."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from statistics import stdev

import pytest

from folio.config import Table, read_toml
from folio.errors import UserError
from folio.ladder import scaled_up
from folio.ladder.ablation import (
    BASELINE,
    CHANGES,
    Budget,
    Change,
    Row,
    compare,
    find_change,
    settings_of,
)
from folio.recipe.recipe import Recipe, make_recipe
from folio.run.directory import check_name

ROOT = Path(__file__).parents[2]


def recipe(change: Change, seed: int = 1, budget: Budget | None = None) -> Recipe:
    return make_recipe(settings_of(change, seed, ["shakespeare"], budget or Budget(100)))


def leaves(table: Table, prefix: str = "") -> Table:
    found: Table = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


CHANGED = {
    "rope": {"model.positions": "rope"},
    "sinusoidal": {"model.positions": "sinusoidal", "model.scale_embeddings": True},
    "rmsnorm": {"model.normalization": "rmsnorm"},
    "qk-norm": {"model.qk_norm": True},
    "post-norm": {"model.norm_placement": "post"},
    "swiglu": {"model.activation": "swiglu"},
    "relu2": {"model.activation": "relu2"},
    "no-bias": {"model.bias": False},
    "untied": {"model.tied_head": False},
    "wsd": {"schedule.kind": "linear"},
    "muon": {"optimizer.kind": "muon"},
    "n-grams": {"ngrams.order": 10},
}


def changed(before: Recipe, after: Recipe) -> Table:
    base, other = leaves(asdict(before)), leaves(asdict(after))
    return {key: other[key] for key in base if base[key] != other[key]}


@pytest.mark.parametrize("name", CHANGED)
def test_a_row_differs_from_the_baseline_in_what_it_names_and_nothing_else(name: str):
    assert changed(recipe(BASELINE), recipe(find_change(name))) == CHANGED[name]


def test_what_was_kept_is_modern_with_muon_and_a_plateau():
    modern, kept = recipe(find_change("modern")), recipe(find_change("kept"))
    assert changed(modern, kept) == {"optimizer.kind": "muon", "schedule.kind": "linear"}


def test_all_is_what_was_kept_beside_n_grams():
    assert changed(recipe(find_change("kept")), recipe(find_change("all"))) == {"ngrams.order": 10}


@pytest.mark.parametrize("change", CHANGES, ids=[change.name for change in CHANGES])
def test_a_row_at_equal_time_has_the_minutes_and_nothing_else_changed(change: Change):
    timed = recipe(change, budget=Budget(minutes=0.75))
    assert changed(recipe(change), timed) == {
        "training.max_steps": 0,
        "training.minutes": 0.75,
        # One evaluation, at the end, as with equal steps; there it is told by the last of them.
        "training.evaluations": 1,
        "training.evaluation_interval": 0,
    }


def test_each_row_budget_and_seed_has_a_run_of_its_own():
    budgets = [Budget(), *(Budget(minutes=m) for m in (0.75, 0.7500001, 1.0, 10.0, 1e6))]
    names = [b.run_name(change, s) for b in budgets for change in CHANGES for s in (1, 11)]
    assert len(set(names)) == len(names)
    assert "ladder-9-0.75min-muon-1" in names and "ladder-9-10min-muon-1" in names
    for name in names:
        check_name(name)


def test_the_baseline_is_gpt2s_block():
    base = recipe(BASELINE)
    model = base.model
    assert (model.positions, model.normalization, model.activation) == (
        "learned",
        "layernorm",
        "gelu",
    )
    assert model.norm_placement == "pre" and model.bias and model.tied_head and not model.qk_norm
    assert (base.optimizer.kind, base.schedule.kind) == ("adamw", "cosine")


def test_every_row_but_those_of_several_changes_has_its_claim_checked():
    several = ("gpt2", "modern", "kept", "all")
    assert [c.name for c in CHANGES if c.name not in several] == list(CHANGED)


def test_modern_is_the_preset():
    model = recipe(find_change("modern")).model
    assert (model.positions, model.normalization, model.activation) == ("rope", "rmsnorm", "swiglu")
    assert model.qk_norm and not model.bias


def test_swiglu_has_about_as_many_parameters():
    gelu, swiglu = (recipe(find_change(name)).model.n_parameters for name in ("gpt2", "swiglu"))
    assert swiglu == pytest.approx(gelu, rel=0.15)


def test_the_seed_reaches_the_recipe():
    assert [recipe(BASELINE, seed).seed for seed in (1, 2)] == [1, 2]


def row(name: str, *losses: float) -> Row:
    return Row(find_change(name), 1, list(losses))


def test_the_standard_error_is_pooled_over_all_rows():
    rows = [row("gpt2", 1.0, 1.2, 1.1), row("rope", 0.9, 0.92, 0.94), row("wsd", 1.0, 1.3, 1.0)]
    pooled = math.sqrt(sum(stdev(r.losses) ** 2 for r in rows) / 3)  # equal sizes: a plain mean
    assert compare(rows)["rope"].standard_error == pytest.approx(pooled * math.sqrt(2 / 3))
    assert compare(rows)["rope"].difference == pytest.approx(-0.18)
    beside = row("n-grams", 0.8, 0.8, 0.8)  # whose seeds hardly differ
    assert compare([*rows, beside])["rope"] == compare(rows)["rope"]


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ((0.90, 0.91, 0.92), "helps"),
        ((1.10, 1.11, 1.12), "hurts"),
        # Each row deviates by 0.01, so the standard error is 0.01 * sqrt(2 / 3) = 0.0082.
        ((0.964, 0.974, 0.984), "helps"),
        ((0.968, 0.978, 0.988), "no difference seen"),
    ],
)
def test_only_what_stands_out_of_the_noise_gets_a_verdict(losses: tuple[float, ...], verdict: str):
    assert compare([row("gpt2", 0.99, 1.00, 1.01), row("rope", *losses)])["rope"].verdict == verdict


def test_two_seeds_say_little_of_how_far_seeds_lie_apart():
    # Of two degrees of freedom, and so 4.3 standard errors in place of 3.
    rows = [row("gpt2", 1.500, 1.504), row("rope", 1.510, 1.514)]
    assert compare(rows)["rope"].verdict == "no difference seen"
    rows = [row("gpt2", 1.500, 1.504), row("rope", 1.514, 1.518)]
    assert compare(rows)["rope"].verdict == "hurts"


def test_one_seed_gets_no_verdict():
    assert compare([row("gpt2", 1.0), row("rope", 0.5)])["rope"].verdict == "one seed does not tell"


def test_an_unknown_row_gets_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'qk-norm'"):
        find_change("qknorm")


def test_step_7_is_the_recipe_of_the_baby():
    table = read_toml(ROOT / "recipes" / "shakespeare-baby.toml")
    assert make_recipe(table) == make_recipe(scaled_up.SETTINGS)
