"""GPT-2's vocabulary, against tiktoken's own reading of the same files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tiktoken_ext.openai_public import r50k_pat_str

from folio.errors import UserError
from folio.tokenizers.gpt2 import load_gpt2
from tests.conftest import CORPORA

GPT2 = CORPORA / "gpt2"

if not (GPT2 / "vocab.bpe").exists():
    pytest.skip("FOLIO_CORPORA has no gpt2/vocab.bpe", allow_module_level=True)

TOKENIZER = load_gpt2(GPT2)
TIKTOKEN = tiktoken.Encoding(
    "gpt2",
    pat_str=r50k_pat_str,
    mergeable_ranks=data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(GPT2 / "vocab.bpe"), encoder_json_file=str(GPT2 / "encoder.json")
    ),
    special_tokens={"<|endoftext|>": 50256},
)
# Classes above differ between Unicode versions; see test_unicode_classes.
settled = st.characters(max_codepoint=0x24FF, exclude_categories=["Cs", "Cn"])


def test_ids_of_this_sentence_are_the_published_ones():
    assert TOKENIZER.encode("Hello world").tolist() == [15496, 995]
    assert TOKENIZER.vocab_size == 50257
    assert TOKENIZER.end_of_document == 50256


@given(text=st.text(settled) | st.text(st.sampled_from(" the'sL1!\n漢é😀")))
@settings(max_examples=300)
def test_ids_are_those_of_tiktoken(text: str):
    assert TOKENIZER.encode(text).tolist() == TIKTOKEN.encode_ordinary(text)
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_ids_of_shakespeare_are_those_of_tiktoken():
    path = CORPORA / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip("FOLIO_CORPORA has no tinyshakespeare.txt")
    text = path.read_text(encoding="utf-8")
    assert np.array_equal(TOKENIZER.encode(text), TIKTOKEN.encode_to_numpy(text))


def test_every_token_encodes_to_itself_as_in_tiktoken():
    texts = [piece.decode("utf-8", errors="replace") for piece in TOKENIZER.pieces[:50256]]
    ours = [ids.tolist() for ids in TOKENIZER.encode_batch(texts)]
    assert ours == TIKTOKEN.encode_ordinary_batch(texts)


def test_a_file_other_than_the_published_one_is_refused(tmp_path: Path):
    shutil.copy(GPT2 / "encoder.json", tmp_path)
    with pytest.raises(UserError, match="There is no file"):
        load_gpt2(tmp_path)
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\na b\n", encoding="utf-8")
    with pytest.raises(UserError, match="is not the published file"):
        load_gpt2(tmp_path)
