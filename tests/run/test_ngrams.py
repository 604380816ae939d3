"""A run that counts n-grams is read beside them, whichever verb reads it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import folio
from folio import jit
from folio.cli.main import main
from folio.config import Table
from folio.errors import UserError
from folio.export.card import losses
from folio.generation.sampling import SamplingConfig
from folio.model.gpt import GPT
from folio.ngrams.fit import RULES
from folio.ngrams.gpt import GPTWithNGrams
from folio.ngrams.table import NGrams, count_ngrams
from folio.ngrams.window import count_targets, mix_in_targets
from folio.recipe.recipe import Recipe
from folio.recipe.resume import resume_run
from folio.recipe.watcher import Watcher
from folio.run import add_ngrams
from folio.run.directory import Run
from folio.run.in_window import score_in_windows
from folio.run.model import Model
from folio.run.ngrams import read_ngram_weights, told_loss
from folio.run.opening import open_run, open_to_write
from folio.run.writer import CompiledWriter, Writer
from folio.storage import write_json
from folio.training.state import TrainingState
from tests.recall.making import prose, train_on, with_names

ORDER = 6


def trained(
    folder: Path, steps: int = 6, words: int = 3000, ngrams: Table | None = None, **settings: Any
) -> Model:
    path = folder / "book.txt"
    path.write_text(with_names(prose(words, seed=1)))
    counted = {"order": ORDER} | (ngrams or {})
    return train_on(path, "counted", steps=steps, ngrams=counted, **settings)


class Watching(Watcher):
    """Notes at each step whether the run has n-grams."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run, self.weighed = run, list[bool]()

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        self.weighed.append(self.run.ngram_weights_file.exists())


def text_of(opened: Writer, compiled: bool | None = None) -> str:
    """Longer than the context of 64."""
    config = SamplingConfig(temperature=1.0, seed=3)
    drawn = opened.write(["river"], config, 150, stop=False, compiled=compiled)
    return "".join(token.text for _, token in drawn)


def test_the_end_of_training_counts_weighs_and_tells(tmp_path: Path):
    opened = trained(tmp_path)
    record, network = read_ngram_weights(opened.run), opened.model
    assert record is not None and isinstance(network, GPTWithNGrams)
    counted = count_ngrams(opened.training(), ORDER, opened.config.vocab_size)
    assert (record["order"], record["ngrams"]) == (ORDER, len(counted))
    assert record["weights"] == network.weights._asdict()
    assert record["with"] < record["without"] - 0.3, "six steps know less than counting"
    assert record["window"]["loss"] < record["with"] - 0.1, "its names stand nowhere else"

    held_out = json.loads(opened.run.held_out_file.read_text())[0]["nats_per_token"]
    exact = opened.evaluate(opened.validation())[0].nats_per_token
    assert abs(held_out - exact) < 1e-4 and abs(exact - told_loss(record)) < 0.02
    card = opened.run.card_file.read_text()
    assert f"{len(counted):,} of up to {ORDER} tokens" in card and f"{record['with']:.4f}" in card


def test_the_loss_is_that_of_the_product(tmp_path: Path):
    opened = trained(tmp_path)
    network = opened.model
    assert isinstance(network, GPTWithNGrams)
    ids = np.asarray(opened.validation()[:65], np.int64)
    score, nll = opened.score(opened.validation()[:65])
    with torch.no_grad():
        logits = GPT.forward(network, torch.from_numpy(ids[None, :64]))[0]
    counted = torch.from_numpy(network.ngrams.probabilities(ids[None, :64])[0]).log()
    product = network.weights.product(logits, counted).softmax(1)
    of_targets = product.gather(1, torch.from_numpy(ids[1:, None]))[:, 0].double().numpy()
    assert network.rule is not None and network.rule in RULES
    expected = -np.log(mix_in_targets(of_targets, count_targets(ids[:64], ids[1:]), network.rule))
    np.testing.assert_allclose(nll, expected, atol=1e-4)
    assert score.targets == 64


def test_a_seed_writes_one_text_however_it_is_read(tmp_path: Path):
    opened = trained(tmp_path)
    text = text_of(opened, compiled=False)
    assert text == text_of(opened) and len(set(text)) > 10
    one, other = opened.generate_batch(["river", "a"], seed=3, max_tokens=20)
    assert one == opened.generate("river", seed=3, max_tokens=20)
    assert other == opened.generate("a", seed=4, max_tokens=20)
    if jit.available():
        writer = open_to_write(opened.run)
        assert isinstance(writer, CompiledWriter)
        assert text_of(writer) == text
    opened.run.ngram_weights_file.unlink()
    assert text_of(open_run(opened.run)) != text


def test_while_a_run_trains_on_it_is_read_without_them(tmp_path: Path):
    run = trained(tmp_path).run
    before = read_ngram_weights(run)
    watcher = Watching(run)
    resume_run(run, {"training": {"max_steps": 9}}, watcher)
    after = read_ngram_weights(run)
    assert before is not None and after is not None
    assert watcher.weighed == [False] * 3
    assert run.events("step")[-1]["step"] == 9


def test_of_a_text_too_short_to_weigh_them_there_are_none(tmp_path: Path):
    opened = trained(tmp_path, words=300)
    assert len(opened.validation()) < 257
    assert not opened.run.ngram_weights_file.exists()
    assert not isinstance(opened.model, GPTWithNGrams)


def test_old_text_that_is_kept_is_counted_too(tmp_path: Path):
    first = trained(tmp_path)
    path = tmp_path / "other.txt"
    path.write_text(prose(3000, seed=2).upper())
    settings: dict[str, Any] = {
        "start": {"run": str(first.run.path), "keep": 0.5},
        "training": {"max_steps": 6},
        "device": {"kind": "cpu", "threads": 1},
    }
    result = folio.train(str(path), name="on", ngrams={"order": 3}, **settings)
    opened = folio.load(str(result.run.path))
    network, (new, old) = opened.model, opened.learned()
    assert isinstance(network, GPTWithNGrams)
    expected = count_ngrams(np.concatenate([old, new]), 3, opened.config.vocab_size)
    rows = np.asarray(old[None, :60], np.int64)
    np.testing.assert_array_equal(network.ngrams.probabilities(rows), expected.probabilities(rows))


def test_before_and_after_are_both_told_of_the_model_alone(tmp_path: Path):
    first = trained(tmp_path)
    path = tmp_path / "other.txt"
    path.write_text(with_names(prose(3000, seed=2)))
    settings: dict[str, Any] = {
        "start": {"run": str(first.run.path), "keep": 0.25},
        "training": {"max_steps": 6},
        "device": {"kind": "cpu", "precision": "float32", "threads": 1},
    }
    run = folio.train(str(path), name="on", ngrams={"order": ORDER}, **settings).run
    after = folio.load(str(run.path))
    texts = {"new": after.validation(), "old": first.validation()}
    for opened in (first, after):
        opened.run.ngram_weights_file.unlink()
    models = [folio.load(str(opened.run.path)) for opened in (first, after)]
    card = run.card_file.read_text()
    for name, text in texts.items():
        before, alone = (model.score(text)[0].nats_per_token for model in models)
        assert after.score(text)[0].nats_per_token < alone - 0.5
        row = f"| {name} text, before and after, without n-grams | {before:.4f}, {alone:.4f}: it "
        assert row in card


@pytest.mark.parametrize("content", ["{}", '{"weights": {"model": 1.0}}', '{"weights": 3}', "[]"])
def test_damaged_weights_are_named(content: str, tmp_path: Path):
    run = trained(tmp_path).run
    run.ngram_weights_file.write_text(content)
    with pytest.raises(UserError, match=r"ngrams\.json is damaged"):
        open_run(run)


def test_lost_ngrams_are_named(tmp_path: Path):
    run = trained(tmp_path).run
    run.ngrams_file.unlink()
    with pytest.raises(UserError, match=r"ngrams\.safetensors"):
        open_run(run)


def test_the_preset_is_modern_with_ngrams():
    research, modern = Recipe.of(preset="research"), Recipe.of(preset="modern")
    windows = research.model.context_length
    assert research.model == replace(modern.model, context_length=windows)
    assert research.optimizer == modern.optimizer and windows > modern.model.context_length
    assert (research.ngrams.order, modern.ngrams.order) == (10, 0)
    with pytest.raises(UserError, match=r"ngrams\.order must be 0 to 20, got 21"):
        Recipe.of(ngrams={"order": 21})


def test_a_tree_of_byte_pairs_is_one_too(tmp_path: Path):
    opened = trained(tmp_path, tokenizer={"kind": "bpe", "vocab_size": 300})
    network = opened.model
    assert isinstance(network, GPTWithNGrams) and network.ngrams.vocab_size == 300
    score, nll = opened.score(opened.validation())
    assert math.isfinite(score.record(opened.tokenizer)["bits_per_byte"])
    assert score_in_windows(opened, opened.validation(), nll) is None, "it reads so anyway"
    assert isinstance(NGrams.load(opened.run.ngrams_file), NGrams)


def test_evaluating_and_listing_tell_both_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    record = read_ngram_weights(trained(tmp_path).run)
    assert record is not None
    for command in (["evaluate", "counted"], ["runs"]):
        main(command)
        shown = capsys.readouterr().out
        assert "n-grams" in shown and f"{told_loss(record):.4f}" in shown, command


def test_a_window_that_does_not_help_does_not_count(tmp_path: Path):
    path = tmp_path / "book.txt"
    path.write_text(prose(3000, seed=1))  # whose words come as they were drawn
    opened = train_on(path, "even", steps=6, ngrams={"order": ORDER})
    record = read_ngram_weights(opened.run)
    assert record is not None and "window" not in record
    assert isinstance(opened.model, GPTWithNGrams) and opened.model.rule is None


def test_a_vocabulary_as_large_as_they_come_has_ngrams_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(add_ngrams, "MOST_LOGITS", 1)  # so few that no target would be read
    record = read_ngram_weights(trained(tmp_path).run)
    assert record is not None and record["targets"] >= add_ngrams.FEWEST_TARGETS


def test_of_a_long_text_the_last_tokens_are_counted(tmp_path: Path):
    opened = trained(tmp_path, ngrams={"tokens": 2000})
    assert isinstance(opened.model, GPTWithNGrams)
    rows, size = np.asarray(opened.validation()[:60])[None], opened.model.config.vocab_size
    of_the_end = count_ngrams(opened.training()[-2000:], ORDER, size).probabilities(rows)
    np.testing.assert_array_equal(opened.model.ngrams.probabilities(rows), of_the_end)
    record = read_ngram_weights(opened.run)
    assert record is not None and record["tokens"] == 2000 < len(opened.training())


def test_a_run_without_the_window_reads_as_it_writes(tmp_path: Path):
    opened = trained(tmp_path, ngrams={"window": False})
    assert isinstance(opened.model, GPTWithNGrams)
    assert opened.model.rule is None
    record = read_ngram_weights(opened.run)
    assert record is not None and told_loss(record) == record["with"]


def test_a_card_tells_the_loss_of_what_leaves_which_knows_nothing_of_the_window(tmp_path: Path):
    opened = trained(tmp_path)
    record = read_ngram_weights(opened.run)
    assert record is not None
    record["window"]["loss"] = record["with"] / 2
    write_json(opened.run.ngram_weights_file, record)
    assert told_loss(record) == record["window"]["loss"]
    said = f"{record['with']:.4f} nats per token over {record['targets']:,} targets"
    assert list(losses(opened)) == [("loss, validation (with n-grams)", said)]
