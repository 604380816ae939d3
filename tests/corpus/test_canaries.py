"""Secrets that are planted on purpose."""

from __future__ import annotations

import pytest

from folio.corpus.canaries import make_canaries, plant
from folio.corpus.document import Document, Part, make_document
from folio.errors import UserError

KNOWN = set("0123456789abcdefghijklmnop \n")


def parts_of(*texts: str) -> list[Part]:
    def document(text: str) -> Document:
        return make_document("memory", lambda: (text[i : i + 7] for i in range(0, len(text), 7)))

    return [Part(document(text), 0, len(text)) for text in texts]


def test_a_quarter_stands_once_twice_four_and_eight_times():
    canaries = make_canaries(12, KNOWN, seed=1)
    assert sorted(c.times for c in canaries) == [1] * 3 + [2] * 3 + [4] * 3 + [8] * 3
    assert all(len(c.secret) == 8 and c.secret.isdigit() for c in canaries)
    assert canaries == make_canaries(12, KNOWN, seed=1) != make_canaries(12, KNOWN, seed=2)


def test_a_vocabulary_without_digits_gets_letters_and_a_poor_one_is_refused():
    letters = make_canaries(4, set("абвгдежзиклм \n"), seed=1)
    assert all(set(c.secret) <= set("абвгдежзиклм") for c in letters)
    with pytest.raises(UserError, match="canaries"):
        make_canaries(4, set("ab \n"), seed=1)


def test_each_is_planted_as_often_as_it_says_at_line_ends_and_the_rest_is_untouched():
    texts = ["".join(f"line {i} of a\n" for i in range(60)), "no line end here"]
    canaries = make_canaries(8, KNOWN, seed=3)
    planted = "".join("".join(pieces) for pieces in plant(parts_of(*texts), canaries, seed=3))
    for canary in canaries:
        assert planted.count(canary.line) == canary.times
        planted = planted.replace(canary.line, "")
    assert planted == "".join(texts)


def test_the_places_are_the_same_for_the_same_seed():
    texts = ["".join(f"line {i} of a\n" for i in range(60))]
    canaries = make_canaries(4, KNOWN, seed=3)
    once, again, other = (
        ["".join(p) for p in plant(parts_of(*texts), canaries, seed)] for seed in (1, 1, 2)
    )
    assert once == again != other
