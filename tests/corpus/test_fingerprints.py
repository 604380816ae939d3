from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from folio.corpus.fingerprints import (
    gram_hashes,
    line_hashes,
    span_hashes,
    word_hashes,
    word_starts,
)

WORDS = st.lists(st.text("abAB09_é世界ß", min_size=1, max_size=5), max_size=30)
BETWEEN = st.sampled_from([" ", "\n", ", ", "... ", " “", "” ", "—", " « ", "、"])


def joined(hashes: Iterable[NDArray[np.uint64]]) -> list[int]:
    return np.concatenate([np.zeros(0, np.uint64), *hashes]).tolist()


def slow_words(text: str) -> list[str]:
    """ASCII in lower case; each Chinese or Japanese character is a word."""
    text = re.sub(r"[A-Z]", lambda match: match[0].lower(), text)
    return [match[0] for match in found_words(text)]


def found_words(text: str) -> list[re.Match[str]]:
    return list(re.finditer(r"[一-鿿]|(?:(?![一-鿿])[\wéß])+", text))


@given(WORDS, BETWEEN)
def test_words_hash_alike_if_and_only_if_they_are_alike(words: list[str], between: str):
    text = between.join(words)
    expected = slow_words(text)
    hashes = joined(word_hashes([text]))
    assert len(hashes) == len(expected)
    same = {}
    for word, value in zip(expected, hashes):
        assert same.setdefault(word, value) == value
    assert len(set(same.values())) == len(same)


@given(WORDS, BETWEEN, st.integers(1, 9))
def test_words_begin_where_they_stand_in_the_text(words: list[str], between: str, size: int):
    text = between + between.join(words)
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    starts = [start for found in word_starts(pieces) for start in found.tolist()]
    assert starts == [match.start() for match in found_words(text)]


@given(WORDS, st.integers(1, 4), st.integers(1, 9))
def test_grams_are_every_n_words_in_a_row_wherever_the_text_is_cut(
    words: list[str], n: int, size: int
):
    text = " ".join(words)
    expected = slow_words(text)
    grams = [tuple(expected[i : i + n]) for i in range(len(expected) - n + 1)]
    if not grams and expected:
        grams = [tuple(expected)]
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    hashes = joined(gram_hashes(pieces, n))
    assert len(hashes) == len(grams)
    assert len(set(zip(grams, hashes))) == len(set(grams)) == len(set(hashes))


@given(st.text("ab世🦊", max_size=40), st.integers(1, 6), st.integers(1, 9))
def test_spans_are_every_n_characters_in_a_row(text: str, n: int, size: int):
    spans = [text[i : i + n] for i in range(len(text) - n + 1)]
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    hashes = joined(span_hashes(pieces, n))
    assert len(hashes) == len(spans)
    assert len(set(zip(spans, hashes))) == len(set(spans)) == len(set(hashes))


def test_short_lines_are_left_out():
    found = line_hashes(["  long eno", "ugh \nshort\n", "long enough"], shortest=8)
    hashes, lengths = (np.concatenate(columns) for columns in zip(*found))
    assert lengths.tolist() == [11, 11] and hashes[0] == hashes[1]
