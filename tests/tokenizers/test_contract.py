"""What every tokenizer promises, and what `load` makes of any file."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from folio.errors import UserError
from folio.testing import check_tokenizer
from folio.tokenizers import Tokenizer, load
from folio.tokenizers.bpe import tokenizer as bpe
from folio.tokenizers.bpe.patterns import PATTERNS, safe_pieces
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.gpt2 import load_gpt2
from folio.tokenizers.word import WordTokenizer
from tests.conftest import CORPORA

TEXT = "naïve café, 世界 🌍\r\n\ttab the café's 12345 <|endoftext|> <unk> á  \n\n the naïve tab"
ALL: dict[str, Tokenizer] = {
    "character": CharacterTokenizer.train([TEXT, "<>|bosequnk"]),
    "bytes": BPETokenizer.from_merges([]),
    **{f"bpe-{name}": BPETokenizer.train([TEXT], 280, pattern=name) for name in PATTERNS},
    "word": WordTokenizer.train([TEXT], 100),
    "word-lower": WordTokenizer.train([TEXT], 100, punctuation="keep", lowercase=True),
}
ALL.update({f"chat-{name}": ALL[name].with_chat() for name in ("character", "bytes", "word")})
if (CORPORA / "gpt2" / "vocab.bpe").exists():
    ALL["gpt2"] = load_gpt2(CORPORA / "gpt2")
every_tokenizer = pytest.mark.parametrize("tokenizer", ALL.values(), ids=ALL)
SMALL = {name: tokenizer for name, tokenizer in ALL.items() if name != "gpt2"}


@every_tokenizer
def test_the_contract_of_a_tokenizer_holds(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Otherwise the text would be too short to be cut.
    monkeypatch.setattr(bpe, "safe_pieces", partial(safe_pieces, n_characters=4))
    check_tokenizer(tokenizer, TEXT, tmp_path)


@every_tokenizer
def test_a_saved_tokenizer_loads_as_the_same_kind(tokenizer: Tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path / "tokenizer.json")
    assert type(load(tmp_path)) is type(tokenizer)
    assert load(tmp_path).to_json() == tokenizer.to_json()


@every_tokenizer
@pytest.mark.parametrize("token_id", [-1, 1 << 20])
def test_an_id_out_of_range_is_refused(tokenizer: Tokenizer, token_id: int):
    with pytest.raises(UserError, match=f"id {token_id} does not exist.* 0 to "):
        tokenizer.decode([token_id])


def test_special_tokens_in_text_are_text_unless_allowed():
    tokenizer = ALL["bytes"]
    text = "a<|endoftext|>b<bos>"
    assert not set(tokenizer.encode(text).tolist()) & set(tokenizer.special_tokens.values())
    ids = tokenizer.encode(text, allowed_special=["<|endoftext|>"]).tolist()
    assert ids == [97, tokenizer.special_id("<|endoftext|>"), 98, *b"<bos>"]
    with pytest.raises(UserError, match="<pad>"):
        tokenizer.encode(text, allowed_special=["<pad>"])


def test_of_two_allowed_special_tokens_the_longer_one_is_found():
    tokenizer = BPETokenizer.from_merges([], special_tokens=("<a>", "<a><b>"))
    ids = tokenizer.encode("<a><b><a>", allowed_special=("<a>", "<a><b>"))
    assert ids.tolist() == [257, 256]


def test_a_character_in_parts_waits_and_words_get_their_spaces():
    euro = "€".encode()
    said = list(ALL["bytes"].decode_stream([[euro[0]], [euro[1]], [euro[2], 33], [0xFF]], ">"))
    assert said == [">", "", "", "€!", "\ufffd", ""]
    words = WordTokenizer(["the", "cat"])
    assert "".join(words.decode_stream([[0], [1, 3], []], "See")) == "See the cat"
    assert "".join(words.decode_stream([[0], [1]])) == "the cat"
    assert "".join(words.decode_stream([], "See")) == "See"


@every_tokenizer
def test_the_share_of_unknown_tokens_is_that_of_all_texts(tokenizer: Tokenizer):
    documents = [["the na", "ïve"], [], ["Ж"]]
    share = 0.0 if tokenizer.kind == "bpe" else 1 / 3 if tokenizer.kind == "word" else 1 / 10
    assert tokenizer.unknown_share(documents) == pytest.approx(share)
    assert tokenizer.unknown_share([]) == 0.0


DAMAGES = {
    "no vocabulary": lambda model: model.pop("vocab"),
    "vocabulary of another kind": lambda model: model.update(vocab=[1, 2]),
    "negative ids": lambda model: model["vocab"].update({"a": -5}),
    "ids as text": lambda model: model["vocab"].update({"a": "7"}),
    "no type": lambda model: model.pop("type"),
    "another type": lambda model: model.update(type="Unigram"),
    "a type that is none": lambda model: model.update(type=[]),
    "merges of nothing": lambda model: model.update(merges=[["never", "seen"]]),
}


@pytest.mark.parametrize("tokenizer", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_a_user_error_of_one_line(
    tokenizer: Tokenizer, damage: Callable[[dict[str, Any]], object], tmp_path: Path
):
    table = json.loads(json.dumps(tokenizer.to_json()))
    damage(table["model"])
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(UserError, match=str(path)) as caught:
        load(path)
    assert "\n" not in str(caught.value)
