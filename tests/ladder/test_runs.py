"""What a row of step 9 says of its runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.config import Table, merge
from folio.errors import UserError
from folio.ladder.ablation import Budget, Row, find_change, settings_of
from folio.ladder.runs import ensure_run, row_of
from folio.recipe.watcher import Watcher
from folio.run.directory import Run
from folio.storage import read_json

SMALL: Table = {"model": {"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16}}


def trained(name: str, text: Path) -> tuple[Run, Row]:
    change, budget = find_change(name), Budget(max_steps=3)
    settings = merge(settings_of(change, 1, [str(text)], budget), SMALL)
    run, complete = ensure_run(budget.run_name(change, 1), settings, Watcher())
    assert complete
    return run, row_of(change, [run])


def test_the_loss_of_a_row_with_n_grams_is_that_of_model_and_n_grams(book: Path):
    run, row = trained("n-grams", book)
    alone = run.events("evaluation")[-1]["validation_loss"]
    # As the run is read afterwards: both together, by weights of the whole held-out text.
    (held_out,) = read_json(run.held_out_file, list)
    assert row.losses == [pytest.approx(held_out["nats_per_token"], abs=0.01)]
    assert row.losses[0] < 0.5 < 3 < alone, "n-grams know a text of verses, three steps nothing"
    assert row.steps == [3]


def test_the_loss_of_a_row_without_n_grams_is_its_models(book: Path):
    run, row = trained("gpt2", book)
    assert row.losses == [run.events("evaluation")[-1]["validation_loss"]]


def test_a_run_is_not_compared_with_one_of_the_text_before_it_was_changed(book: Path):
    first, _ = trained("gpt2", book)
    change, budget = find_change("gpt2"), Budget(max_steps=3)

    def again(seed: int) -> tuple[Run, bool]:
        settings = merge(settings_of(change, seed, [str(book)], budget), SMALL)
        return ensure_run(budget.run_name(change, seed), settings, Watcher(), beside=first)

    assert again(seed=2)[1]
    book.write_text(book.read_text(encoding="utf-8").replace("e", "u"), encoding="utf-8")
    assert again(seed=2)[1], "what was trained before"
    with pytest.raises(UserError, match="cannot be compared: the text was changed between them"):
        again(seed=3)


def test_a_text_too_short_for_weights_leaves_the_models_loss(tmp_path: Path):
    text = tmp_path / "short.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 40, encoding="utf-8")
    run, row = trained("n-grams", text)  # 1,800 characters, of which 180 are held out
    assert not run.ngram_weights_file.exists()
    assert row.losses == [run.events("evaluation")[-1]["validation_loss"]]
