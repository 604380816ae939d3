"""The algorithm as it is written down, against examples worked by hand."""

import pytest

from folio.tokenizers.bpe import reference


def learn(text: str, **size: int) -> list[tuple[int, int]]:
    return reference.learn_merges(reference.count_chunks(text.split(" ")), **size)


def test_most_frequent_pair_is_merged_first():
    assert learn("ab ab ab bc bc", n_merges=1) == [(ord("a"), ord("b"))]


def test_equal_counts_are_decided_by_the_ids_and_not_by_the_order_of_the_text():
    assert learn("cd ab", n_merges=2) == learn("ab cd", n_merges=2) == [(97, 98), (99, 100)]


def test_overlapping_pairs_all_count_but_merge_from_the_left():
    # "aaaa" has three pairs (a, a); "bc" twice has two of (b, c).
    assert learn("aaaa bc bc", n_merges=2) == [(97, 97), (98, 99)]
    assert reference.encode(b"aaa", [(97, 97)]) == [256, 97]


def test_learning_stops_when_the_text_has_no_more_pairs():
    assert learn("abc", n_merges=100) == [(97, 98), (256, 99)]
    assert learn("", n_merges=100) == []


def test_vocabulary_size_counts_the_alphabet():
    assert learn("abcd", vocab_size=258) == learn("abcd", n_merges=2)


def test_characters_have_the_ids_of_their_places_in_the_alphabet():
    alphabet = reference.characters_of("äöü äö")
    chunks = reference.count_chunks(["äöü", "äö"], alphabet)
    merges = reference.learn_merges(chunks, alphabet_size=len(alphabet), n_merges=1)
    assert [alphabet[k] for k in merges[0]] == ["ä", "ö"]


def test_characters_are_merged_up_to_a_vocabulary_size_and_applied_to_new_text():
    alphabet = reference.characters_of("äöü äö ü")
    assert alphabet == [" ", "ä", "ö", "ü"]  # ids 0 to 3
    chunks = reference.count_chunks(["äöü", "äö", "ü"], alphabet)
    merges = reference.learn_merges(chunks, alphabet_size=4, vocab_size=6)
    assert merges == [(1, 2), (4, 3)]  # äö twice, then äöü once
    assert reference.encode([1, 2, 3], merges, alphabet_size=4) == [5]
    assert reference.encode([3, 1, 2], merges, alphabet_size=4) == [3, 4]


def test_characters_of_one_byte_give_the_merges_of_bytes():
    chunks = ["hug", "hugs", "pug", "bun", "bun"]
    latin = [chr(value) for value in range(256)]
    by_character = reference.learn_merges(reference.count_chunks(chunks, latin), n_merges=8)
    assert by_character == reference.learn_merges(reference.count_chunks(chunks), n_merges=8)


def test_one_of_vocabulary_size_and_number_of_merges_is_needed():
    for sizes in ({}, {"vocab_size": 300, "n_merges": 44}):
        with pytest.raises(TypeError, match="Give one"):
            learn("abc", **sizes)


def test_merges_are_applied_in_the_order_in_which_they_were_learned():
    # (b, c) was learned first, so "abc" is a + bc although (a, b) comes first in the text.
    assert reference.encode(b"abc", [(98, 99), (97, 98)]) == [97, 256]
