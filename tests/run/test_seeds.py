"""Chance between seeds and between texts are told apart, and recipes by more than a seed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from folio.run.directory import Run
from folio.run.formats import stamped
from folio.run.seeds import Seeds, group_by_recipe, over_seeds
from folio.storage import write_json


def run_of(
    folder: Path, name: str, seed: int, best: float | None, **changed: Any
) -> tuple[Run, dict[str, Any]]:
    """A run as its recipe says it is, and the facts that count."""
    entries: dict[str, Any] = {"rate": 0.1, "text": "a.txt", "holds": "1f", "pace": [], "steps": 5}
    entries |= changed
    run = Run(folder / name)
    run.path.mkdir()
    run.recipe_file.write_text(
        f"seed = {seed}\n[corpus]\nsources = ['{entries['text']}']\n[tokenizer]\nkind = 'bpe'\n"
        f"[optimizer]\nlearning_rate = {entries['rate']}\n[schedule]\npace = {entries['pace']}\n"
        f"[training]\nmax_steps = {entries['steps']}\n[device]\nthreads = {seed}\n",
        encoding="utf-8",
    )
    source = {"source": entries["text"], "sha256": entries["holds"], "characters": 100}
    corpus = {"ledger": {}, "sources": [source], "tokens": {"training": 90}}
    write_json(run.corpus_file, stamped("corpus", corpus))
    facts = {"best_validation_loss": best, "standard_error": 0.02}
    return run, facts | {"state": entries.get("state", "finished")}


def grouped(*made: tuple[Run, dict[str, Any]]) -> list[Seeds]:
    return group_by_recipe(*zip(*made))


def test_runs_that_differ_in_seed_and_device_alone_are_one_group(tmp_path: Path):
    runs = [
        run_of(tmp_path, "a1", 1, 1.5),
        run_of(tmp_path, "b1", 1, 1.4, rate=0.2),
        run_of(tmp_path, "a2", 2, 1.6),
        run_of(tmp_path, "again", 2, 1.6),  # the same seed says nothing new
        run_of(tmp_path, "nothing yet", 3, None),
        run_of(tmp_path, "diverged", 4, math.inf),
    ]
    groups = grouped(*runs)
    assert [(group.names, group.losses) for group in groups] == [
        (["a1", "a2"], [1.5, 1.6]),
        (["b1"], [1.4]),
    ]


def test_counts_that_a_later_version_adds_make_no_other_text(tmp_path: Path):
    one, other = run_of(tmp_path, "a1", 1, 1.5), run_of(tmp_path, "a2", 2, 1.6)
    corpus = other[0].corpus()
    corpus["tokens"]["lost_bytes"] = [0, 90]
    write_json(other[0].corpus_file, corpus)
    assert [group.names for group in grouped(one, other)] == [["a1", "a2"]]


def test_steps_that_a_clock_decided_make_no_other_recipe(tmp_path: Path):
    timed = [run_of(tmp_path, f"t{i}", i, 1.0, pace=[f"0:{i}"], steps=i) for i in (1, 2)]
    asked = [run_of(tmp_path, f"s{i}", i, 1.0, steps=i) for i in (1, 2)]
    assert [len(group.names) for group in grouped(*timed, *asked)] == [2, 1, 1]


def test_both_errors_are_told_and_a_difference_beyond_that_of_seeds(tmp_path: Path):
    first = [run_of(tmp_path, f"a{i}", i, x) for i, x in enumerate([1.50, 1.52, 1.54])]
    second = [run_of(tmp_path, f"b{i}", i, x, rate=0.2) for i, x in enumerate([1.40, 1.42])]
    near = run_of(tmp_path, "c", 1, 1.49, rate=0.3)
    elsewhere = run_of(tmp_path, "d", 1, 0.5, text="b.txt")
    # Squares around the means: 0.0008 of the first, 0.0002 of the second, over 3 degrees.
    deviation = math.sqrt(0.001 / 3)
    assert over_seeds(grouped(*first, near, *second, elsewhere)) == [
        "a0, a1, a2 differ in their seeds alone: 1.5200 nats per token, "
        f"± {deviation / math.sqrt(3):.4f} over 3 models; ± 0.0200 over texts",
        "b0, b1 differ in their seeds alone: 1.4100 nats per token, "
        f"± {deviation / math.sqrt(2):.4f} over 2 models; ± 0.0200 over texts",
        "the recipes of a0, a1, a2 and c cannot be told apart: "
        f"0.0300 ± {deviation * math.sqrt(4 / 3):.4f} nats per token over models",
        "the recipe of b0, b1 is better than that of a0, a1, a2 by "
        f"0.1100 ± {deviation * math.sqrt(5 / 6):.4f} nats per token over models",
    ]


def test_runs_of_a_file_that_was_changed_between_them_are_not_compared(tmp_path: Path):
    runs = [run_of(tmp_path, f"a{i}", i, 1.5) for i in (1, 2)]
    later = [run_of(tmp_path, f"b{i}", i, 0.5, holds="2e") for i in (3, 4)]
    other = run_of(tmp_path, "c", 1, 1.4, rate=0.2, holds="2e")
    groups = grouped(*runs, *later, other)
    assert [group.names for group in groups] == [["a1", "a2"], ["b3", "b4"], ["c"]]
    assert len(over_seeds(groups)) == 2, "of the seeds of each, and of no two"


def test_a_run_that_did_not_come_to_its_end_is_no_seed_and_is_named(tmp_path: Path):
    ended = [run_of(tmp_path, f"a{i}", i, 1.5 + i, state="patience") for i in (1, 2)]
    stopped = [
        run_of(tmp_path, f"b{i}", i, 9.0, state=state)
        for i, state in ((3, "interrupted"), (4, "non-finite"))
    ]
    alone = run_of(tmp_path, "c", 1, 9.0, rate=0.2, state="not ended")
    named = "not among the seeds, being unfinished: b3 (interrupted), b4 (non-finite)"
    assert over_seeds(grouped(*stopped, alone, *ended)) == [named, *over_seeds(grouped(*ended))]
    assert over_seeds(grouped(*stopped)) == [named]
    resumed = run_of(tmp_path, "d3", 3, 1.4)
    assert [group.names for group in grouped(stopped[0], resumed, *ended)] == [["d3", "a1", "a2"]]


def test_single_runs_say_nothing_about_seeds(tmp_path: Path):
    runs = [run_of(tmp_path, "a", 1, 1.5), run_of(tmp_path, "b", 1, 1.4, rate=0.2)]
    assert over_seeds(grouped(*runs)) == []


def test_two_seeds_are_too_few_for_a_difference_of_four_errors(tmp_path: Path):
    runs = [run_of(tmp_path, f"a{i}", i, x) for i, x in enumerate([1.50, 1.52])]
    other = run_of(tmp_path, "b", 1, 1.45, rate=0.2)
    error = 0.02 / math.sqrt(2) * math.sqrt(3 / 2)
    assert 3 * error < 1.51 - 1.45 < 12 * error
    assert "cannot be told apart" in over_seeds(grouped(*runs, other))[-1]
