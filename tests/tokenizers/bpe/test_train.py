"""The fast trainer, against the reference: the same merges, bit for bit."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folio.tokenizers.bpe import reference
from folio.tokenizers.bpe.count import ChunkCounts, count_texts
from folio.tokenizers.bpe.patterns import PATTERNS
from folio.tokenizers.bpe.split import split
from folio.tokenizers.bpe.train import learn_merges

CORPORA = Path(os.environ.get("FOLIO_CORPORA", "../shared/corpora"))


def reference_merges(texts: list[str], pattern: str, n_merges: int) -> list[tuple[int, int]]:
    chunks = [
        chunk.decode("utf-8", "surrogatepass") for text in texts for chunk in split(text, pattern)
    ]
    return reference.learn_merges(reference.count_chunks(chunks), n_merges)


def fast_merges(texts: list[str], pattern: str, n_merges: int) -> list[tuple[int, int]]:
    learned = learn_merges(count_texts(texts, pattern), n_merges)
    return [(left, right) for left, right in learned.merges.tolist()]


few_letters = st.text("ab", max_size=80)
words = st.lists(
    st.tuples(st.text("abc", min_size=1, max_size=12), st.integers(1, 300)), max_size=12
).map(lambda pairs: " ".join(f"{(word + ' ') * n}" for word, n in pairs))
any_text = st.text(max_size=80)
scripts = st.text(st.sampled_from("aé漢字ひ한😀אب ё\n"), max_size=80)


@given(
    texts=st.lists(few_letters | words | any_text | scripts, max_size=4),
    pattern=st.sampled_from(list(PATTERNS)),
    n_merges=st.integers(0, 60),
)
@settings(max_examples=300)
def test_merges_are_those_of_the_reference(texts: list[str], pattern: str, n_merges: int):
    assert fast_merges(texts, pattern, n_merges) == reference_merges(texts, pattern, n_merges)


@pytest.mark.parametrize("text", ["a" * 1000, "ab" * 500, "aab" * 300, "abcabcab" * 100])
def test_merges_of_a_long_chunk_that_repeats_itself_are_those_of_the_reference(text: str):
    assert fast_merges([text], "gpt2", 40) == reference_merges([text], "gpt2", 40)


def test_merges_do_not_depend_on_the_order_of_the_texts():
    texts = ["the cat sat", "on the mat", "at the end", "ab ba ab ba"]
    assert fast_merges(texts, "gpt2", 30) == fast_merges(texts[::-1], "gpt2", 30)


def test_merges_of_shakespeare_are_those_of_the_reference():
    path = CORPORA / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip("FOLIO_CORPORA has no tinyshakespeare.txt")
    text = path.read_text(encoding="utf-8")[:100_000]
    assert fast_merges([text], "llama3", 150) == reference_merges([text], "llama3", 150)


def test_no_merge_is_learned_twice_when_rare_pairs_are_needed_in_the_end():
    # Frequent words first, so that rare pairs are left out of the lists until they are needed.
    text = "alpha " * 10_000 + "beta " * 500 + "gamma " * 20 + " ".join(f"d{k}e" for k in range(90))
    merges = fast_merges([text], "gpt2", 500)
    assert len(set(merges)) == len(merges)
    assert merges == reference_merges([text], "gpt2", 500)


def test_counts_are_those_at_the_time_of_the_merge():
    learned = learn_merges(count_texts(["abc abc abd"]), 3)
    # a+b in all three words; then " "+ab and ab+c twice each, of which the smaller id is first.
    assert learned.merges.tolist() == [[97, 98], [32, 256], [256, 99]]
    assert learned.counts.tolist() == [3, 2, 1]


def test_counts_have_64_bits():
    table = ChunkCounts()
    table.count([b"ab cd cd"], "gpt2")
    table.counts[: len(table)] = [5_000_000_000, 2_000_000_000]  # "ab" and " cd"
    learned = learn_merges(table, 1)
    assert learned.merges.tolist() == [[97, 98]]
    assert learned.counts.tolist() == [5_000_000_000]


def test_a_text_without_more_pairs_has_fewer_merges():
    assert len(learn_merges(count_texts(["abc"]), 3).merges) == 2
    assert len(learn_merges(count_texts([]), 10).merges) == 0
