"""The benchmarks measure what they say."""

from __future__ import annotations

import doctest
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import folio
from bench import ensemble, goldfish, readers
from bench.cluster import measured as sent_in
from bench.cluster import ratio, sent_seconds
from bench.loss_rule import RecordedRun, fit_rule, predictions_of_unseen_texts
from bench.plain_loop import Shape
from bench.published import ALL_REDUCES, RUNS
from bench.training import check_same_function, recipe_of
from folio.evaluation.frequencies import count_tokens, frequency_loss
from folio.evaluation.score import exact_score, exact_windows
from folio.recipe.expected_loss import LossRule
from folio.run.model import Model
from folio.run.opening import open_run
from folio.testing import tiny_gpt
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer


def test_the_plain_loop_trains_the_same_function_as_the_gpt2_preset():
    shape = Shape(vocab_size=61, context_length=31, n_layers=2, n_heads=3, d_model=24)
    check_same_function(shape, recipe_of(shape, {}))


def test_the_calibration_finds_the_rule_that_made_the_runs():
    """Two texts, each with a floor and a scale; the rule lies between the places of the grid."""
    truth = LossRule(1.2, 0.3, 0.55, 6.0, 3000.0, 0.0)

    def run(text: str, size: str, n: int, batch: int, steps: int) -> RecordedRun:
        tokens, floor, scale = {"a": (300_000, 1.0, 0.2), "b": (1_000_000, 1.3, 0.1)}[text]
        blank = RecordedRun(text, size, n, batch, steps, tokens, 0.0)
        return replace(blank, loss=floor + scale * truth.shortfall(blank.budget))

    runs = [
        run(text, size, n, batch, steps)
        for text in "ab"
        for size, n, batch in (("nano", 800_000, 768), ("mini", 4_700_000, 4096))
        for steps in (150, 500, 2000)
    ]
    assert fit_rule(runs).band < 0.06
    for found, guess in predictions_of_unseen_texts(runs):
        assert guess == pytest.approx(found.loss, rel=0.05)


def test_runs_that_learned_conversations_are_no_ensemble(
    book: Path, monkeypatch: pytest.MonkeyPatch
):
    run = folio.train(str(book), name="talks", size="nano", training={"max_steps": 1}).run
    run.tokens_file("train.mask").touch()
    monkeypatch.setattr("sys.argv", ["ensemble", "talks"])
    with pytest.raises(SystemExit, match=r"^talks learned conversations, of which "):
        ensemble.main()


def test_several_models_are_better_than_one_on_the_mean_and_one_can_learn_from_them(
    book: Path,
):
    settings: dict[str, Any] = {
        "model": {"n_layers": 1, "d_model": 16, "n_heads": 2, "context_length": 16},
        "training": {"max_steps": 60, "evaluation_interval": 30, "batch_size": 4},
        "device": {"kind": "cpu", "precision": "float32", "threads": 1},
    }
    members = []
    for seed in (1, 2):
        result = folio.train(str(book), name=f"seed-{seed}", seed=seed, **settings)
        members.append(open_run(result.run))
    text = ensemble.held_out(members[0])
    windows = exact_windows(len(text), 16)
    tables = [ensemble.probabilities(member.model, text, windows) for member in members]
    one, other, both = (
        ensemble.mean_loss(table, text) for table in (*tables, ensemble.mean_of(tables))
    )
    assert one == pytest.approx(result_of(members[0]), abs=1e-4)
    assert both < (one + other) / 2
    distilled = [  # the first is to learn from the text alone
        ensemble.probabilities(ensemble.distil(members, weight, seed), text, windows)
        for weight, seed in ((0.0, 1), (0.9, 3))
    ]
    like_one, like_both = (ensemble.mean_loss(table, text) for table in distilled)
    assert like_one == pytest.approx(one, abs=1e-3)
    counts = count_tokens(members[0].training(), 100)
    assert both < like_both < frequency_loss(counts, text)

    written = ensemble.written_by(members, 3000, seed=1)
    assert len(written) == 3000 and written.max() < members[0].tokenizer.vocab_size
    alike = frequency_loss(counts, text) - frequency_loss(counts, written)
    assert abs(alike) < 0.5, "what they wrote has other characters"
    more = ensemble.distil(members, 0.9, 3, written, {"training": {"max_steps": 90}})
    loss_of_more = ensemble.mean_loss(ensemble.probabilities(more, text, windows), text)
    assert loss_of_more < like_both

    counted = ensemble.expected_by_ngrams(members[0], 4, text, windows)
    assert counted is not None and ensemble.expected_by_ngrams(members[0], 0, text, windows) is None
    beside = ensemble.loss_beside(tables[0], counted, text, windows)
    assert beside < min(one, ensemble.mean_loss(counted, text)) + 0.01


def result_of(member: Model) -> float:
    return exact_score(member.model, member.validation(), 16).nats_per_token


def test_words_are_counted_as_the_examples_say():
    assert doctest.testmod(readers).failed == 0


def test_every_word_arrives_from_ten_documents_in_six_scripts():
    pytest.importorskip("reportlab")
    documents = readers.make_documents()
    assert len(documents) == 10
    for document in documents:
        recall, precision, order = readers.measure(readers.by_folio(document.pdf), document.text)
        assert recall == precision == 1.0
        assert order > 0.95


def test_planted_passages_stand_as_often_as_they_say_and_not_in_what_is_held_out():
    whole = "".join(f"{i} is a number, {i * i} is its square.\n" for i in range(3000))
    text, passages = goldfish.plant(whole, 40_000)
    for times, of in zip(goldfish.TIMES, passages):
        assert len(of) == goldfish.EACH
        for passage in of:
            assert text.count(passage) == times
            assert passage not in text[-round(goldfish.HELD_OUT * 40_000) :]


def test_bits_of_a_passage_are_those_of_its_tokens_after_the_beginning_that_is_given():
    passage = "".join(f"{i} and " for i in range(40))
    tokenizer = CharacterTokenizer.train([passage])
    model = tiny_gpt(vocab_size=tokenizer.vocab_size, context_length=128)
    opened: Any = SimpleNamespace(model=model, tokenizer=tokenizer)
    ids = torch.tensor(list(map(int, tokenizer.encode(passage))))
    chances = model(ids[None, :113])[0].detach().log_softmax(1)
    expected = -sum(float(chances[i - 1, ids[i]]) for i in range(64, 114)) / math.log(2)
    bits, at_once = goldfish.bits_of(opened, passage)
    assert bits == pytest.approx(expected, rel=1e-4) and not at_once


def test_bits_of_a_passage_are_those_of_tokens_that_were_learned_where_a_word_is_cut():
    """Characters 64 and 114 stand within a token."""
    passage = " word" * 40
    tokenizer = BPETokenizer.from_merges([(32, 119), (256, 111), (257, 114), (258, 100)])
    model = tiny_gpt(vocab_size=tokenizer.vocab_size, context_length=128)
    opened: Any = SimpleNamespace(model=model, tokenizer=tokenizer)
    ids = torch.tensor(list(map(int, tokenizer.encode(passage))))
    assert len(ids) == 40
    chances = model(ids[None, :22])[0].detach().log_softmax(1)
    expected = -sum(float(chances[i - 1, ids[i]]) for i in range(13, 23)) / math.log(2)
    assert goldfish.bits_of(opened, passage)[0] == pytest.approx(expected, rel=1e-4)


def test_published_speeds_are_predicted_as_well_as_the_docs_say():
    errors = {run: abs(ratio(run) - 1) for run in RUNS}
    held_out = [error for run, error in errors.items() if not run.is_fitted]
    assert sorted(errors.values())[len(RUNS) // 2] < 0.04
    assert sorted(held_out)[len(held_out) // 2] < 0.045
    assert sum(error < 0.13 for error in errors.values()) >= 53
    sent = [abs(sent_seconds(sent) / sent_in(sent) - 1) for sent in ALL_REDUCES]
    assert sum(error < 0.13 for error in sent) >= 12


def test_every_published_figure_says_where_it_stands():
    assert all(x.source.startswith("https://") for x in (*RUNS, *ALL_REDUCES))
