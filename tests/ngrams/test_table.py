"""N-grams are what their definition says, however they are looked up."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from folio.errors import UserError
from folio.ngrams.discounts import discounts_of
from folio.ngrams.table import NGrams, count_ngrams

Text = list[int]


def by_definition(text: Text, order: int, vocab_size: int, before: Text) -> NDArray[np.float64]:
    """(V,) what follows, by dictionaries of tuples: modified Kneser-Ney, without the n-grams of
    which all but the first and the last token stand once.
    """
    grams = {
        n: Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
        for n in range(1, order + 2)
    }
    p = np.full(vocab_size, 1 / vocab_size)
    for n in range(1, order + 1):
        counts: dict[tuple[int, ...], int] = dict(grams[n])
        if n < order:
            tokens_before: dict[tuple[int, ...], set[int]] = defaultdict(set)
            for gram in grams[n + 1]:
                tokens_before[gram[1:]].add(gram[0])
            counts = {gram: max(1, len(tokens_before[gram])) for gram in grams[n]}
        of_counts = Counter(counts.values())
        discounts = discounts_of(*(of_counts[k] for k in (1, 2, 3, 4)))
        context = tuple(before[len(before) - n + 1 :])
        if len(context) < n - 1:
            break
        if n > 2 and grams[n - 2][context[1:]] < 2:
            break
        following = {gram[-1]: c for gram, c in counts.items() if gram[:-1] == context}
        if not following:
            continue
        taken = {token: discounts[min(c, 3) - 1] for token, c in following.items()}
        total = sum(following.values())
        p *= sum(taken.values()) / total
        for token, c in following.items():
            p[token] += (c - taken[token]) / total
    return p


texts = st.lists(st.integers(0, 3), min_size=1, max_size=60)


@given(texts, st.integers(1, 6), texts)
def test_probabilities_are_those_of_the_definition(text: Text, order: int, read: Text):
    ngrams = count_ngrams(np.array(text, np.uint16), order, vocab_size=5)
    found = ngrams.probabilities(np.array([read]))
    assert found.shape == (1, len(read), 5)
    for t in range(len(read)):
        expected = by_definition(text, order, 5, read[: t + 1])
        np.testing.assert_allclose(found[0, t], expected, atol=1e-6)


def test_a_longer_text_in_windows_adds_up_to_one_and_nothing_is_impossible():
    text = np.random.default_rng(1).zipf(1.5, 5000) % 50
    ngrams = count_ngrams(text.astype(np.uint16), 8, 64)
    found = ngrams.probabilities(text[:4096].reshape(8, 512))
    np.testing.assert_allclose(found.sum(2), 1, atol=1e-5)
    assert found.min() > 0


def test_a_position_knows_only_what_stands_before_it_in_its_row():
    text = np.random.default_rng(2).integers(0, 3, 400)
    ngrams = count_ngrams(text, 5, 3)
    rows = text[:60].reshape(3, 20)
    whole = ngrams.probabilities(rows)
    changed = rows.copy()
    changed[:, 10:] = 2 - changed[:, 10:]
    np.testing.assert_array_equal(ngrams.probabilities(changed)[:, :10], whole[:, :10])
    np.testing.assert_array_equal(ngrams.probabilities(rows[1:2])[0], whole[1])


def test_a_text_that_repeats_is_predicted_from_what_followed():
    text = np.array([*range(20)] * 3)
    found = count_ngrams(text, 4, 20).probabilities(np.array([[5, 6, 7, 8]]))
    assert found[0, 3].argmax() == 9
    assert found[0, 3, 9] > 0.8


def test_what_was_saved_is_the_same(tmp_path: Path):
    text = np.random.default_rng(3).integers(0, 9, 700)
    ngrams = count_ngrams(text, 6, 11)
    ngrams.save(tmp_path / "ngrams.safetensors")
    loaded = NGrams.load(tmp_path / "ngrams.safetensors")
    assert (loaded.order, loaded.vocab_size, len(loaded)) == (6, 11, len(ngrams))
    rows = text[None, :100]
    np.testing.assert_array_equal(loaded.probabilities(rows), ngrams.probabilities(rows))


def test_a_damaged_file_is_named(tmp_path: Path):
    path = tmp_path / "ngrams.safetensors"
    count_ngrams(np.array([1, 2, 1]), 2, 3).save(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"ngrams\.safetensors is damaged"):
        NGrams.load(path)
