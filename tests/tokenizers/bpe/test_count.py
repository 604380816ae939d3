"""Counting chunks, against a dictionary."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.tokenizers.bpe import count
from folio.tokenizers.bpe.count import ChunkCounts, count_texts
from folio.tokenizers.bpe.split import split

texts = st.lists(st.text(st.sampled_from("ab c\n'1漢") | st.characters(), max_size=60), max_size=8)


def counted(texts: list[str], pattern: str = "gpt2") -> Counter[bytes]:
    return Counter(chunk for text in texts for chunk in split(text, pattern))


@given(
    texts=texts, pattern=st.sampled_from(["gpt2", "llama3", "qwen2"]), n_threads=st.integers(1, 3)
)
def test_counts_are_those_of_a_dictionary(texts: list[str], pattern: str, n_threads: int | None):
    counts = count_texts(texts, pattern, n_threads=n_threads)
    assert counts.as_counter() == counted(texts, pattern)


def test_counts_of_long_texts_do_not_depend_on_batches_and_threads(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    words = [
        "".join(chr(97 + k) for k in rng.integers(0, 26, n)) for n in rng.integers(1, 30, 3000)
    ]
    text = " ".join(words * 2)
    expected = counted([text])
    for batch_bytes in (50, 1000, 1 << 20):
        monkeypatch.setattr(count, "BATCH_BYTES", batch_bytes)
        for n_threads in (1, 2, 3):
            assert count_texts([text, text], n_threads=n_threads).as_counter() == Counter(
                {chunk: 2 * n for chunk, n in expected.items()}
            )


def test_table_grows_from_the_smallest_size():
    table = ChunkCounts(capacity=2, arena_words=2)
    numbers = [f" {k}" for k in range(500)] + [f" {'x' * k}" for k in range(1, 100)]
    table.count(["".join(numbers).encode()] * 2, "gpt2")
    assert table.as_counter() == counted(["".join(numbers)] * 2)


def test_chunks_that_differ_only_in_zeros_at_the_end_are_distinct():
    text = "\0 \0\0 \0\0\0 " + "x" * 8 + " " + "x" * 7 + " " + "x" * 16 + " " + "x" * 9
    assert count_texts([text]).as_counter() == counted([text])


def test_two_long_chunks_with_the_same_hash_are_distinct():
    first, second = ChunkCounts(), ChunkCounts()
    first.count([b"abcdefghij"], "gpt2")
    second.count([b"klmnopqrst"], "gpt2")
    first.slots[:] = second.slots  # now the hash of the second leads to the first
    first.count([b"klmnopqrst"], "gpt2")
    assert first.as_counter() == {b"abcdefghij": 1, b"klmnopqrst": 1}


def test_no_chunk_goes_from_one_text_to_the_next():
    assert count_texts(["ab", "ab"]).as_counter() == {b"ab": 2}


def test_counts_have_64_bits():
    table = ChunkCounts()
    table.count([b"word"], "gpt2")
    table.counts[0] = 3_000_000_000
    other = ChunkCounts()
    other.add(table)
    other.add(table)
    assert other.as_counter() == {b"word": 6_000_000_000}


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_nothing_has_no_chunks(texts: list[str]):
    assert len(count_texts(texts)) == 0
