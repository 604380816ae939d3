"""What stands earlier in a window lowers the loss of any model, by a rule found on other text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from folio.cli.main import main
from folio.ngrams.fit import best_rule
from folio.ngrams.window import WindowRule, count_targets, count_window, mix_in
from folio.run import in_window
from folio.run.in_window import score_in_windows
from folio.run.model import Model
from tests.recall.making import prose, with_names

T = 64


def test_each_half_is_told_by_the_rule_of_the_other(opened: Model):
    text = with_names(prose(300, seed=2)) + prose(300, seed=3)  # halves that repeat as they like
    encoded = opened.tokenizer.encode(text)
    _, nll = opened.score(encoded)
    found, tokens = score_in_windows(opened, encoded, nll), encoded.astype(np.int64)
    middle, nats = len(nll) // 2, np.zeros(len(nll))
    counts = [count_targets(tokens[i:-1][:T], tokens[i + 1 :][:T]) for i in range(0, len(nll), T)]
    joined = np.concatenate(counts)
    for half, other in ((slice(middle), slice(middle, None)), (slice(middle, None), slice(middle))):
        rule = best_rule(np.exp(-nll[other].astype(np.float64)), joined[other])
        each = list[float]()
        for i in range(0, len(nll), T):
            ids, targets = tokens[i:-1][:T], tokens[i + 1 :][:T]
            with torch.no_grad():
                expected = opened.model(torch.from_numpy(ids[None]))[0].softmax(1).numpy()
            mix_in(expected, count_window(ids, len(ids)), rule)
            each += expected[range(len(ids)), targets].tolist()
        nats[half] = -np.log(each)[half]
    assert found is not None and found.targets == len(nll)
    assert abs(found.nats - nats.sum()) < 1e-4 * nats.sum()


def test_only_what_was_read_and_counts_is_told(opened: Model):
    tokens = opened.validation()
    nll = opened.nats(tokens, sample=10 * T)
    counted = np.arange(len(nll)) % 2 == 0
    found = score_in_windows(opened, tokens, nll, counted=counted)
    read = counted & ~np.isnan(nll)
    assert found is not None and found.targets == read.sum() < counted.sum()
    assert found.nats < nll[read].sum()


def test_the_counts_of_a_few_targets_are_in_memory_at_once(
    opened: Model, monkeypatch: pytest.MonkeyPatch
):
    text = with_names(prose(3000, seed=2))
    tokens = opened.tokenizer.encode(text)
    nll = opened.nats(tokens)
    exact = score_in_windows(opened, tokens, nll)
    given, real = list[int](), in_window.mix_in_targets

    def mixed(expected: NDArray[Any], counts: NDArray[Any], rule: WindowRule) -> NDArray[Any]:
        given.append(len(counts))
        return real(expected, counts, rule)

    def best(expected: NDArray[Any], counts: NDArray[Any]) -> WindowRule:
        given.append(len(counts))
        return best_rule(expected, counts)

    monkeypatch.setattr(in_window, "MOST_TRIED", 500)
    monkeypatch.setattr(in_window, "mix_in_targets", mixed)
    monkeypatch.setattr(in_window, "best_rule", best)
    found = score_in_windows(opened, tokens, nll)
    assert max(given) < 1000 < len(nll) / 10 and found is not None and exact is not None
    assert found.nats == pytest.approx(exact.nats, rel=0.01)


def test_of_a_short_text_nobody_can_tell(opened: Model):
    tokens = opened.validation()[:200]
    assert score_in_windows(opened, tokens, opened.nats(tokens)) is None


def test_evaluate_tells_it_of_the_held_out_text_and_of_others(
    opened: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = tmp_path / "other.txt"
    other.write_text(with_names(prose(200, seed=2)))
    for files in ((), (str(other),)):
        main(["evaluate", str(opened.run.path), *files, "--json"])
        exact, strided, in_windows = json.loads(capsys.readouterr().out)[:3]
        protocols = [record["protocol"] for record in (exact, strided, in_windows)]
        assert protocols == ["exact", "strided", "exact, with the window"]
        assert in_windows["targets"] == exact["targets"]
        assert in_windows["bits_per_byte"] < 0.9 * exact["bits_per_byte"]
