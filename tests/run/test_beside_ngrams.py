"""A model that was trained alone is also read beside n-grams of what it learned from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from folio.cli.main import main
from folio.ngrams.fit import fit, read_both
from folio.ngrams.gpt import GPTWithNGrams
from folio.ngrams.table import count_ngrams
from folio.run import beside_ngrams
from folio.run.baselines import Baseline, compare_beside
from folio.run.beside_ngrams import ORDER, PROTOCOL, score_beside_ngrams
from folio.run.model import Model
from tests.recall.making import go_on, prose, train_on, with_names
from tests.run.test_baselines import some_score

T = 64


def test_each_half_is_read_by_the_weights_and_the_rule_of_the_other(opened: Model):
    tokens, config = opened.validation(), opened.config
    ngrams = count_ngrams(opened.training(), ORDER, config.vocab_size)
    n_windows = -(-(len(tokens) - 1) // T)
    middle = n_windows // 2 * T
    parts = tokens[: middle + 1], tokens[middle:]
    nats = list[float]()
    for part, other in zip(parts, parts[::-1]):
        spans = [(i, min(T, len(other) - 1 - i)) for i in range(0, len(other) - 1, T)]
        found = fit(read_both(opened.model, ngrams, other.astype(np.int64), spans))
        beside = GPTWithNGrams(config, ngrams, found.weights, found.rule).eval()
        beside.load_state_dict(opened.model.state_dict())
        nats.append(replace(opened, model=beside).nats(part).sum())
    score = score_beside_ngrams(opened, n_targets=0)
    assert score is not None and score.targets == len(tokens) - 1
    assert score.nats == pytest.approx(sum(nats), rel=1e-5)
    alone, _ = opened.score(tokens)
    assert score.nats < 0.9 * alone.nats


def test_weights_are_found_by_a_few_windows_of_each_half(
    opened: Model, monkeypatch: pytest.MonkeyPatch
):
    whole, read = score_beside_ngrams(opened, n_targets=0), list[int]()
    monkeypatch.setattr(beside_ngrams, "MOST_LOGITS", 512 * opened.config.vocab_size)

    def noting(*given: object) -> object:
        read.append(len(given[3]))  # type: ignore[arg-type]
        return read_both(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(beside_ngrams, "read_both", noting)
    few = score_beside_ngrams(opened, n_targets=0)
    assert whole is not None and few is not None and few.targets == whole.targets
    assert max(read) <= 512 // T < few.targets // T // 2
    assert few.nats == pytest.approx(whole.nats, rel=0.02)


def test_a_sample_is_read_in_windows_evenly_spaced(opened: Model):
    score = score_beside_ngrams(opened, n_targets=20 * T)
    assert score is not None and 19 * T < score.targets <= 20 * T < len(opened.validation()) - 1


def test_what_an_earlier_run_learned_is_counted_too(opened: Model, tmp_path: Path):
    path, told = tmp_path / "other.txt", list[str]()
    path.write_text(prose(1500, seed=5))
    later = go_on(opened, path, "later")
    score_beside_ngrams(later, 0, told.append)
    n_tokens = len(later.all_learned())
    assert len(later.training()) < n_tokens and f" {n_tokens:,} " in told[0]


def test_a_short_text_has_no_such_loss(opened: Model, monkeypatch: pytest.MonkeyPatch):
    short = opened.validation()[:300]
    monkeypatch.setattr(Model, "validation", lambda self: short)  # type: ignore[misc]
    assert score_beside_ngrams(opened, 0) is None


def test_the_verb_tells_it_below_the_loss_of_the_model_alone(
    opened: Model, capsys: pytest.CaptureFixture[str]
):
    main(["evaluate", str(opened.run.path), "--baselines", "--json"])
    records = json.loads(capsys.readouterr().out)
    protocols = [record["protocol"] for record in records]
    assert protocols[:4] == ["exact", "strided", "exact, with the window", PROTOCOL]
    assert records[3]["targets"] == records[0]["targets"]
    assert records[3]["bits_per_byte"] < records[2]["bits_per_byte"]
    main(["evaluate", str(opened.run.path), "--baselines"])
    out = capsys.readouterr().out
    assert "\n  and n-grams" in out and "With its window and n-grams mixed in, it is " in out
    assert max(map(len, out.split("\n\n")[1].splitlines())) <= 80


def test_a_run_with_n_grams_of_its_own_is_read_beside_those(tmp_path: Path):
    path = tmp_path / "book.txt"
    path.write_text(with_names(prose(2000, seed=1)))
    run = train_on(path, "counted", steps=2, ngrams={"order": 4})
    assert isinstance(run.model, GPTWithNGrams) and score_beside_ngrams(run, 0) is None


def test_the_sentence_compares_it_with_a_compressor_that_learns():
    others = [
        Baseline(f"PPMd, order {order}", "adaptive", loss, loss, loss)
        for order, loss in ((6, 1.5), (16, 1.4))
    ]
    told = compare_beside(some_score(1.05), others)
    assert told == (
        "With its window and n-grams mixed in, it is 25% below PPMd, order 16, "
        "which learns from the text as it reads it."
    )
    assert "not told apart from PPMd, order 16" in compare_beside(some_score(1.39), others)
    assert "25% below PPMd, order 16, which did not read notes." in compare_beside(
        some_score(1.05), others, "notes"
    )
    assert compare_beside(some_score(1.05), []) == ""
