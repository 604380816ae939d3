"""What is said to be known by heart is what the model would say."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from folio.evaluation import passages
from folio.evaluation.passages import Passages, is_pattern, pattern_windows, read_passages
from folio.evaluation.repeats import count_repeats, count_spans
from folio.generation.readers import PlainReader
from folio.generation.sampling import SamplingConfig
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.testing import tiny_gpt
from folio.tokenizers.base import TokenIds, Tokenizer
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokens.text import TokenText, from_text, to_text
from tests.generation.writing import write_ids

VERSE = "".join(
    f"The {i % 7}th line of verse {i % 5} sings of {i % 11} winds.\n" for i in range(90)
)


def overfitted(tokenizer: Tokenizer, text: str, positions: str) -> GPT:
    """A model that says some passages of a text at once and others not."""
    tokens = torch.from_numpy(tokenizer.encode(text).astype(np.int64))
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, context_length=16, n_layers=1, n_heads=2, d_model=32,
        positions=positions,  # type: ignore[arg-type]
    )  # fmt: skip
    model = GPT(config, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        starts = torch.randint(len(tokens) - 17, (32, 1))
        rows = tokens[starts + torch.arange(17)]
        logits = model(rows[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("positions", ["learned", "rope"])
@pytest.mark.parametrize("kind", ["character", "bpe"])
def test_at_once_is_what_greedy_generation_says(kind: str, positions: str):
    tokenizer: Tokenizer = (
        CharacterTokenizer.train([VERSE])
        if kind == "character"
        else BPETokenizer.train([VERSE], vocab_size=280)
    )
    model = overfitted(tokenizer, VERSE, positions)
    tokens = tokenizer.encode(VERSE)
    read = read_passages(model, tokens, tokenizer, 16, most=200, length=6)
    said = []
    for i in range(len(read)):
        prompt = tokens[read.starts[i] : read.starts[i] + read.prefix].astype(np.int64)
        steps = write_ids(
            PlainReader(model),
            [prompt.tolist()],
            SamplingConfig(temperature=0),
            max_tokens=int(read.sizes[i]),
        )
        said.append([int(step[0]) for step in steps] == read.suffix(tokens, i).tolist())
    assert read.at_once.tolist() == said
    assert 5 < sum(said) < len(said) - 5, "some of both, or this shows nothing"


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_bits_are_the_sum_over_a_plain_forward_pass(temperature: float):
    tokenizer = CharacterTokenizer.train(["abcdefghi"])
    model = tiny_gpt(vocab_size=11, context_length=8)
    tokens = np.random.default_rng(0).integers(0, 9, 60).astype(tokenizer.dtype)
    read = read_passages(model, tokens, tokenizer, 8, length=3, temperature=temperature)
    assert (read.prefix, set(read.sizes.tolist())) == (4, {3})
    for start, bits in zip(read.starts.tolist(), read.bits.tolist()):
        ids = torch.from_numpy(tokens[start : start + 7].astype(np.int64))
        with torch.no_grad():
            p = (model(ids[None, :-1])[0] / temperature).softmax(1)
        expected = -sum(math.log2(p[i - 1, ids[i]]) for i in (4, 5, 6))
        assert bits == pytest.approx(expected, rel=1e-5)


def test_a_window_holds_as_many_passages_as_have_room_and_each_is_as_read_alone():
    tokenizer = CharacterTokenizer.train(["abcdefghi"])
    model = tiny_gpt(vocab_size=11, context_length=64, positions="rope")
    tokens = np.random.default_rng(0).integers(0, 9, 200).astype(tokenizer.dtype)
    tokens[100] = tokenizer.end_of_document
    read = read_passages(model, tokens, tokenizer, 64, length=5)
    suffixes = read.starts + read.prefix
    # Windows begin at 0, 32 ... 128; every ten tokens of their second halves is room for one.
    expected = [first + 32 + at for first in range(0, 160, 32) for at in (0, 10, 20)]
    assert suffixes.tolist() == [at for at in expected if not at <= 100 < at + 5]
    for start, size, bits in zip(suffixes.tolist(), read.sizes.tolist(), read.bits.tolist()):
        window = start // 32 * 32 - 32
        ids = torch.from_numpy(tokens[window : start + size].astype(np.int64))
        with torch.no_grad():
            p = (model(ids[None, :-1])[0] / 0.8).log_softmax(1)
        places = range(start - window, start - window + size)
        expected_bits = -sum(float(p[i - 1, ids[i]]) for i in places) / math.log(2)
        assert bits == pytest.approx(expected_bits, rel=1e-4)
    fewer = read_passages(model, tokens, tokenizer, 64, length=5, most=4)
    assert set(fewer.starts) < set(read.starts) and len(fewer) in (5, 6), "two windows"


def test_no_passage_goes_over_the_end_of_a_document():
    tokenizer = CharacterTokenizer.train(["ab"])
    end = tokenizer.end_of_document
    tokens = np.array(([0, 1] * 20 + [end]) * 4, tokenizer.dtype)
    read = read_passages(tiny_gpt(), tokens, tokenizer, 8, length=4)
    assert len(read) > 10
    assert all(end not in read.suffix(tokens, i) for i in range(len(read)))


def test_a_passage_is_of_targets_that_count_alone():
    tokenizer = CharacterTokenizer.train([VERSE])
    tokens = tokenizer.encode(VERSE * 3)
    counted = np.random.default_rng(1).random(len(tokens) - 1) < 0.9
    model = tiny_gpt(vocab_size=tokenizer.vocab_size)
    read = read_passages(model, tokens, tokenizer, 8, length=4)
    fewer = read_passages(model, tokens, tokenizer, 8, length=4, counted=counted)
    expected = [
        start
        for start, size in zip(read.starts.tolist(), read.sizes.tolist())
        if counted[start + read.prefix - 1 : start + read.prefix + size - 1].all()
    ]
    assert fewer.starts.tolist() == expected and 10 < len(expected) < len(read)


def test_a_model_that_sees_a_few_characters_has_no_passages():
    tokenizer = CharacterTokenizer.train([VERSE])
    tokens = tokenizer.encode(VERSE)
    for context_length, some in ((1, False), (2, False), (14, False), (16, True)):
        model = tiny_gpt(vocab_size=tokenizer.vocab_size, context_length=context_length)
        read = read_passages(model, tokens, tokenizer, context_length)
        assert (len(read) > 0) == some, context_length


def test_suffixes_have_the_characters_asked_for_or_all_that_fit():
    tokenizer = BPETokenizer.train([VERSE], vocab_size=280)
    tokens = tokenizer.encode(VERSE)
    model = tiny_gpt(vocab_size=280, context_length=12)
    read = read_passages(model, tokens, tokenizer, 12, length=7)
    for i in range(len(read)):
        suffix = read.suffix(tokens, i)
        n = len(tokenizer.decode(suffix))
        assert n >= 7 or len(suffix) == 6
        assert len(tokenizer.decode(suffix[:-1])) < 7


WORDS = [
    "река",
    "камень",
    "окно",
    "сад",
    "письмо",
    "утро",
    "свеча",
    "тень",
    "мост",
    "лето",
    "🌊🌊",
    "窗户花园",
    "早晨蜡烛",
]


@pytest.mark.parametrize("vocab_size", [262, 300])
def test_a_passage_of_tokens_that_cut_characters_is_counted_wherever_its_text_stands(
    vocab_size: int,
):
    text = " ".join(np.random.default_rng(1).choice(WORDS, 400))
    tokenizer = BPETokenizer.train([text], vocab_size=vocab_size)
    tokens = tokenizer.encode(text)
    model = tiny_gpt(vocab_size=tokenizer.vocab_size, context_length=32, positions="rope")
    read = read_passages(model, tokens, tokenizer, 32, most=200, length=8)
    suffixes = read.suffixes(tokens, tokenizer)
    edges = [symbols[0] & 0xC0 == 0x80 or "\ufffd" in to_text(symbols) for symbols in suffixes]
    assert 5 < sum(edges) < len(edges) - 5, "some of both, or this shows nothing"
    counts = count_repeats(TokenText(tokens, tokenizer), suffixes, 5)
    for i, (symbols, found) in enumerate(zip(suffixes, counts.tolist())):
        assert symbols.tolist() == [*tokenizer.decode_bytes(read.suffix(tokens, i))]
        passage = to_text(symbols).strip("\ufffd")[:5]
        expected = sum(text.startswith(passage, at) for at in range(len(text)))
        assert len(passage) == 5 and found == expected
    assert max(counts) > 5


def test_what_is_said_at_once_comes_within_any_number_of_tries():
    n = np.arange(3)
    read = Passages(n, 4, n + 1, np.array([9.0, 9.0, 5.0]), np.array([True, False, False]))
    assert read.within(100).tolist() == [True, False, True]
    assert read.within(1000).all()


def test_no_suffixes_of_no_passages():
    tokenizer = CharacterTokenizer.train(["ab"])
    tokens = tokenizer.encode("abab")
    assert read_passages(tiny_gpt(), tokens, tokenizer, 8).suffixes(tokens, tokenizer) == []


def test_a_text_shorter_than_a_context_has_no_passages():
    tokenizer = CharacterTokenizer.train(["ab"])
    assert len(read_passages(tiny_gpt(), tokenizer.encode("abab"), tokenizer, 8)) == 0


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, [2]), (40.5, [2, 16, 16, 6])])
def test_reading_ends_in_time_and_is_spread_over_the_text(
    monkeypatch: pytest.MonkeyPatch, seconds: float, expected: list[int]
):
    tokenizer = CharacterTokenizer.train(["abcdefghi"])
    tokens = np.tile(np.arange(9), 200).astype(tokenizer.dtype)
    now, batches, one_batch = [0.0], list[int](), passages._read  # pyright: ignore

    def slowly(model: GPT, tokens: TokenIds, windows: Any, *rest: Any) -> Any:
        now[0] += len(windows)  # a second for each
        batches.append(len(windows))
        return one_batch(model, tokens, windows, *rest)

    monkeypatch.setattr(passages, "_read", slowly)
    monkeypatch.setattr(passages, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(passages, "BATCH_TOKENS", 16 * 8)
    read = read_passages(tiny_gpt(), tokens, tokenizer, 8, length=4, seconds=seconds)
    assert batches == expected and len(read) == sum(expected)
    gaps = np.diff(read.starts)
    assert len(read) < 3 or gaps.max() <= 2 * gaps.min()


@pytest.mark.parametrize(("text", "answer"), [
    ("-----+-----+-----+-----+-----", True),
    ("| a | a | a | a | a | a | a |", True),
    ("The watchword of Rosalind is a secret that nobody", False),
    ("ab", False),
])  # fmt: skip
def test_rules_and_columns_are_patterns_and_sentences_are_not(text: str, answer: bool):
    assert is_pattern(np.array(list(map(ord, text)))) == answer


def test_windows_are_judged_as_each_would_be_alone():
    random = np.random.default_rng(1)
    for length in (3, 6, 50):
        codes = random.integers(0, 3, 120)
        alone = [is_pattern(codes[i : i + length]) for i in range(120 - length + 1)]
        assert pattern_windows(codes, length).tolist() == alone


def test_spans_of_any_length_are_counted_wherever_the_pieces_end():
    random = np.random.default_rng(3)
    text = "".join(random.choice([*"abé"], 400)) + "to be or not to be, to be"
    spans = ["to be", "not t", "maybe", "to be", "", "e", text[50:130], text[-3:], "aba", "éa"]
    expected = [
        sum(text.startswith(span, i) for i in range(len(text))) if span else 0 for span in spans
    ]
    symbols = from_text(text)
    for size in (1, 2, 7, 100, 1000):
        pieces = np.split(symbols, range(size, len(symbols), size))
        assert count_spans(pieces, [*map(from_text, spans)]).tolist() == expected
    assert expected[:4] == [3, 1, 0, 3]
