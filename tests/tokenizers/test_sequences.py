"""What stands between documents and around their parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.errors import UserError
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.sequences import Sequence, encode_documents, sequences, stream_sequences

TOKENIZER = BPETokenizer.from_merges([])


def written(documents: list[list[str]], per: Sequence, skip_special: bool = False) -> str:
    ids = np.concatenate([*encode_documents(TOKENIZER, documents, per), []])
    return TOKENIZER.decode(ids.astype(int), skip_special)


@given(
    text=st.text(st.sampled_from("aB.!?。” \n")),
    per=st.sampled_from(["none", "document", "line", "sentence"]),
)
def test_sequences_joined_are_the_text(text: str, per: Sequence):
    assert "".join(sequences(text, per)) == text


@given(
    parts=st.lists(st.text(st.sampled_from("aB.!?。” \n")), max_size=5),
    per=st.sampled_from(["line", "sentence"]),
)
def test_a_text_in_pieces_has_the_sequences_of_the_whole(parts: list[str], per: Sequence):
    assert list(stream_sequences(parts, per)) == sequences("".join(parts), per)


def test_each_line_or_sentence_gets_its_own_begin_and_end():
    text = [["One. T", "wo!\nThree"]]
    assert written(text, "sentence") == "<bos>One. <eos><bos>Two!\n<eos><bos>Three<eos>"
    assert written(text, "sentence", skip_special=True) == "One. Two!\nThree"
    assert written(text, "line") == "<bos>One. Two!\n<eos><bos>Three<eos>"
    assert written([*text, ["4"]], "none") == "One. Two!\nThree<|endoftext|>4"


def test_marks_that_stand_together_end_one_sentence():
    assert sequences('"Why?!" he said... No', "sentence") == ['"Why?!" ', "he said... ", "No"]
    assert sequences("好！！」走。v1.2", "sentence") == ["好！！」", "走。", "v1.2"]


def test_a_vocabulary_without_begin_and_end_is_refused():
    with pytest.raises(UserError, match="no special token <bos>"):
        list(encode_documents(CharacterTokenizer("a"), [["a"]], "line"))
