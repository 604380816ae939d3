from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.generation.stopping import StoppableText


def shown_of(pieces: list[str], stop_strings: list[str]) -> tuple[str, bool]:
    text, shown = StoppableText(stop_strings), ""
    for piece in pieces:
        shown += text.take(piece)
        if text.stopped:
            return shown, True
    return shown + text.end(), False


def first_stop(text: str, stop_strings: list[str]) -> str | None:
    """Character by character: what stands before the stop string that is complete first."""
    for end in range(1, len(text) + 1):
        fitting = [s for s in stop_strings if text[:end].endswith(s)]
        if fitting:
            return text[: end - max(map(len, fitting))]
    return None


@given(
    pieces=st.lists(st.text("abc", max_size=4), max_size=8),
    stop_strings=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
)
def test_a_text_is_cut_where_the_first_stop_string_is_complete_however_it_comes(
    pieces: list[str], stop_strings: list[str]
):
    expected = first_stop("".join(pieces), stop_strings)
    if expected is None:
        assert shown_of(pieces, stop_strings) == ("".join(pieces), False)
    else:
        assert shown_of(pieces, stop_strings) == (expected, True)


@given(pieces=st.lists(st.text("abc", max_size=4), max_size=8))
def test_no_more_is_held_back_than_may_begin_a_stop_string(pieces: list[str]):
    text, shown = StoppableText(["abca", "cc"]), ""
    whole = ""
    for piece in pieces:
        shown, whole = shown + text.take(piece), whole + piece
        if text.stopped:
            return
        held = whole[len(shown) :]
        assert held == "" or "abca".startswith(held) or "cc".startswith(held)


@pytest.mark.parametrize(
    ("text", "stop_strings", "expected"),
    [
        ("abcX", ["abcX", "c"], "ab"),  # "c" is complete first
        ("xaab", ["ab", "aab"], "x"),  # of those complete at once, the longest
        ("aaab", ["aab"], "a"),
    ],
)
def test_it_does_not_matter_that_a_text_comes_in_one_piece(
    text: str, stop_strings: list[str], expected: str
):
    assert shown_of([text], stop_strings) == shown_of([*text], stop_strings) == (expected, True)
