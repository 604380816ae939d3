"""Tokens are sorted by what they are and where in a word they begin, whatever the vocabulary."""

from __future__ import annotations

import numpy as np
import pytest

from folio.evaluation.token_groups import CLASSES, PLACES, TokenGroups
from folio.tokenizers.base import Tokenizer
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer

TEXT = (
    "Once UPON a time-zone, 3 cats sang: Äpfel isn't 12th; internationally loved!\n\n  Yes.  " * 4
)


def slowly(text: str, at: int, piece: str) -> tuple[str, str]:
    """Class and place of the token `piece`, which begins at a character of a text."""
    body = piece.lstrip()
    if not body:
        return "spaces", ""
    first = at + len(piece) - len(body)
    if text[first].isalpha():
        start = first
        while start and text[start - 1].isalpha():
            start -= 1
        number = first - start + 1
        place = PLACES[number - 1 if number <= 3 else 3 if number <= 5 else 4]
        return ("upper case" if text[first].isupper() else "letters"), place
    return ("digits" if text[first].isdigit() else "punctuation"), ""


@pytest.mark.parametrize("vocab_size", [0, 270, 330])
def test_each_token_is_sorted_as_its_characters_say(vocab_size: int):
    tokenizer: Tokenizer = CharacterTokenizer.train([TEXT])
    if vocab_size:
        tokenizer = BPETokenizer.train([TEXT.replace("Ä", "A")], vocab_size)
    text = TEXT if not vocab_size else TEXT.replace("Ä", "A")
    tokens = tokenizer.encode(text)
    groups = TokenGroups.of(tokens, tokenizer)
    at, expected = 0, list[tuple[str, str]]()
    for token_id in tokens.tolist():
        piece = tokenizer.decode([token_id])
        expected.append(slowly(text, at, piece))
        at += len(piece)
    assert [CLASSES[i] for i in groups.classes] == [name for name, _ in expected[1:]]
    found = [PLACES[i] if i >= 0 else "" for i in groups.places]
    assert found == [place for _, place in expected[1:]]
    assert {name for name, _ in expected} == set(CLASSES)
    assert {place for _, place in expected} == {"", *PLACES} or vocab_size == 330


def test_the_losses_of_the_classes_are_those_of_all_tokens_together():
    tokenizer = CharacterTokenizer.train([TEXT])
    tokens = tokenizer.encode(TEXT)
    nll = np.random.default_rng(1).random(len(tokens) - 1)
    groups = TokenGroups.of(tokens, tokenizer, np.arange(len(tokens)) // 20)
    classes, places = groups.losses(nll)
    counts = [int((groups.classes == CLASSES.index(name)).sum()) for name in classes]
    total = sum(loss * n for (loss, _), n in zip(classes.values(), counts))
    assert sum(counts) == len(nll) and total == pytest.approx(nll.sum())
    first = nll[groups.places == 0]
    assert places["first letter"][0] == pytest.approx(first.mean())
    assert all(0 < error < 0.2 for _, error in classes.values())


def test_what_does_not_count_and_what_does_not_occur_has_no_loss():
    tokenizer = CharacterTokenizer.train([TEXT])
    tokens = tokenizer.encode("at12")
    counted = np.array([True, True, False, False])
    classes, places = TokenGroups.of(tokens, tokenizer, counted=counted).losses(np.ones(3))
    assert set(classes) == {"letters"} and set(places) == {"second"}


def test_special_tokens_and_parts_of_characters_are_in_no_class():
    tokenizer = BPETokenizer.train(["plain letters only " * 20], 270)
    tokens = tokenizer.encode("aÄb")  # its two bytes are tokens of their own
    assert len(tokens) == 4
    assert TokenGroups.of(tokens, tokenizer).classes.tolist() == [-1, -1, 0]
