"""The algorithm as it is written down, against examples worked by hand."""

from folio.tokenizers.bpe import reference


def learn(text: str, n_merges: int) -> list[tuple[int, int]]:
    return reference.learn_merges(reference.count_chunks(text.split(" ")), n_merges)


def test_most_frequent_pair_is_merged_first():
    assert learn("ab ab ab bc bc", 1) == [(ord("a"), ord("b"))]


def test_equal_counts_are_decided_by_the_ids_and_not_by_the_order_of_the_text():
    assert learn("cd ab", 2) == learn("ab cd", 2) == [(97, 98), (99, 100)]


def test_overlapping_pairs_all_count_but_merge_from_the_left():
    # "aaaa" has three pairs (a, a); "bc" twice has two of (b, c).
    assert learn("aaaa bc bc", 2) == [(97, 97), (98, 99)]
    assert reference.encode(b"aaa", [(97, 97)]) == [256, 97]


def test_learning_stops_when_the_text_has_no_more_pairs():
    assert learn("abc", 100) == [(97, 98), (256, 99)]
    assert learn("", 100) == []


def test_merges_are_applied_in_the_order_in_which_they_were_learned():
    # (b, c) was learned first, so "abc" is a + bc although (a, b) comes first in the text.
    assert reference.encode(b"abc", [(98, 99), (97, 98)]) == [97, 256]
