"""The splitter without a regular-expression engine, against two that have one."""

import importlib.metadata
import sys
from itertools import pairwise

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from folio.errors import UserError
from folio.tokenizers.bpe.patterns import PATTERNS, safe_pieces, split_slowly
from folio.tokenizers.bpe.split import split, split_bytes
from folio.tokenizers.bpe.unicode_classes import class_table, unicode_version

ABOUT_REGEX = importlib.metadata.distribution("regex").read_text("METADATA") or ""
REGEX_HAS_OUR_CLASSES = f"supports Unicode {unicode_version()}" in ABOUT_REGEX

every_pattern = pytest.mark.parametrize("pattern", PATTERNS)

# Characters on which some branch of some pattern turns, and some of every class and width.
TURNING = (
    "'sStTdDmMlLrRvVeEſ \t\r\n\v\u0085\u00a0\u2028\u3000aäß漢ǅ𝒳0٣½Ⅷ𝟙!.-_\u0301\u200d😀\ud800\0"
)
turning_text = st.text(st.sampled_from(TURNING) | st.characters(), max_size=40)


def by_regex(text: str, pattern: str) -> list[bytes]:
    """The chunks by `regex`; by `re` and our table where `regex` has another Unicode version."""
    if not REGEX_HAS_OUR_CLASSES:
        return [chunk.encode("utf-8", "surrogatepass") for chunk in split_slowly(text, pattern)]
    return [
        chunk.encode("utf-8", "surrogatepass") for chunk in regex.findall(PATTERNS[pattern], text)
    ]


@every_pattern
def test_every_character_in_five_contexts_splits_as_regex_does(pattern: str):
    # From plane 2 on there are ideographs, nothing, and private ones: every hundredth. Where one
    # class ends and another begins is below.
    points = [*range(0x20000), *range(0x20000, 0xE0000, 100), *range(0xE0000, 0xE0400)]
    points += range(0xE0400, sys.maxunicode + 1, 100)
    contexts = "".join(f"a{c}1 {c}!{c} {c}{c}" for c in map(chr, points))
    assert split(contexts, pattern) == by_regex(contexts, pattern)


@every_pattern
def test_code_points_at_the_edges_of_classes_split_as_regex_does_in_many_contexts(pattern: str):
    classes = class_table()
    edges = {0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF} | {
        point + k
        for point, (here, following) in enumerate(pairwise(classes.tolist()))
        if here != following
        for k in (0, 1)
    }
    contexts = [
        "{c}",
        "  {c}",
        " {c}",
        "\n{c}",
        "{c}\r\n",
        "'{c}s",
        "x{c}'s",
        "{c}{c}{c}{c}1",
        "1{c}",
    ]
    texts = [context.format(c=chr(point)) for point in sorted(edges) for context in contexts]
    assert [split(text, pattern) for text in texts] == [by_regex(text, pattern) for text in texts]


@every_pattern
@given(text=turning_text)
@settings(max_examples=500)
def test_random_text_splits_as_regex_does(pattern: str, text: str):
    assert split(text, pattern) == by_regex(text, pattern)


@every_pattern
@given(text=turning_text)
def test_slow_stand_in_splits_alike(pattern: str, text: str):
    chunks = [chunk.encode("utf-8", "surrogatepass") for chunk in split_slowly(text, pattern)]
    assert split(text, pattern) == chunks


@every_pattern
@given(data=st.binary(max_size=60))
def test_no_byte_is_lost_when_bytes_are_no_text(pattern: str, data: bytes):
    chunks = split_bytes(data, pattern)
    assert b"".join(chunks) == data
    assert all(chunks)


@every_pattern
@given(parts=st.lists(turning_text), n_characters=st.integers(1, 30))
def test_safe_pieces_have_the_chunks_of_the_whole(
    pattern: str, parts: list[str], n_characters: int
):
    pieces = list(safe_pieces(parts, n_characters))
    assert "".join(pieces) == "".join(parts)
    assert [chunk for piece in pieces for chunk in split(piece, pattern)] == split(
        "".join(parts), pattern
    )


def test_safe_pieces_of_ordinary_text_stay_small():
    for text in ("To be, or not to be. " * 1000, "1, 22, 333; " * 1000):
        pieces = list(safe_pieces([text], n_characters=100))
        assert max(map(len, pieces)) < 200


def test_patterns_differ_where_they_should():
    assert split("12345") == [b"12345"]
    assert split("12345", "llama3") == [b"123", b"45"]
    assert split("12345", "qwen2") == [b"1", b"2", b"3", b"4", b"5"]
    assert split("I'M") == [b"I", b"'", b"M"]
    assert split("I'M", "llama3") == [b"I", b"'M"]
    assert split("a  12  b", "smollm") == [b"a", b"  ", b"1", b"2", b" ", b" b"]
    assert split("I'M", "smollm") == [b"I", b"'", b"M"]


def test_the_long_s_is_an_s_where_case_does_not_matter():
    assert split("a'ſb", "llama3") == [b"a", "'ſ".encode(), b"b"]
    assert split("a'ſb") == [b"a", b"'", "ſb".encode()]


def test_unknown_pattern_is_refused_with_the_names_there_are():
    with pytest.raises(UserError, match="gpt2, llama3, qwen2"):
        split("text", "gpt5")
