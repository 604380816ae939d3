from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest

from folio.corpus import leakage
from folio.corpus.document import Part, make_document
from folio.corpus.leakage import measure_leakage
from folio.corpus.split import whole


def part(text: str) -> Part:
    """All of a document that comes in pieces."""
    cut = [text[i : i + 97] for i in range(0, len(text), 97)]
    return whole(make_document("d", lambda: iter(cut)))


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


def test_the_stretches_are_what_is_shared_and_nothing_else():
    shared = text_of(0, 60)
    before, behind = "§" + text_of(1, 30) + "§", "§" + text_of(2, 30)
    validation = before + shared + behind
    found, (stretches,) = measure_leakage([part("¶" + shared + "¶")], [part(validation)])
    assert stretches.tolist() == [[len(before), len(before) + len(shared)]]
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
    found, seen = measure_leakage([part("short")], [part("short"), part("tiny")])
    assert found.spans == 0 and [len(stretches) for stretches in seen] == [0, 0]


@pytest.mark.parametrize("most", [1 << 22, 1 << 8], ids=["all spans", "a sample"])
def test_stretches_stand_apart_and_cover_what_spans_cover(
    monkeypatch: pytest.MonkeyPatch, most: int
):
    """Two shared texts side by side, closer than a span is long, and a third one far away."""
    monkeypatch.setattr(leakage, "MOST_HASHES", most)
    one, two, three = (text_of(seed, 60) for seed in (0, 1, 2))
    validation = f"{one}§§{two}" + "§" * 400 + three
    found, (stretches,) = measure_leakage([part(t) for t in (one, two, three)], [part(validation)])
    assert (stretches[:-1, 1] < stretches[1:, 0]).all()
    assert found.covered == (stretches[:, 1] - stretches[:, 0]).sum() / len(validation)
    if most == 1 << 22:
        first = len(one)
        last = len(validation) - len(three)
        assert stretches.tolist() == [
            [0, first],
            [first + 2, first + 2 + len(two)],
            [last, len(validation)],
        ]
    else:
        assert found.covered == pytest.approx(1 - 402 / len(validation), abs=0.15)


def test_memory_does_not_grow_with_the_validation_text(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leakage, "MOST_HASHES", 1 << 12)
    line = "".join(f"{i} birds over the sea, " for i in range(3000))
    peaks = []
    for n_pieces in (4, 40):
        text = make_document("d", lambda n=n_pieces: (f"{i} {line}" for i in range(n)))
        tracemalloc.start()
        measure_leakage([part(line)], [whole(text)])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_stretches_that_overlap_count_once():
    text = text_of(0, 40)
    found, (stretches,) = measure_leakage([part(text[:100]), part(text[60:])], [part(text)])
    assert stretches.tolist() == [[0, len(text)]]
    assert found.covered == 1 and found.spans < 1
