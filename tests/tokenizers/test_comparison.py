"""Vocabularies side by side, against counts made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from folio.errors import UserError
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.comparison import (
    ENOUGH_OCCURRENCES,
    candidates,
    measure,
    page,
    recommend,
)
from folio.tokenizers.word import WordTokenizer

PAIRS = BPETokenizer.from_merges([(97, 98), (256, 99)], special_tokens=())  # ab, abc


def test_what_is_measured_is_what_can_be_counted_by_hand():
    found = measure("pairs", PAIRS, training="abcabcab", held_out="abcabx", d_model=10, n_body=420)
    assert (found.vocab_size, found.embedding_parameters) == (258, 2580)
    assert found.tokens == 3 and found.bytes_per_token == 2.0  # abc ab x
    assert found.flops_per_byte == 6 * (420 + 2580) / 2.0
    assert found.share_of_vocabulary_used == 2 / 258  # ab and abc
    assert found.longest_tokens == ["abc", "ab"]
    assert found.median_occurrences == 1.5 and found.unknown_share == 0


def test_unknown_words_and_characters_are_counted():
    words = measure("w", WordTokenizer(["a"]), "a a", "a b c d", 1, 1)
    assert words.unknown_share == 0.75 and not words.lossless
    characters = measure("c", CharacterTokenizer("a"), "aaaa", "ab", 1, 1)
    assert characters.unknown_share == 0.5 and characters.median_occurrences == 4


def test_the_shortest_text_of_learnable_tokens_is_recommended():
    base = measure("base", CharacterTokenizer("ab"), "ab" * 100, "ab", 1, 1)
    rare = replace(base, name="rare", bytes_per_token=9.0, median_occurrences=1.0, vocab_size=99)
    lossy = replace(base, name="lossy", bytes_per_token=8.0, lossless=False)
    short = replace(base, name="short", bytes_per_token=2.0, vocab_size=50)
    best, reason = recommend([base, rare, lossy, short])
    assert best.name == "short" and "2.00 bytes a token" in reason
    few = [replace(m, median_occurrences=ENOUGH_OCCURRENCES - 1.0) for m in (short, base, rare)]
    best, reason = recommend(few)
    assert best.name == "base" and "so short" in reason
    with pytest.raises(UserError, match="loses text"):
        recommend([lossy])


def test_sizes_beyond_what_the_text_has_are_left_out():
    names = [name for name, _ in candidates("abcabc", [258, 300, 400], "gpt2")]
    assert names == ["character", "bpe 258", "bpe 260", "word 400"]


def test_the_page_shows_the_text_as_each_cuts_it_and_marks_the_recommended_one():
    text = "abc<i>\n"
    characters = CharacterTokenizer("abc<i>\n")
    both = {"<b>": PAIRS, "characters": characters}
    measured = [measure(name, t, text, text, 1, 1) for name, t in both.items()]
    shown = page(measured, measured[1], "a < b", both, text)
    assert shown.count("<span") == len(PAIRS.encode(text)) + len(text)
    assert "<i>" not in shown and "<b>" not in shown and "since a &lt; b." in shown
    assert '<span title="id 257">abc</span>' in shown and "\\n\n</span>" in shown
    assert '<tr class="marked"><td>characters' in shown
    assert shown.index("<h2>characters") < shown.index("<h2>&lt;b&gt;")
