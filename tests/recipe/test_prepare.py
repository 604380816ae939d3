from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folio.corpus.canaries import Canary
from folio.errors import UserError
from folio.recipe.budget import sample_less
from folio.recipe.build import build
from folio.recipe.evaluations import evaluation_interval
from folio.recipe.prepare import Prepared, prepare
from folio.recipe.recipe import make_recipe
from folio.recipe.sizing import Candidate
from folio.recipe.speed import Throughput, steps_in
from folio.training.config import TrainingConfig


def prepared(sources: list[str], **corpus: Any) -> tuple[Prepared, list[str]]:
    told: list[str] = []
    recipe = make_recipe({"corpus": {"sources": sources} | corpus})
    return prepare(recipe, told.append), told


def test_an_end_of_document_stands_between_documents_and_nowhere_else(tmp_path: Path):
    for name, text in (("a", "aaaa"), ("b", "bbbbbb"), ("v", "ab")):
        (tmp_path / f"{name}.txt").write_text(text)
    sources = [str(tmp_path / f"{name}.txt") for name in "ab"]
    result, _ = prepared(sources, validation=[str(tmp_path / "v.txt")], validation_fraction=0.0)
    text = result.tokenizer.decode(result.training())
    assert text == "aaaa<|endoftext|>bbbbbb"
    assert result.tokenizer.decode(result.validation()) == "ab"


def test_tiny_shakespeare_has_111_539_targets(shakespeare: Path):
    result, _ = prepared(["shakespeare"])
    assert len(result.training()) == 1_003_854
    assert len(result.validation()) - 1 == 111_539
    assert result.tokenizer.vocab_size == 67
    assert result.training().dtype == np.uint8


def test_the_vocabulary_is_that_of_the_training_part(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("ab" * 45 + "XYXYXYXYXY")
    result, _ = prepared([str(path)])
    assert result.tokenizer.characters == "ab"  # type: ignore[attr-defined]
    assert result.record["tokens"]["unknown_in_validation"] == 10
    assert any("10 of 10 validation tokens are unknown" in line for line in result.warnings)


def test_one_rare_character_of_a_long_text_is_no_warning(tmp_path: Path):
    path = tmp_path / "text.txt"
    words = "".join(f"the {i} of {i * i % 97} and\n" for i in range(2000))
    path.write_text(words + "§")
    result, _ = prepared([str(path)])
    assert result.record["tokens"]["unknown_in_validation"] == 1
    assert not any("unknown" in line for line in result.warnings)


def test_the_same_text_is_encoded_once_wherever_it_lies(book: Path):
    _, first = prepared([str(book)])
    copy = book.with_name("copy.txt")
    shutil.copy(book, copy)
    _, second = prepared([str(copy)])
    assert any("encoding" in line for line in first)
    assert not any("encoding" in line for line in second)


def test_a_text_is_encoded_anew_where_what_is_planted_is_written_otherwise(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    before, _ = prepared([str(book)], canaries=4)
    again, said = prepared([str(book)], canaries=4)
    assert before.files == again.files and not any("encoding" in line for line in said)
    monkeypatch.setattr(Canary, "line", property(lambda self: f"\nis {self.secret}\n"))
    after, _ = prepared([str(book)], canaries=4)
    assert before.files["train"] != after.files["train"]
    assert f"is {after.canaries[0].secret}" in after.tokenizer.decode(after.training())


def test_the_ledger_adds_up_with_what_was_dropped(tmp_path: Path, book: Path):
    (tmp_path / "extra.txt").write_text("More verses. " * 20)
    sources = [str(book), str(tmp_path / "extra.txt")]
    result, _ = prepared(sources, validation=[str(tmp_path / "extra.txt")], validation_fraction=0.0)
    ledger = result.record["ledger"]
    assert ledger["dropped"] == {"also in validation": 260}
    kept = ledger["training"] + ledger["validation"]
    assert kept + 260 == ledger["characters_in"] == 20_000 + 2 * 260
    assert any("260 (also in validation)" in line for line in result.warnings)


def test_validation_of_one_character_is_refused(book: Path, tmp_path: Path):
    (tmp_path / "v.txt").write_text("T")
    recipe = make_recipe(
        {
            "corpus": {
                "sources": [str(book)],
                "validation": [str(tmp_path / "v.txt")],
                "validation_fraction": 0,
            }
        }
    )
    result = prepare(recipe, lambda line: None)
    with pytest.raises(UserError, match="too few for a loss"):
        build(recipe, None, result.training(), result.validation())  # type: ignore[arg-type]


def test_evaluations_cost_about_a_twentieth_but_there_are_some():
    config = TrainingConfig(batch_size=10)
    # 100 tokens a step; an evaluation of 1,500 tokens costs 2 * 1500 / 3 / 100 = 10 steps.
    assert evaluation_interval(config, 1000, 10, 1500) == 200  # five of them, 50 of 1,000 steps
    assert evaluation_interval(config, 20, 10, 1500) == 7
    assert evaluation_interval(config, 100_000, 10, 1500) == 5000
    assert evaluation_interval(TrainingConfig(evaluation_interval=7), 20, 10, 1500) == 7


def test_where_evaluations_would_take_much_of_the_minutes_they_read_less_of_the_training_text():
    recipe, speed = make_recipe({}), Throughput(step_seconds=0.1, evaluation_seconds=4.0)
    assert sample_less(recipe, speed, 600.0, 60_000) == (recipe, speed)
    # No more than says something, whatever the time.
    usual, as_usual = sample_less(recipe, speed, 600.0, 160_000)
    assert usual.training.evaluation_sample == 65_536
    assert as_usual.evaluation_seconds == pytest.approx(4.0 * 225_536 / 320_000)
    smaller, faster = sample_less(recipe, speed, 80.0, 160_000)
    assert smaller.training.evaluation_sample == 20_000
    assert smaller.training.validation_sample == 0
    assert faster.evaluation_seconds == 4.0 * 180 / 320
    wanted = make_recipe({"training": {"evaluation_sample": 80_000}})
    kept, halved = sample_less(wanted, speed, 120.0, 160_000)
    assert kept == wanted and halved.evaluation_seconds == 3.0
    # A large model: half of all would be too dear, and so would be an eighth.
    least, much_faster = sample_less(recipe, replace(speed, evaluation_seconds=10.0), 20.0, 120_000)
    assert least.training.evaluation_sample == 2048
    assert much_faster.evaluation_seconds == pytest.approx(10.0 * 122_048 / 240_000)


def test_of_a_validation_text_that_would_take_much_of_the_minutes_they_read_a_sample():
    recipe, speed = make_recipe({}), Throughput(step_seconds=0.1, evaluation_seconds=100.0)
    changed, faster = sample_less(recipe, speed, 300.0, 2_500_000)
    config = changed.training
    assert 3 * faster.evaluation_seconds == pytest.approx(300 / 10, rel=0.01)
    assert config.validation_sample == pytest.approx(8 * config.evaluation_sample, abs=8)
    n_read = config.validation_sample + config.evaluation_sample
    assert faster.evaluation_seconds == pytest.approx(100 * n_read / 5_000_000)
    # The best step is chosen by it, so it is never small; and what is asked for is kept.
    assert sample_less(recipe, speed, 3.0, 2_500_000)[0].training.validation_sample == 131_072
    asked = make_recipe({"training": {"validation_sample": 5000}})
    assert sample_less(asked, speed, 300.0, 2_500_000)[0].training.validation_sample == 5000
    more = make_recipe({"training": {"validation_sample": 1_000_000}})
    usual = sample_less(make_recipe({}), speed, 600.0, 60_000)[1]
    assert sample_less(more, speed, 600.0, 60_000)[1] == usual, "of a text with fewer, all"


def test_a_size_is_not_refused_because_a_long_validation_text_takes_long_to_read():
    recipe = make_recipe({"model": {"vocab_size": 100}})
    speed = Throughput(step_seconds=0.1, evaluation_seconds=600.0)
    candidate = Candidate(recipe, speed, True, 5.0, 25_000_000, 2_500_000, 0, 1 << 40)
    assert candidate.steps == pytest.approx(3000 * 3 / 4, rel=0.2)


def test_steps_leave_time_for_evaluations():
    config = TrainingConfig(batch_size=10, evaluation_interval=10)
    # Ten steps of 1 s and one evaluation of 2 s make 12 s.
    assert steps_in(60, Throughput(1.0, 2.0), config, 10, 1500) == 50
    assert steps_in(0.5, Throughput(1.0, 2.0), config, 10, 1500) == 1
