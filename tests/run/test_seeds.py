"""Chance between seeds and between texts are told apart, and recipes by more than a seed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from folio.run.directory import Run
from folio.run.seeds import group_by_recipe, over_seeds


def run_of(folder: Path, name: str, seed: int, losses: list[float], **changed: Any) -> Run:
    """A run as its files say it is: a recipe, and the validation losses."""
    entries: dict[str, Any] = {"rate": 0.1, "text": "a.txt", "pace": [], "steps": 5} | changed
    run = Run(folder / name)
    run.path.mkdir()
    run.recipe_file.write_text(
        f"seed = {seed}\n[corpus]\nsources = ['{entries['text']}']\n[tokenizer]\nkind = 'bpe'\n"
        f"[optimizer]\nlearning_rate = {entries['rate']}\n[schedule]\npace = {entries['pace']}\n"
        f"[training]\nmax_steps = {entries['steps']}\n[device]\nthreads = {seed}\n",
        encoding="utf-8",
    )
    lines = [
        {"event": "evaluation", "step": i, "validation_loss": loss, "standard_error": 0.02}
        for i, loss in enumerate(losses)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    run.metrics_file.write_text(text, encoding="utf-8")
    return run


def test_runs_that_differ_in_seed_and_device_alone_are_one_group(tmp_path: Path):
    runs = [
        run_of(tmp_path, "a1", 1, [2.0, 1.5, 1.7]),
        run_of(tmp_path, "b1", 1, [1.4], rate=0.2),
        run_of(tmp_path, "a2", 2, [1.6]),
        run_of(tmp_path, "again", 2, [1.6]),  # the same seed says nothing new
        run_of(tmp_path, "nothing yet", 3, []),
        run_of(tmp_path, "diverged", 4, [math.nan]),
    ]
    groups = group_by_recipe(runs)
    assert [(group.names, group.losses) for group in groups] == [
        (["a1", "a2"], [1.5, 1.6]),
        (["b1"], [1.4]),
    ]


def test_steps_that_a_clock_decided_make_no_other_recipe(tmp_path: Path):
    timed = [run_of(tmp_path, f"t{i}", i, [1.0], pace=[f"0:{i}"], steps=i) for i in (1, 2)]
    asked = [run_of(tmp_path, f"s{i}", i, [1.0], steps=i) for i in (1, 2)]
    assert [len(group.names) for group in group_by_recipe([*timed, *asked])] == [2, 1, 1]


def test_both_errors_are_told_and_a_difference_beyond_that_of_seeds(tmp_path: Path):
    first = [run_of(tmp_path, f"a{i}", i, [x]) for i, x in enumerate([1.50, 1.52, 1.54])]
    second = [run_of(tmp_path, f"b{i}", i, [x], rate=0.2) for i, x in enumerate([1.40, 1.42])]
    near = run_of(tmp_path, "c", 1, [1.49], rate=0.3)
    elsewhere = run_of(tmp_path, "d", 1, [0.5], text="b.txt")
    # Squares around the means: 0.0008 of the first, 0.0002 of the second, over 3 degrees.
    deviation = math.sqrt(0.001 / 3)
    assert over_seeds(group_by_recipe([*first, near, *second, elsewhere])) == [
        "a0, a1, a2 differ in their seeds alone: 1.5200 nats per token, "
        f"± {deviation / math.sqrt(3):.4f} over 3 models; ± 0.0200 over texts",
        "b0, b1 differ in their seeds alone: 1.4100 nats per token, "
        f"± {deviation / math.sqrt(2):.4f} over 2 models; ± 0.0200 over texts",
        "the recipes of a0, a1, a2 and c cannot be told apart: "
        f"0.0300 ± {deviation * math.sqrt(4 / 3):.4f} nats per token over models",
        "the recipe of b0, b1 is better than that of a0, a1, a2 by "
        f"0.1100 ± {deviation * math.sqrt(5 / 6):.4f} nats per token over models",
    ]


def test_single_runs_say_nothing_about_seeds(tmp_path: Path):
    runs = [run_of(tmp_path, "a", 1, [1.5]), run_of(tmp_path, "b", 1, [1.4], rate=0.2)]
    assert over_seeds(group_by_recipe(runs)) == []


def test_two_seeds_are_too_few_for_a_difference_of_four_errors(tmp_path: Path):
    runs = [run_of(tmp_path, f"a{i}", i, [x]) for i, x in enumerate([1.50, 1.52])]
    other = run_of(tmp_path, "b", 1, [1.45], rate=0.2)
    error = 0.02 / math.sqrt(2) * math.sqrt(3 / 2)
    assert 3 * error < 1.51 - 1.45 < 12 * error
    assert "cannot be told apart" in over_seeds(group_by_recipe([*runs, other]))[-1]


@pytest.mark.parametrize("freedom", [1, 2, 5, 10])
def test_the_quantile_holds_95_percent_of_students_distribution(freedom: int):
    from folio.evaluation.uncertainty import student_quantile

    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2)
    scale /= math.sqrt(freedom * math.pi)
    n, end = 20_000, student_quantile(freedom)
    middles = ((i + 0.5) * end / n for i in range(n))
    inside = sum((1 + t * t / freedom) ** (-(freedom + 1) / 2) for t in middles) * end / n
    assert 2 * scale * inside == pytest.approx(0.95, abs=1e-4)
