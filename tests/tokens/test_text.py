"""The text of token ids as symbols."""

from __future__ import annotations

import numpy as np
import pytest

from folio.tokenizers.base import TokenIds, Tokenizer
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.sequences import encode_documents
from folio.tokenizers.word import WordTokenizer
from folio.tokens import text as text_module
from folio.tokens.text import BREAK, TokenText, characters, from_text, to_text

DOCUMENTS = ["Grüße, 😀 an alle!\nUnd noch eine Zeile.", "ein zweites 日本語 Dokument", "z"]


Made = tuple[TokenText, TokenIds, Tokenizer]


@pytest.fixture(params=["character", "bpe"])
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setattr(text_module, "CHUNK_TOKENS", 7)
    kinds = {
        "character": CharacterTokenizer.train,
        "bpe": lambda texts: BPETokenizer.train(texts, vocab_size=270),
    }
    tokenizer = kinds[request.param](iter(DOCUMENTS))
    tokens = np.concatenate(list(encode_documents(tokenizer, ([d] for d in DOCUMENTS))))
    return TokenText(tokens, tokenizer), tokens, tokenizer


def expected_symbols() -> list[int]:
    symbols: list[int] = []
    for document in DOCUMENTS:
        symbols += [*document.encode("utf-8"), BREAK]
    return symbols[:-1]


def test_symbols_are_the_bytes_of_the_documents_with_a_break_between_them(made: Made):
    text, _, _ = made
    assert np.concatenate(list(text.chunks())).tolist() == expected_symbols()
    assert len(text) == len(expected_symbols())
    assert "".join(text.pieces()) == "\0".join(DOCUMENTS)


def test_any_stretch_is_what_the_whole_has_there(made: Made):
    text, _, _ = made
    whole = expected_symbols()
    for start in range(-2, len(whole), 5):
        for stop in (start, start + 1, start + 9, len(whole) + 3):
            assert text.between(start, stop).tolist() == whole[max(start, 0) : max(stop, 0)]


def test_documents_begin_behind_a_break(made: Made):
    text, _, _ = made
    whole = expected_symbols()
    assert text.document_starts.tolist() == [0] + [i + 1 for i, s in enumerate(whole) if s == BREAK]


def test_characters_before_a_place_are_counted_without_breaks(made: Made):
    text, _, _ = made
    whole = expected_symbols()
    for place in range(len(whole) + 1):
        before = [s for s in whole[:place] if s != BREAK and s & 0xC0 != 0x80]
        assert text.characters_before(place) == len(before)
    assert text.n_characters == sum(map(len, DOCUMENTS))


def test_a_token_begins_behind_the_bytes_of_those_before_it(made: Made):
    text, tokens, tokenizer = made
    sizes = [
        1 if token == tokenizer.end_of_document else len(tokenizer.pieces[token])
        for token in tokens.tolist()
    ]
    begins = np.cumsum([0, *sizes])[:-1]
    assert text.places_of(np.arange(len(tokens))).tolist() == begins.tolist()


def test_words_keep_the_space_between_them():
    tokenizer = WordTokenizer.train(["one two three"], vocab_size=9)
    text = TokenText(tokenizer.encode("two one"), tokenizer)
    assert to_text(text.between(0, len(text))) == "two one "


def test_equal_characters_have_equal_numbers_and_others_differ():
    text = "aé日😀éa日"
    codes, starts = characters(from_text(text))
    of = dict(zip(text, codes.tolist()))
    assert [of[c] for c in text] == codes.tolist() and len(set(of.values())) == 4
    encoded = text.encode("utf-8")
    assert starts.tolist() == [len(text[:i].encode("utf-8")) for i in range(len(text))]
    # A half character before the first whole one belongs to none.
    assert characters(from_text(text)[2:])[0].tolist() == codes[2:].tolist()
    assert len(encoded) == starts[-1] + 3
