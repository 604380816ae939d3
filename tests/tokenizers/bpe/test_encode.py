"""The fast encoder, against the reference and against tiktoken."""

import base64
import random
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from folio.tokenizers.bpe import encode, reference
from folio.tokenizers.bpe.count import count_texts
from folio.tokenizers.bpe.encode import Encoder
from folio.tokenizers.bpe.patterns import PATTERNS
from folio.tokenizers.bpe.rules import Rules, encode_slowly
from folio.tokenizers.bpe.split import split
from folio.tokenizers.bpe.train import learn_merges

CORPUS = "the cat sat on the mat. aaaaaaaaaaaaaaaa the end of 1234 things' sake 漢字漢字 ёж\n\n" * 3
MERGES = [(left, right) for left, right in learn_merges(count_texts([CORPUS]), 120).merges.tolist()]
VOCABULARY = reference.token_bytes(MERGES)
TIKTOKEN = tiktoken.Encoding(
    "test",
    pat_str=PATTERNS["gpt2"],
    mergeable_ranks={token: rank for rank, token in enumerate(VOCABULARY)},
    special_tokens={},
)
SPECIAL_TEXTS = {
    "a million equal letters": "a" * 1_000_000,
    "100,000 ideographs without a space": "".join(
        map(chr, random.Random(0).choices([0x6F22, 0x5B57, 0x4E00], k=100_000))
    ),
    "base64": base64.b64encode(random.Random(0).randbytes(300_000)).decode(),
}

text_like_the_corpus = st.lists(
    st.sampled_from(["the", " cat", " aaaa", "a", " ", "\n", "漢字", "ё", "12", "'s", "!"])
    | st.text()
).map("".join)


def reference_ids(text: str, pattern: str = "gpt2") -> list[int]:
    return [id_ for chunk in split(text, pattern) for id_ in reference.encode(chunk, MERGES)]


@given(text=text_like_the_corpus, pattern=st.sampled_from(list(PATTERNS)))
@settings(max_examples=300)
def test_ids_are_those_of_the_reference(text: str, pattern: str):
    encoder = Encoder(Rules.from_merges(MERGES), pattern)
    expected = reference_ids(text, pattern)
    assert encoder.encode(text).tolist() == expected
    assert encoder.encode(text).tolist() == expected  # from memory


@given(
    text=st.lists(
        st.sampled_from(["a", "h", "t", "the", "cat", "aa"]), min_size=20, max_size=90
    ).map("".join)
)
def test_chunks_around_the_length_where_the_heap_begins_have_the_ids_of_the_reference(text: str):
    assert Encoder(Rules.from_merges(MERGES)).encode(text).tolist() == reference_ids(text)


@pytest.mark.parametrize("text", SPECIAL_TEXTS.values(), ids=SPECIAL_TEXTS)
def test_text_without_spaces_takes_seconds_at_most_and_has_the_ids_of_tiktoken(text: str):
    encoder = Encoder(Rules.from_merges(MERGES))
    encoder.encode("compiled before the clock starts")
    began = time.perf_counter()
    ids = encoder.encode(text)
    assert time.perf_counter() - began < 5
    assert ids.tolist() == TIKTOKEN.encode_ordinary(text)


@given(
    texts=st.lists(text_like_the_corpus, max_size=20), n_threads=st.sampled_from([None, 1, 2, 3])
)
def test_a_batch_has_the_ids_of_its_texts(texts: list[str], n_threads: int | None):
    encoder = Encoder(Rules.from_merges(MERGES))
    batch = encoder.encode_batch(texts, n_threads)
    assert [ids.tolist() for ids in batch] == [reference_ids(text) for text in texts]


@given(data=st.binary(max_size=100))
def test_any_bytes_come_back(data: bytes):
    ids = Encoder(Rules.from_merges(MERGES)).encode_bytes(data)
    assert b"".join(VOCABULARY[token_id] for token_id in ids) == data


def test_ids_stay_right_when_the_memo_overflows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encode._Thread, "largest_memo", 1 << 12)
    numbers = " ".join(map(str, range(30_000)))
    encoder = Encoder(Rules.from_merges(MERGES))
    for _ in range(2):
        assert encoder.encode(numbers).tolist() == TIKTOKEN.encode_ordinary(numbers)


def rules_of_tiktoken(ranks: Mapping[bytes, int]) -> Rules:
    """Neighbours are merged whenever together they are a token: each way to cut a token in two is a
    rule with the token's rank, where a published list of merges has one rule per token.
    """
    cuts = [(t[:k], t[k:]) for t in sorted(ranks, key=ranks.__getitem__) for k in range(1, len(t))]
    cuts = [(left, right) for left, right in cuts if left in ranks and right in ranks]
    pairs = np.array([(ranks[left], ranks[right]) for left, right in cuts], np.int32)
    new_ids = np.array([ranks[left + right] for left, right in cuts], np.int32)
    byte_ids = np.array([ranks[bytes([value])] for value in range(256)], np.int32)
    return Rules(pairs, new_ids, byte_ids, whole_chunks=ranks)


def test_ranks_of_tiktoken_give_its_ids():
    # "bc" ranks before "ab", and "abc" is a token that is never made of ab + c.
    ranks = {bytes([value]): value for value in range(256)}
    ranks |= {b"bc": 256, b"ab": 257, b"abc": 258, b"abcabc": 259}
    theirs = tiktoken.Encoding(
        "small", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={}
    )
    encoder = Encoder(rules_of_tiktoken(ranks))
    for text in ["abc", "aabc", "ab", "abcabc", "abcabcabc", "bcbc", "cab"]:
        assert encoder.encode(text).tolist() == theirs.encode_ordinary(text)


def test_chunks_that_are_tokens_as_they_stand_are_not_merged():
    long = b"x" * 60
    rules = Rules.from_merges([(97, 98)])
    rules = Rules(rules.pairs, rules.new_ids, rules.byte_ids, {b"abab": 300, long: 301})
    encoder = Encoder(rules)
    assert encoder.encode("abab ab").tolist() == [300, 32, 256]
    assert encoder.encode(long.decode()).tolist() == [301]


@given(text=text_like_the_corpus)
def test_slow_stand_in_gives_the_same_ids(text: str):
    rules = Rules.from_merges(MERGES)
    slow = [token_id for chunk in split(text) for token_id in encode_slowly(chunk, rules)]
    assert slow == reference_ids(text)


def test_ids_of_an_empty_text_are_an_empty_array():
    ids = Encoder(Rules.from_merges([])).encode("")
    assert ids.dtype == np.int32
    assert ids.shape == (0,)


@given(texts=st.lists(text_like_the_corpus, max_size=8), n_threads=st.sampled_from([None, 1, 3]))
def test_a_stream_gives_the_ids_of_each_text_in_order(texts: list[str], n_threads: int | None):
    encoder = Encoder(Rules.from_merges(MERGES))
    streamed = [ids.tolist() for ids in encoder.encode_stream(iter(texts), n_threads)]
    assert streamed == [encoder.encode(text).tolist() for text in texts]


def test_threads_of_the_caller_do_not_write_to_one_memo():
    rules = Rules.from_merges(MERGES)
    numbers = [" ".join(map(str, range(n, n + 20_000))) for n in range(0, 80_000, 20_000)]
    alone = [Encoder(rules).encode(text).tolist() for text in numbers]
    together = Encoder(rules)
    with ThreadPoolExecutor(len(numbers)) as pool:
        for _ in range(3):
            assert [ids.tolist() for ids in pool.map(together.encode, numbers)] == alone
