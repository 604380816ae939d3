from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers as hf
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from folio.errors import UserError
from folio.testing import check_tokenizer
from folio.tokenizers import load
from folio.tokenizers.character import CharacterTokenizer

TEXT = "naïve café, 世界 🌍\r\n\ttab <|endoftext|> <unk> á"


def test_the_contract_of_a_tokenizer_holds(tmp_path: Path):
    check_tokenizer(CharacterTokenizer.train([TEXT, "<>|"]), TEXT, tmp_path)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_the_tokenizers_library_agrees_on_every_id(tmp_path: Path, known: str, text: str):
    ours = CharacterTokenizer.train([known, TEXT])
    ours.save(tmp_path / "tokenizer.json")
    theirs = hf.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs.encode_special_tokens = True  # special tokens in text are plain text, as ours are
    text = known + text + TEXT
    assert theirs.encode(text).ids == ours.encode(text).tolist()
    assert theirs.get_vocab_size() == ours.vocab_size
    known_ids = ours.encode(known + TEXT)
    assert theirs.decode(known_ids.tolist(), skip_special_tokens=False) == known + TEXT


def test_ids_follow_the_code_points_and_the_vocabulary_is_that_of_the_text():
    tokenizer = CharacterTokenizer.train(["ba", "🌍b"])
    assert tokenizer.characters == "ab🌍"
    assert tokenizer.encode("b🌍a").tolist() == [1, 2, 0]
    assert tokenizer.special_tokens == {"<unk>": 3, "<|endoftext|>": 4}


def test_an_unknown_character_becomes_unk_and_in_a_prompt_is_shown():
    tokenizer = CharacterTokenizer.train(["ab"])
    assert tokenizer.encode("axb").tolist() == [0, 2, 1]
    with pytest.raises(UserError, match=r"lacks 'x' \(U\+0078\)"):
        tokenizer.encode_prompt("axb")


def test_tiny_shakespeare_has_65_characters(shakespeare: Path):
    assert len(CharacterTokenizer.train([shakespeare.read_text()]).characters) == 65


@pytest.mark.parametrize(("n", "dtype"), [(254, np.uint8), (255, np.uint16), (65_535, np.uint32)])
def test_ids_take_the_smallest_type(n: int, dtype: type):
    characters = "".join(chr(c) for c in range(0x100, 0x20000) if not 0xD800 <= c < 0xE000)[:n]
    assert CharacterTokenizer(characters).dtype == dtype


@pytest.mark.parametrize("token_id", [-1, 4])
def test_an_id_that_does_not_exist_is_refused(token_id: int):
    with pytest.raises(UserError, match="0 to 3"):
        CharacterTokenizer("ab").decode([0, token_id])


@pytest.mark.parametrize("damage", ["{", "{}", "[]", '{"model": {"type": "Unigram"}}', '"x"'])
def test_a_damaged_tokenizer_file_is_refused(tmp_path: Path, damage: str):
    path = tmp_path / "tokenizer.json"
    path.write_text(damage)
    with pytest.raises(UserError, match="tokenizer"):
        load(path)


def test_the_fingerprint_tells_vocabularies_apart():
    prints = {CharacterTokenizer(c).fingerprint for c in ("ab", "abc", "ab")}
    assert len(prints) == 2
    assert json.dumps(CharacterTokenizer("ab").to_json())
