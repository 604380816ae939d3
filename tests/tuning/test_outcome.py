"""What a study found: which trial is best, and which are as good."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="folio tune needs Optuna: pip install foliolm[tune]")

from folio.config import Table
from folio.tuning.outcome import count_tied, look
from folio.tuning.page import summary
from folio.tuning.space import DEFAULT_SPACE, MUON_SPACE
from folio.tuning.study import Study
from folio.tuning.worker import work
from tests.tuning.studies import RECIPE, MakeStudy, never


@pytest.mark.parametrize(("far", "n_tied"), [(0.027, 3), (0.028, 2)])
def test_ties_are_within_what_seeds_explain(far: float, n_tied: int):
    # Four pairs with deviation 0.01: so is the standard error of a difference of two means of two,
    # and with four degrees of freedom 2.776 of them hold 95 %.
    means = [1.0, 1.01, 1.0 + far, 1.1]
    pairs = [[m - 0.01 / 2**0.5, m + 0.01 / 2**0.5] for m in means]
    assert count_tied([*pairs, []]) == n_tied


@pytest.mark.parametrize("space", [DEFAULT_SPACE, MUON_SPACE])
def test_the_table_of_a_study_fits_into_80_columns(finished: Study, space: Table):
    drawn: Table = {f"{part}.{name}": 0.00123 for part in space for name in space[part]}
    outcome = look(finished, finished.connect())
    rows = [replace(row, values=drawn, parameters=99_000_000, seconds=3599) for row in outcome.rows]
    told = summary(finished, replace(outcome, rows=rows, best=rows[:1]))
    tables = told[: told.index("trials  ")]
    assert max(map(len, tables.splitlines())) <= 80
    assert "n_layers" in tables and tables.count("0.00123") == len(drawn) * len(rows)


def test_without_a_second_seed_nothing_is_tied():
    assert count_tied([[1.0], [1.0], []]) == 1 and count_tied([]) == 0


def test_a_recipe_that_diverges_with_another_seed_comes_last_and_is_no_noise(
    finished: Study, monkeypatch: pytest.MonkeyPatch
):
    study = replace(finished, config=replace(finished.config, repeats=1))
    best, other = (row.number for row in look(study, study.connect()).best)
    for n_repeated, number, reason in ((1, best, "non-finite"), (2, other, "finished")):
        monkeypatch.setattr("folio.tuning.outcome.REPEATED", n_repeated)
        repeat = shutil.copytree(study.trial_run(number).path, study.repeat_run(number, 2).path)
        metrics = repeat / "metrics.jsonl"
        metrics.write_text(metrics.read_text().replace('"finished"', f'"{reason}"'))
        outcome = look(study, study.connect())
        assert [row.number for row in outcome.best] == [other, best]
    assert outcome.best[1].losses[1] == math.inf
    assert outcome.noise == 0 and outcome.n_tied == 1  # of the two that are the same run


def test_a_trial_that_was_not_repeated_yet_comes_after_those_that_were(
    finished: Study, monkeypatch: pytest.MonkeyPatch
):
    study = replace(finished, config=replace(finished.config, repeats=1))
    best, other = (row.number for row in look(study, study.connect()).best)
    monkeypatch.setattr("folio.tuning.outcome.REPEATED", 2)
    shutil.copytree(study.trial_run(other).path, study.repeat_run(other, 2).path)
    found = look(study, study.connect()).best
    assert [row.number for row in found] == [other, best]
    assert len(found[0].losses) == 2


def test_what_was_saved_is_told_of_each_trial_in_full(make_study: MakeStudy):
    sizes = {"training": {"batch_size": {"choices": [2, 16]}}}
    study = make_study(sizes, trials=5)
    work(study, never)
    rows = look(study, study.connect()).rows
    values = [row.values["training.batch_size"] for row in rows]
    assert set(values) == {2, 16}
    in_full = sum(RECIPE["training"]["max_steps"] * 16 * n_windows for n_windows in values)
    share = look(study, study.connect()).share
    assert share == pytest.approx(sum(row.tokens for row in rows) / in_full)


def test_a_tokenizer_that_lacks_characters_of_the_held_out_text_has_no_bits_per_byte(
    make_study: MakeStudy, book: Path
):
    text = book.read_text(encoding="utf-8")
    book.write_text(text[:-100] + "ø" * 100, encoding="utf-8")
    space = {"tokenizer": {"kind": {"choices": ["character", "auto"]}}}
    study = make_study(space, trials=1)
    work(study, never)
    (row,) = look(study, study.connect()).rows
    assert row.state == "failed" and "tokens of the validation text are unknown" in row.error
