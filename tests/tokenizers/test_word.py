"""The word tokenizer, against the `tokenizers` library and examples worked by hand."""

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from folio.errors import UserError
from folio.tokenizers import load
from folio.tokenizers.config import TokenizerConfig, train_tokenizer
from folio.tokenizers.word import EXPRESSIONS, Punctuation, WordTokenizer, whole_words

TEXT = "The cat sat. The dog didn't sit: the dog's “ran” away! ΣΑΣ हिन्दी 3.5 + 漢字"
ALL = [
    WordTokenizer.train([TEXT], 100, punctuation=punctuation, lowercase=lowercase)
    for punctuation in ("separate", "drop", "keep")
    for lowercase in (False, True)
]
IDS = [f"{t.punctuation}-{'lower' if t.lowercase else 'as it is'}" for t in ALL]
every_tokenizer = pytest.mark.parametrize("tokenizer", ALL, ids=IDS)
settled = st.characters(max_codepoint=0x24FF, exclude_categories=["Cs", "Cn"])


@every_tokenizer
@given(text=st.lists(st.sampled_from(TEXT.split()) | st.text(settled)).map(" ".join))
def test_tokenizers_library_gives_the_same_ids(tokenizer: WordTokenizer, text: str):
    theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.to_json()))
    theirs.encode_special_tokens = True
    assert theirs.encode(text).ids == tokenizer.encode(text).tolist()
    assert theirs.decode(theirs.encode(text).ids, skip_special_tokens=False) == tokenizer.decode(
        tokenizer.encode(text)
    )


@every_tokenizer
def test_loaded_tokenizer_encodes_like_the_saved_one(tokenizer: WordTokenizer, tmp_path: Path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load(tmp_path / "tokenizer.json")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()


@every_tokenizer
def test_ids_go_to_the_special_tokens(tokenizer: WordTokenizer):
    assert tokenizer.vocab_size == len(tokenizer.words) + 2
    assert tokenizer.special_tokens["<unk>"] == len(tokenizer.words)


@pytest.mark.parametrize(
    ("punctuation", "words"),
    [
        ("separate", ["Don't", "stop", ",", "it", "'", "s", "“", "5", "”", "!"]),
        ("drop", ["Don't", "stop", "it", "s", "5"]),
        ("keep", ["Don't", "stop,", "it", "'", "s", "“5”!"]),
    ],
)
def test_punctuation_is_treated_as_asked(punctuation: Punctuation, words: list[str]):
    assert WordTokenizer([], punctuation=punctuation).split("Don't stop, it ' s “5”!") == words


@every_tokenizer
@given(parts=st.lists(st.text("aΣ1'’-。字\u093f \n")))
def test_pieces_of_whole_words_have_the_words_of_the_whole(
    tokenizer: WordTokenizer, parts: list[str]
):
    pieces = list(whole_words(parts, tokenizer.punctuation))
    assert "".join(pieces) == "".join(parts)
    assert [word for piece in pieces for word in tokenizer.split(piece)] == tokenizer.split(
        "".join(parts)
    )


def test_a_vocabulary_learned_from_pieces_has_whole_words():
    documents = [["I do", "n't kn", "ow, do"], ["n't I"]]
    learned = train_tokenizer(TokenizerConfig(kind="word", vocab_size=9), documents)
    words = [piece.decode() for piece in learned.pieces[:-2]]
    assert words == ["I", ",", "do", "don't", "know", "n't"]


def test_text_without_spaces_does_not_wait_for_its_end():
    assert list(whole_words(["从前，有", "座山。山", "里"], "drop")) == [
        "从前，",
        "有座山。",
        "山里",
    ]


def test_rare_words_are_left_out_and_counted():
    tokenizer = WordTokenizer.train(["a a a b b c"], 100, min_count=2)
    assert tokenizer.words == ["a", "b"]
    assert tokenizer.note == "16.67% of the words of the training text are <unk>."
    assert WordTokenizer.train(["a a a b"], 3).note.startswith("25.00%")
    assert WordTokenizer.train([], 3).note.startswith("0.00%")
    assert tokenizer.encode("c").tolist() == [tokenizer.unknown]


def test_equally_frequent_words_stand_in_the_order_of_the_alphabet():
    assert WordTokenizer.train(["b a", "c"], 4).words == ["a", "b"]


def test_names_of_special_tokens_are_no_words():
    tokenizer = WordTokenizer.train(["<unk> <|endoftext|> x"], 100, punctuation="keep")
    assert tokenizer.words == ["x"]


def test_bad_settings_are_refused():
    with pytest.raises(UserError, match=r"vocab_size must be at least 3, .*, got 2\."):
        WordTokenizer.train([TEXT], 2)
    with pytest.raises(UserError, match="separate, drop, keep"):
        WordTokenizer([], punctuation="other")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="twice"):
        WordTokenizer(["a", "a"])
    for table in ({}, {"model": []}, ALL[0].to_json() | {"model": {"vocab": {"a": 5}}}):
        with pytest.raises(UserError, match="damaged"):
            WordTokenizer.from_json(table)
    assert set(EXPRESSIONS) == {"separate", "drop", "keep"}


def test_an_error_names_five_unknown_words_at_most_each_once():
    tokenizer = WordTokenizer.train(["the cat"], 4)
    with pytest.raises(UserError, match="lacks 'dog', so the model"):
        tokenizer.encode_prompt("the cat " * 1000 + "dog dog")
    with pytest.raises(UserError, match=r"lacks 'a', 'b', 'c', 'd', 'e', \.\.\., so"):
        tokenizer.encode_prompt(" ".join("abcdef") + "x" * 10_000)
    with pytest.raises(UserError) as caught:
        tokenizer.encode_prompt("x" * 10_000)
    assert len(str(caught.value)) < 200


def test_the_mark_of_a_conversation_is_no_word():
    text = "say <|user|> and <|end|> twice <|user|>"
    tokenizer = WordTokenizer.train([text], 20, punctuation="keep").with_chat()
    theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.to_json()))
    for name in ("<|user|>", "<|assistant|>", "<|end|>"):
        assert theirs.token_to_id(name) == tokenizer.special_id(name)
    with pytest.raises(UserError, match=r"<\|user\|> is a word"):
        WordTokenizer(["<|user|>"], punctuation="keep").with_chat()
