from __future__ import annotations

import random

import numpy as np
import pytest

from folio.corpus import leakage
from folio.corpus.document import Part, document_from_text
from folio.corpus.leakage import measure_leakage
from folio.corpus.split import whole


def part(text: str) -> Part:
    return whole(document_from_text("d", text))


def text_of(seed: int, n_words: int) -> str:
    random_ = random.Random(seed)
    words = ("".join(random_.choices("abcdefgh", k=random_.randint(2, 9))) for _ in range(n_words))
    return " ".join(words)


def slow(training: list[str], validation: list[str]) -> tuple[float, float]:
    """Both shares by sets of strings."""
    grams, spans = [], []
    for n, take, out in ((13, str.split, grams), (50, list, spans)):
        known = set()
        for text in training:
            units = take(text.lower() if n == 13 else text)
            known |= {tuple(units[i : i + n]) for i in range(len(units) - n + 1)}
        for text in validation:
            units = take(text.lower() if n == 13 else text)
            out += [tuple(units[i : i + n]) in known for i in range(len(units) - n + 1)]
    return float(np.mean(grams)), float(np.mean(spans))


def test_shares_are_those_of_sets_of_strings():
    shared = text_of(0, 100)
    training = [text_of(1, 300) + " " + shared, text_of(2, 300)]
    validation = [text_of(3, 200), text_of(4, 50) + " " + shared + " " + text_of(5, 70)]
    found, _ = measure_leakage([part(t) for t in training], [part(t) for t in validation])
    assert (found.grams, found.spans) == pytest.approx(slow(training, validation))
    assert 0.1 < found.grams < 0.9


def test_the_mask_covers_what_is_shared_and_nothing_else():
    shared = text_of(0, 60)
    before, behind = "§" + text_of(1, 30) + "§", "§" + text_of(2, 30)
    validation = before + shared + behind
    found, (mask,) = measure_leakage([part("¶" + shared + "¶")], [part(validation)])
    expected = [False] * len(before) + [True] * len(shared) + [False] * len(behind)
    assert mask.tolist() == expected
    assert found.covered == pytest.approx(len(shared) / len(validation))


def test_of_a_long_text_a_sample_gives_about_the_same(monkeypatch: pytest.MonkeyPatch):
    shared = text_of(0, 400)
    parts = [part(text_of(1, 2000) + shared)], [part(shared + text_of(2, 1200))]
    full, _ = measure_leakage(*parts)
    monkeypatch.setattr(leakage, "MOST_HASHES", 1 << 9)
    sampled, _ = measure_leakage(*parts)
    assert sampled.spans != full.spans
    assert sampled.spans == pytest.approx(full.spans, abs=0.08)


def test_a_document_shorter_than_a_span_is_clean():
    found, masks = measure_leakage([part("short")], [part("short"), part("tiny")])
    assert found.spans == 0 and [mask.sum() for mask in masks] == [0, 0]
