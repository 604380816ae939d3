"""What is found of some texts in another, against looking at every piece of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.evaluation.automaton_kernels import Automaton
from folio.evaluation.matching import Blocks, Query, find_matches, split_at_breaks
from folio.tokens.text import BREAK, from_text, to_text

ALPHABETS = ["ab", "abc", "aé", "a😀日"]


Problem = tuple[list[tuple[str, int]], list[tuple[str, int]], int]
"""Documents with colors, queries with the color that does not count, size of the pieces."""


def text_over(alphabet: str, most: int) -> st.SearchStrategy[str]:
    return st.text(alphabet=alphabet, max_size=most)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Documents with colors, queries with the color that does not count, size of the pieces."""
    alphabet = draw(st.sampled_from(ALPHABETS))
    color = st.integers(0, 2)
    documents = draw(st.lists(st.tuples(text_over(alphabet, 25), color), min_size=1, max_size=5))
    query = st.tuples(st.text(alphabet=alphabet, min_size=1, max_size=20), st.integers(-1, 2))
    return documents, draw(st.lists(query, min_size=1, max_size=3)), draw(st.integers(1, 9))


def longest_by_hand(text: str, documents: list[tuple[str, int]]) -> dict[int, int]:
    """Of each color, the longest end of a text that stands in a document of it."""
    best = {}
    for document, color in documents:
        for n in range(len(text), best.get(color, 0), -1):
            if text[len(text) - n :] in document:
                best[color] = n
                break
    return best


def series(documents: list[tuple[str, int]]) -> tuple[np.ndarray, Blocks]:
    parts = [np.append(from_text(text), np.int16(BREAK)) for text, _ in documents]
    stops = np.cumsum([len(part) for part in parts])
    return np.concatenate(parts), Blocks(stops, np.array([c for _, c in documents], np.int32))


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "compiled"])
@given(problem=problems())
def test_every_length_place_and_second_color_is_that_of_brute_force(plain: bool, problem: Problem):
    documents, queries, size = problem
    text, blocks = series(documents)
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    asked = [Query(from_text(query), 0, excluded) for query, excluded in queries]
    for (query, excluded), match in zip(queries, find_matches(asked, pieces, blocks, plain)):
        for i in range(len(query)):
            known = longest_by_hand(query[: i + 1], documents)
            allowed = sorted((n for c, n in known.items() if c != excluded), reverse=True)
            n = int(match.lengths[i])
            assert n == (allowed or [0])[0]
            if n:
                end = int(match.ends[i])
                assert to_text(text[:end]).endswith(query[i + 1 - n : i + 1])
                color = blocks.colors[np.searchsorted(blocks.stops, end - 1, "right")]
                assert color != excluded
            if excluded < 0:
                assert match.elsewhere[i] == [*allowed, 0, 0][1]


def test_a_match_belongs_to_the_block_in_which_it_ends():
    symbols = from_text("abcdef")
    blocks = Blocks(np.array([3, 6]), np.array([0, 1], np.int32))
    for plain in (True, False):
        queries = [Query(from_text("bcde"), 0, excluded) for excluded in (-1, 0, 1)]
        matches = find_matches(queries, [symbols], blocks, plain)
        lengths = [match.lengths.tolist() for match in matches]
        assert lengths == [[1, 2, 3, 4], [0, 0, 3, 4], [1, 2, 0, 0]]


def test_memory_does_not_grow_with_the_text():
    automaton = Automaton(from_text("abcabd" * 50))
    arrays = [value for value in vars(automaton).values() if isinstance(value, np.ndarray)]
    before = sum(array.nbytes for array in arrays)
    for _ in range(100):
        automaton.read(from_text("abcd" * 500), np.array([10**9]), np.zeros(1, np.int32))
    assert sum(v.nbytes for v in vars(automaton).values() if isinstance(v, np.ndarray)) == before


def test_a_text_is_split_where_it_breaks():
    symbols = np.concatenate([from_text("ab"), [BREAK, BREAK], from_text("c"), [BREAK]])
    assert [to_text(part) for part in split_at_breaks(symbols.astype(np.int16))] == ["ab", "c"]
    assert split_at_breaks(np.array([BREAK], np.int16)) == []
