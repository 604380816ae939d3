"""The tokenizer as a whole: files that other libraries read, special tokens, errors."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from folio.errors import UserError
from folio.tokenizers import load
from folio.tokenizers.bpe import tokenizer as bpe
from folio.tokenizers.bpe.patterns import PATTERNS, safe_pieces
from folio.tokenizers.bpe.rules import encode_slowly
from folio.tokenizers.bpe.standard_json import byte_characters, written
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.bpe.unicode_classes import class_table

TEXT = "The cat sat on the mat; the cat's 1234 mats aren't THE mats.\n\n  漢字 漢字 ёлка 😀😀\n" * 5
TOKENIZERS = {name: BPETokenizer.train([TEXT], 300, pattern=name) for name in PATTERNS}
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)

ADVERSARIAL = [
    "",
    " ",
    "\n",
    "   \n\n  x",
    "\r\n\r\n",
    "a" * 300,
    "I'LL we'Ve 'ſ ''s",
    "١٢٣٤ ½ Ⅷ",
    "<|endoftext|> <bos>",
    "\u00a0\u3000x",
    "e\u0301 👩\u200d👩\u200d👧 🇩🇪",
    "\0\x01\x7f\ufeff\uffff",
    TEXT,
]
# Classes of these differ between Unicode versions; see test_unicode_classes.
settled = st.characters(min_codepoint=0, max_codepoint=0x24FF, exclude_categories=["Cs", "Cn"])


@pytest.fixture(scope="module", autouse=True)
def short_pieces() -> Iterator[None]:
    """Streams that are cut although the texts here are short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "safe_pieces", partial(safe_pieces, n_characters=4))
        yield


@cache
def in_tokenizers(tokenizer: BPETokenizer) -> tokenizers.Tokenizer:
    theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.to_json()))
    theirs.encode_special_tokens = True  # special tokens in text are text, as with us
    return theirs


in_tiktoken = cache(BPETokenizer.to_tiktoken)


def with_merges(*merges: str) -> dict[str, Any]:
    """The file of a vocabulary in which a merge may stand twice."""
    table = BPETokenizer.from_merges([(97, 98), (98, 99)], special_tokens=()).to_json()
    return table | {"model": table["model"] | {"merges": [merge.split() for merge in merges]}}


def test_of_two_equal_merges_the_last_one_holds_as_in_the_tokenizers_library():
    table = with_merges("a b", "b c", "a b")
    tokenizer = BPETokenizer.from_json(table)
    assert tokenizer.encode("abc").tolist() == [97, 257]
    assert tokenizer.encode("abc").tolist() == in_tokenizers(tokenizer).encode("abc").ids
    assert encode_slowly(b"abc", tokenizer._contents.rules) == [97, 257]


def test_ids_that_are_not_in_the_order_of_the_merges_are_refused_for_tiktoken():
    with pytest.raises(UserError, match="order of the merges"):
        BPETokenizer.from_json(with_merges("b c", "a b")).to_tiktoken()


@pytest.mark.parametrize("form", [None, "NFC", "NFKC"])
def test_added_tokens_are_found_as_in_the_tokenizers_library(form: str | None):
    table = BPETokenizer.train(["hug pug <tool bug"], 261, special_tokens=()).to_json()
    names = {"<tool>": False, "ﬁx": False, "Å": True, "<tool": True}
    table["normalizer"] = {"type": form} if form else None
    table["added_tokens"] += [
        {"id": 261 + i, "content": name, "normalized": normalized, "special": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for i, (name, normalized) in enumerate(names.items())
    ]
    tokenizer = BPETokenizer.from_json(table)
    again = BPETokenizer.from_json(tokenizer.to_json())
    theirs = in_tokenizers(tokenizer)
    parts = ["<tool>", "\u0338", "＜tool＞", "ﬁx", "fix", "A\u030a", "Å", "<tool", " hug"]
    for text in map("".join, itertools.product(parts, repeat=3)):
        ids = tokenizer.encode(text).tolist()
        assert ids == theirs.encode(text).ids == again.encode(text).tolist(), text
    with pytest.raises(UserError, match="no added tokens"):
        tokenizer.to_tiktoken()


def python(script: str) -> str:
    """What another Python prints."""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@every_tokenizer
@pytest.mark.parametrize("text", ADVERSARIAL)
def test_tokenizers_library_gives_the_same_ids_and_text(tokenizer: BPETokenizer, text: str):
    ids = tokenizer.encode(text).tolist()
    theirs = in_tokenizers(tokenizer)
    assert theirs.encode(text).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == text


@every_tokenizer
@given(text=st.text(settled))
def test_tokenizers_library_gives_the_same_ids_on_random_text(tokenizer: BPETokenizer, text: str):
    assert in_tokenizers(tokenizer).encode(text).ids == tokenizer.encode(text).tolist()


@every_tokenizer
@given(text=st.text(st.sampled_from("the catsm.'1漢 \n") | settled))
def test_tiktoken_gives_the_same_ids(tokenizer: BPETokenizer, text: str):
    assert in_tiktoken(tokenizer).encode_ordinary(text) == tokenizer.encode(text).tolist()


@every_tokenizer
@given(text=st.text())
def test_any_text_comes_back(tokenizer: BPETokenizer, text: str):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", ADVERSARIAL)
@every_tokenizer
def test_a_short_prompt_has_the_ids_that_the_kernels_give(tokenizer: BPETokenizer, text: str):
    fresh = BPETokenizer(tokenizer._contents)
    assert fresh.encode_prompt(text).tolist() == tokenizer.encode(text).tolist()
    assert fresh.encode_prompt(text).dtype == tokenizer.encode(text).dtype
    assert "_encoder" not in vars(fresh)


@every_tokenizer
def test_loaded_tokenizer_encodes_like_the_saved_one(tokenizer: BPETokenizer, tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = load(path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert isinstance(loaded, BPETokenizer) and loaded.pattern == tokenizer.pattern
    for text in ADVERSARIAL:
        assert loaded.encode(text).tolist() == tokenizer.encode(text).tolist()


@given(parts=st.lists(st.text(st.sampled_from("the cat'.1 \n漢")), max_size=6))
def test_a_stream_has_the_ids_of_the_whole(parts: list[str]):
    tokenizer = TOKENIZERS["llama3"]
    ids = [token_id for piece in tokenizer.encode_stream(parts) for token_id in piece]
    assert ids == tokenizer.encode("".join(parts)).tolist()


@cache
def composing(form: str) -> BPETokenizer:
    table = TOKENIZERS["llama3"].to_json() | {"normalizer": {"type": form}}
    return BPETokenizer.from_json(table)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@given(text=st.text(st.sampled_from("aé\u0301\u0327\u1100\u1161ﬁ漢 .")), size=st.integers(1, 4))
def test_normalized_text_has_the_ids_of_the_tokenizers_library_whole_and_in_pieces(
    form: str, text: str, size: int
):
    tokenizer = composing(form)
    expected = in_tokenizers(tokenizer).encode(text).ids
    assert tokenizer.encode(text).tolist() == expected
    assert tokenizer.encode_batch([text])[0].tolist() == expected
    pieces = (text[i : i + size] for i in range(0, len(text), size))
    ids = [token_id for piece in tokenizer.encode_stream(pieces) for token_id in piece]
    assert ids == expected


@pytest.mark.parametrize("ignore_merges", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_file_made_by_the_tokenizers_library_gives_its_ids(pattern: str, ignore_merges: bool):
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=ignore_merges))
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERNS[pattern]), "isolated")
    theirs.pre_tokenizer = (
        byte_level(add_prefix_space=False)
        if pattern == "gpt2"
        else tokenizers.pre_tokenizers.Sequence(
            [split, byte_level(add_prefix_space=False, use_regex=False)]
        )
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=350,
        show_progress=False,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=byte_level.alphabet(),
    )
    theirs.train_from_iterator([TEXT], trainer)
    theirs.encode_special_tokens = True
    ours = BPETokenizer.from_json(json.loads(theirs.to_str()))
    assert ours.special_tokens == {"<|endoftext|>": 0}
    assert ours.to_json()["model"]["ignore_merges"] == ignore_merges
    for text in ADVERSARIAL:
        assert ours.encode(text).tolist() == theirs.encode(text).ids


def test_the_digits_of_smollm_are_read_and_written_as_its_file_has_them():
    theirs = in_tokenizers(TOKENIZERS["smollm"])
    kinds = [part["type"] for part in json.loads(theirs.to_str())["pre_tokenizer"]["pretokenizers"]]
    assert kinds == ["Digits", "ByteLevel"]
    assert BPETokenizer.from_json(json.loads(theirs.to_str())).pattern == "smollm"


def lacking(*values: int) -> dict[str, Any]:
    """The file of a vocabulary without some bytes."""
    table = TOKENIZERS["gpt2"].to_json()
    names = {written(bytes([value])) for value in values}
    vocabulary = {name: i for name, i in table["model"]["vocab"].items() if name not in names}
    merges = [m for m in table["model"]["merges"] if not names & {m[0], m[1]}]
    return table | {"model": table["model"] | {"vocab": vocabulary, "merges": merges}}


@pytest.mark.parametrize("length", [1, 5, 100])
def test_bytes_that_a_vocabulary_lacks_are_left_out_as_by_the_tokenizers_library(
    length: int, both_ways: None
):
    tokenizer = BPETokenizer.from_json(lacking(0x07, 0xFF, 0xF5))
    theirs = in_tokenizers(tokenizer)
    for text in ("\a", "th\ae cat", "\a\a", "the"):
        assert tokenizer.encode(text * length).tolist() == theirs.encode(text * length).ids
    assert tokenizer.encode_prompt("the cat").tolist() == tokenizer.encode("the cat").tolist()
    with pytest.raises(UserError, match=r"lacks the byte 0x07, which the text 'a.x07' has"):
        tokenizer.encode_prompt("a\a")


def test_added_tokens_that_are_not_special_are_text_and_found_in_any_text(tmp_path: Path):
    table = TOKENIZERS["gpt2"].to_json()
    for number, name in enumerate(("<think>", "<think>>")):
        extra = {**table["added_tokens"][0], "content": name, "id": 300 + number}
        table["added_tokens"].append(extra | {"special": False})
    tokenizer = BPETokenizer.from_json(table)
    text = "the<think>> cat<think><bos>"
    ids = tokenizer.encode(text).tolist()
    assert 301 in ids and 300 in ids and tokenizer.special_id("<bos>") not in ids
    assert tokenizer.decode(ids, skip_special=True) == text
    assert np.concatenate([*tokenizer.encode_stream(text)]).tolist() == ids
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load(tmp_path / "tokenizer.json")
    assert loaded.encode(text).tolist() == ids and loaded.fingerprint == tokenizer.fingerprint


def test_tokens_that_begin_and_end_documents_may_have_other_names():
    table = TOKENIZERS["gpt2"].to_json()
    table["model"]["roles"] = {"begin": "<eos>", "end": "<bos>"}
    tokenizer = BPETokenizer.from_json(table)
    assert tokenizer.begin == tokenizer.special_id("<eos>")
    assert tokenizer.end_of_document == tokenizer.special_id("<bos>")
    assert BPETokenizer.from_json(tokenizer.to_json()).begin == tokenizer.begin
    assert in_tokenizers(tokenizer).encode("the").ids == tokenizer.encode("the").tolist()


def test_without_numba_merges_and_ids_are_the_same():
    script = (
        "import sys; sys.modules['numba'] = None\n"
        "from folio.tokenizers.bpe.tokenizer import BPETokenizer\n"
        f"tokenizer = BPETokenizer.train([{TEXT[:200]!r}], 300)\n"
        f"print(tokenizer.fingerprint, tokenizer.encode({TEXT!r}).tolist())"
    )
    slow = python(script)
    fast = BPETokenizer.train([TEXT[:200]], 300)
    assert slow.split(" ", 1) == [fast.fingerprint, f"{fast.encode(TEXT).tolist()}\n"]


def test_numba_is_not_imported_before_it_is_used():
    script = "import sys, folio.tokenizers.bpe.tokenizer; print('numba' in sys.modules)"
    assert python(script) == "False\n"


def test_ids_have_the_smallest_type_that_holds_them():
    assert TOKENIZERS["gpt2"].encode("the").dtype == np.uint16
    assert BPETokenizer.from_merges([], special_tokens=()).encode("the").dtype == np.uint8


def test_merges_are_told_in_the_order_in_which_they_were_learned():
    tokenizer = BPETokenizer.train(["hug hug pug"], 261)
    u, g, h = b"ugh"
    # " hug" and " pug" are chunks of their own: (u, g) three times, (h, ug) twice
    assert tokenizer.merges == [(u, g, 256, 3), (h, 256, 257, 2)]


def test_counts_of_merges_are_saved_and_change_neither_fingerprint_nor_other_readers(
    tmp_path: Path,
):
    tokenizer = BPETokenizer.train(["hug hug pug"], 261)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load(tmp_path / "tokenizer.json")
    assert isinstance(loaded, BPETokenizer) and loaded.merges == tokenizer.merges
    without = BPETokenizer.from_merges([merge[:2] for merge in tokenizer.merges])
    assert [merge.occurrences for merge in without.merges] == [None, None]
    assert without.fingerprint == tokenizer.fingerprint
    assert in_tokenizers(tokenizer).encode("hug pug").ids == tokenizer.encode("hug pug").tolist()


def test_a_text_with_too_few_pairs_says_so():
    tokenizer = BPETokenizer.train(["ab"], 300)
    assert tokenizer.vocab_size == 260
    assert tokenizer.note.startswith("The text has no more than 1 pair to merge")
    assert tokenizer.note.endswith("40 ids fewer than it may have.")
    assert not TOKENIZERS["gpt2"].note


def test_training_on_nothing_leaves_the_bytes():
    assert BPETokenizer.train([], 300).encode("ä").tolist() == [0xC3, 0xA4]


def test_vocabulary_smaller_than_bytes_and_special_tokens_is_refused():
    with pytest.raises(UserError, match=r"vocab_size must be at least 259, .*, got 258\."):
        BPETokenizer.train([TEXT], 258)


def test_a_special_token_that_could_be_a_word_is_refused():
    with pytest.raises(UserError, match="'END' could be a word"):
        BPETokenizer.train([TEXT], 300, special_tokens=["END"])


@pytest.mark.parametrize("token_id", [-1, 300])
def test_an_id_out_of_range_is_refused(token_id: int):
    with pytest.raises(UserError, match=f"Token id {token_id} does not exist"):
        TOKENIZERS["gpt2"].decode([token_id])


def damaged(**model: Any) -> dict[str, Any]:
    table = TOKENIZERS["gpt2"].to_json()
    return table | {"model": table["model"] | model}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "is damaged"),
        ([], "is damaged"),
        (damaged(type="Unigram"), "type 'Unigram'"),
        (damaged(merges=[["x", "nothing"]]), "merge 0 needs the token 'nothing'"),
        (damaged(merges=["a b c"]), "is damaged"),
        (damaged(vocab={"a": 0}, merges=[]), "lacks 255 of the 256 bytes"),
        (damaged(vocab=[1, 2]), "is damaged"),
        (damaged(merge_counts=[1]), "a number for each merge"),
        (damaged(merge_counts=["1"] * 41), "a number for each merge"),
        (damaged(merge_counts=7), "is damaged"),
        (damaged(roles={"begin": "never"}), "do not have 'never'"),
        (damaged(roles=[1]), "is damaged"),
        (lacking(0x41), "lacks 1 of the 256 bytes, the first is 0x41"),
        (damaged(unk_token="<unk>"), "sets model.unk_token"),
        (
            damaged() | {"pre_tokenizer": {"type": "Whitespace"}},
            "in a way that Folio does not know",
        ),
        (damaged() | {"pre_tokenizer": None}, "in a way that Folio does not know"),
        (damaged() | {"normalizer": {"type": "Lowercase"}}, "normalizes text with 'Lowercase'"),
        (
            damaged() | {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
            "add_prefix_space",
        ),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_with_a_reason(table: Any, message: str):
    with pytest.raises(UserError, match=message):
        BPETokenizer.from_json(table)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="damaged"):
        load(path)


def test_classes_of_settled_characters_cover_all_kinds():
    assert set(class_table()[:0x2500].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("lacking", "lossless"), [([0xE9], False), ([0xC0, 0xC1, *range(0xF5, 0x100)], True)]
)
def test_a_vocabulary_loses_text_if_it_lacks_a_byte_that_utf_8_has(
    lacking: list[int], lossless: bool
):
    table = BPETokenizer.train(["some text"], 260).to_json()
    for value in lacking:
        del table["model"]["vocab"][byte_characters()[value]]
    assert BPETokenizer.from_json(table).lossless == lossless
