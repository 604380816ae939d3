"""The promise of the guard, tried on models that do all they can to break it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.errors import UserError
from folio.generation import guard as guard_module
from folio.generation.batch import Batch
from folio.generation.engine import write
from folio.generation.guard import Guard, make_table
from folio.generation.readers import PlainReader
from folio.generation.row import FINISHED, Request
from folio.generation.sampling import Logits, SamplingConfig, draw
from folio.testing import tiny_gpt
from folio.tokenizers.base import Tokenizer
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.sequences import encode_documents
from folio.tokens.text import TokenText


def folded(text: str) -> str:
    return "".join(c.lower()[0] for c in text if c.isalnum())


def longest_match(text: str, documents: list[str]) -> int:
    """Letters of the longest stretch that stands in a document."""
    mine, others = folded(text), [folded(document) for document in documents]
    best = 0
    for i in range(len(mine)):
        while i + best < len(mine) and any(mine[i : i + best + 1] in other for other in others):
            best += 1
    return best


def training(documents: list[str], kind: str) -> tuple[TokenText, Tokenizer]:
    tokenizer: Tokenizer
    if kind == "character":
        tokenizer = CharacterTokenizer.train(iter(documents))
    else:
        tokenizer = BPETokenizer.train(iter(documents), vocab_size=264)
    tokens = np.concatenate(list(encode_documents(tokenizer, ([d] for d in documents))))
    return TokenText(tokens, tokenizer), tokenizer


def written(
    text: TokenText, tokenizer: Tokenizer, n: int, greedy: list[list[int]], temperature: float
) -> tuple[list[str], Guard]:
    """What rows write whose likeliest tokens are always those of the training text."""
    guard = Guard(make_table([text], n), tokenizer)
    numbers, generator = np.random.default_rng(0), random.Random(0)
    config = SamplingConfig(temperature=temperature)
    ids: list[list[int]] = [[] for _ in greedy]
    draws = [guard.of_text() for _ in greedy]
    for step in range(len(greedy[0])):
        for row, wanted in enumerate(greedy):
            logits = numbers.standard_normal(tokenizer.vocab_size).astype(np.float32)
            if tokenizer.unknown is not None:
                logits[tokenizer.unknown] = -np.inf
            logits[wanted[step]] += 9.0
            ids[row].append(draws[row](logits, config, generator))
    texts = []
    for row in ids:
        symbols = TokenText(np.array([i for i in row if i >= 0]), tokenizer)
        texts += "".join(symbols.pieces()).split("\0")
    return texts, guard


@given(
    documents=st.lists(st.text("abAB 1é😀日.", min_size=1, max_size=40), min_size=1, max_size=3),
    kind=st.sampled_from(["character", "bpe"]),
    n=st.integers(1, 12),
    temperature=st.sampled_from([0.0, 1.0]),
)  # fmt: skip
def test_no_more_than_n_letters_in_a_row_stand_in_the_training_text(
    documents: list[str], kind: str, n: int, temperature: float
):
    text, tokenizer = training(documents, kind)
    tokens = [int(token) for token in text.tokens] * 2
    texts, _ = written(text, tokenizer, n, [tokens, tokens[::-1]], temperature)
    assert all(longest_match(t, documents) <= n for t in texts)


@pytest.mark.parametrize("n", [3, 25, 60])
def test_a_model_that_recites_is_stopped_after_n_letters(n: int):
    document = "It was the best of times, it was the worst of times, it was the age of wisdom" * 2
    text, tokenizer = training([document], "character")
    texts, _ = written(text, tokenizer, n, [text.tokens.tolist()], 0.0)
    assert longest_match(texts[0], [document]) == n


def test_case_and_punctuation_between_do_not_help():
    text, tokenizer = training(["the secret of the house", "THE SECRET, OF-THE HOUSE"], "character")
    wanted = tokenizer.encode("THE, SECRET OF-THE HOUSE").tolist()
    texts, _ = written(text, tokenizer, 8, [wanted], 0.0)
    assert longest_match(texts[0], ["the secret of the house"]) <= 8


def test_without_a_blocked_draw_the_text_is_that_of_no_guard():
    text, tokenizer = training(["zzzzzzzz", "abcdefghi"], "character")
    model = tiny_gpt(vocab_size=tokenizer.vocab_size)
    config = SamplingConfig(temperature=1.0, seed=3)

    def run(**more: Any) -> list[int]:
        request = Request(prompt=[1], config=config, max_tokens=60, **more)
        return [drawn.token_id for _, drawn in write(Batch(PlainReader(model), 1), [request])]

    guard = Guard(make_table([text], 30), tokenizer)
    assert run(draw=guard.of_text()) == run()


def test_where_nothing_new_can_follow_the_document_ends():
    # Every pair of letters stands in the text, so that with n = 1 no second letter can follow.
    text, tokenizer = training(["aabba"], "character")
    guard = Guard(make_table([text], 1), tokenizer)
    logits, generator = np.zeros(tokenizer.vocab_size, np.float32), random.Random(0)
    logits[list(tokenizer.special_tokens.values())] = -np.inf
    draw_one = guard.of_text()
    assert draw_one(logits, SamplingConfig(), generator) in (0, 1)
    assert draw_one(logits, SamplingConfig(), generator) == tokenizer.end_of_document
    assert guard.stuck == 1
    # A new document has begun.
    assert draw_one(logits, SamplingConfig(), generator) in (0, 1)


def test_generation_ends_where_nothing_may_come_and_there_is_no_end_token():
    def none(logits: Logits, config: SamplingConfig, generator: random.Random) -> int:
        return FINISHED

    requests = [Request(prompt=[1], max_tokens=50, draw=none), Request(prompt=[2], max_tokens=50)]
    rows = {0: [], 1: []}
    for number, drawn in write(Batch(PlainReader(tiny_gpt()), 2), requests):
        rows[number].append(drawn)
    assert len(rows[1]) == 50
    assert rows[0] == [(FINISHED, None, [], "", "stop")]


def test_texts_of_one_guard_have_states_of_their_own_and_are_counted_together():
    text, tokenizer = training(["aabba"], "character")
    guard = Guard(make_table([text], 1), tokenizer)
    logits = np.zeros(tokenizer.vocab_size, np.float32)
    logits[list(tokenizer.special_tokens.values())] = -np.inf
    draws, generator = [guard.of_text(), guard.of_text()], random.Random(0)
    firsts = [draw(logits, SamplingConfig(), generator) for draw in draws]
    assert set(firsts) <= {0, 1}  # the second text has a first letter, too
    ends = [draw(logits, SamplingConfig(), generator) for draw in draws]
    assert ends == [tokenizer.end_of_document] * 2 and guard.stuck == 2


def test_rows_of_a_batch_have_states_of_their_own():
    document = "one two three four five six seven eight nine ten eleven twelve"
    text, tokenizer = training([document], "character")
    wanted = text.tokens.tolist()
    together, _ = written(text, tokenizer, 10, [wanted, wanted[5:] + wanted[:5]], 0.0)
    assert all(longest_match(t, [document]) == 10 for t in together)


def test_the_filter_lets_nearly_all_new_text_through_and_nothing_else():
    random = np.random.default_rng(0)
    document = "".join(map(chr, random.integers(97, 123, 43_000)))
    table = make_table([training([document], "character")[0]], 9)

    def hash_of(run: str) -> int:
        codes = guard_module.fold(run)
        return sum(code * pow(guard_module.BASE, i, 1 << 64) for i, code in enumerate(codes))

    assert all(hash_of(document[i : i + 10]) in table for i in range(0, 29_000, 7))
    strange = ["".join(map(chr, random.integers(97, 123, 10))) for _ in range(20_000)]
    assert sum(hash_of(run) in table for run in strange) <= 5  # 0.8 are expected


def test_both_ways_to_fill_the_table_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch):
    text, _ = training(["the quick brown fox jumps over the lazy dog " * 500], "character")
    monkeypatch.setattr(guard_module, "BITS", 240)  # large enough for the kernel
    compiled = make_table([text], 12).bits
    monkeypatch.setattr(guard_module, "available", lambda: False)
    assert len(compiled) > 1 << 16
    assert (make_table([text], 12).bits == compiled).all()


def test_a_limit_below_one_is_refused():
    with pytest.raises(UserError, match="novel must be 1 letter or more"):
        make_table([training(["ab"], "character")[0]], -1)


def test_draws_that_are_not_guarded_are_the_plain_ones():
    logits = np.random.default_rng(1).standard_normal(7).astype(np.float32)
    config = SamplingConfig(temperature=0.7, top_k=3)
    text, tokenizer = training(["ab"], "character")
    guard = Guard(make_table([text], 50), tokenizer)
    guarded, plain = random.Random(5), random.Random(5)
    for _ in range(20):
        expected = draw(logits, config, plain)
        assert guard.of_text()(logits, config, guarded) == expected
