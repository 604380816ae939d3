"""POST /look, and what stands in the training text."""

from __future__ import annotations

import math
import random
import re
import threading
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folio.evaluation.score import score, strided_windows
from folio.run.model import Model
from folio.serving.copied import SHORTEST, Copied, CopyFinder
from folio.serving.looking import look
from folio.serving.reading import read
from folio.serving.served import Served
from folio.tokenizers import from_table
from folio.tokenizers.word import WordTokenizer
from tests.export.making import MODERN, TOKENIZERS, random_run
from tests.serving.running import Running


def test_a_text_is_scored_as_folio_evaluate_scores_it(tiny: Model):
    for n in (2, 50, 64, 65, 64 + 33, 300):  # the context has 64
        token_ids = tiny.training()[:n]
        scores = [scored for part in read(tiny, token_ids.tolist(), 3) for scored in part]
        assert len(scores) == n + 1
        nats = list[np.ndarray]()
        score(tiny.model, token_ids, strided_windows(n, 64), "strided", nats)
        told = [scored.log_probability for scored in scores[:-1]]
        expected = -np.concatenate(nats)
        assert told[0] is None and told[1:] == pytest.approx(expected.tolist(), abs=1e-4)
        assert len(scores[-1].alternatives) == 3


def test_a_look_gives_each_token_its_surprise_and_alternatives(server: Running, tiny: Model):
    text = "The river sings of a stone"
    look = server.ask("/look", {"model": "tiny", "text": text}).json
    assert "".join(token["text"] for token in look["tokens"]) == text
    assert [token["start"] for token in look["tokens"]] == list(range(len(text)))
    assert look["tokens"][0]["logprob"] is None
    for token in look["tokens"][1:]:
        texts, probabilities = zip(*token["top"])
        assert len(texts) == 8 and list(probabilities) == sorted(probabilities, reverse=True)
        if token["text"] in texts:
            likely = probabilities[texts.index(token["text"])]
            assert likely == pytest.approx(math.exp(token["logprob"]), rel=1e-4)
    greedy = tiny.generate(text, max_tokens=1, temperature=0, compiled=False)
    assert look["next"][0][0] == greedy


def test_characters_of_several_tokens_have_their_place_in_a_look(server: Running):
    look = server.ask("/look", {"model": "bytes", "text": "a漢b"}).json
    assert "".join(token["text"] for token in look["tokens"]) == "a漢b"
    assert [token["start"] for token in look["tokens"]][-1] == 2
    assert look["copied"] == [] and look["searched"] is False, "its text is not known"


def looked_at(opened: Model, text: str) -> dict[str, Any]:
    """What /look answers, without a server."""
    served = Served("made", opened)
    token_ids, n_before = served.token_ids(text)
    scores = [score for part in read(opened, token_ids, 8) for score in part]
    return look(served, text, token_ids[n_before:], scores[n_before:], None)


@pytest.mark.parametrize("name", ["bytes", "word", "NFC", "NFD"])
def test_tokens_are_the_text_from_their_starts_on(name: str, tmp_path: Path):
    texts = ["A", "\u00e9", "e\u0301", "漢"]
    if name == "word":
        texts = ["Hello", ",", " the", "  cat", " sat", "  ."]
        tokenizer = WordTokenizer.train(["hello , the cat sat ."], 9, lowercase=True)
    elif name == "bytes":
        tokenizer, texts = TOKENIZERS["bytes"], ["A", "\u00e9", "漢"]
    else:
        table = TOKENIZERS["bpe-qwen2"].to_json() | {"normalizer": {"type": name}}
        tokenizer = from_table(table, "a test")
    opened, text = random_run(tmp_path, tokenizer, **MODERN), "".join(texts)
    tokens = looked_at(opened, text)["tokens"]
    assert [token["text"] for token in tokens] == texts
    assert [token["start"] for token in tokens] == [0, *accumulate(map(len, texts[:-1]))]
    nats = [
        one.log_probability or 0.0 for one in opened.score_tokens(tokenizer.encode(text).tolist())
    ]
    told = [token["logprob"] or 0.0 for token in tokens]
    assert sum(told) == pytest.approx(sum(nats), abs=1e-3)


def test_a_word_is_parted_from_what_stands_before_it_and_an_end_is_no_text(tmp_path: Path):
    opened = random_run(tmp_path, WordTokenizer.train(["the cat"], 4), **MODERN)
    found = looked_at(opened, "the cat")
    assert {text for text, _ in found["next"]} == {" the", " cat", ""}
    begun = looked_at(opened, "")["next"]
    assert {text for text, _ in begun} == {"the", "cat", ""}


def test_what_cannot_be_looked_at_is_refused(server: Running):
    for wanted, param in [
        ({"text": "x" * 20_000}, "text"),
        ({"text": "漢"}, "text"),
        ({"text": 1}, "text"),
        ({}, "text"),
        ({"text": "x", "more": 1}, "more"),
    ]:
        answer = server.ask("/look", {"model": "tiny", **wanted})
        assert answer.status == 400 and answer.error["param"] == param


def test_an_empty_text_has_a_next_token(server: Running):
    look = server.ask("/look", {"model": "tiny", "text": ""}).json
    assert look["tokens"] == [] and len(look["next"]) == 8


def test_a_copied_span_is_found_with_its_place(server: Running, tiny: Model):
    training = tiny.tokenizer.decode(tiny.training())
    copied = training[1000:1080]
    look = server.ask("/look", {"model": "tiny", "text": f"Zzz Qqq Xx: {copied}; Qqq Zzz Xx"}).json
    assert look["searched"] is True
    (span,) = look["copied"]
    assert (span["start"], span["end"]) == (12, 92)
    assert span["source"] == "book.txt, character 1,000"


def test_every_long_enough_copy_is_found_wherever_it_begins(tiny: Model):
    finder, choose = CopyFinder(tiny), random.Random(1)
    training = tiny.tokenizer.decode(tiny.training())
    for _ in range(200):
        start = choose.randrange(len(training) - 200)
        length = choose.randrange(SHORTEST, 150)
        text = "é" * choose.randrange(4) + training[start : start + length] + "é"
        words = re.findall(r"\w+", text)
        if len(set(words)) <= len(words) / 2:
            continue  # a word again and again is a pattern, and no copy
        spans = found_by(finder, text)
        covered = {i for span in spans for i in range(span.start, span.end)}
        assert covered == {i for i, c in enumerate(text) if c != "é"}, start
        for span in spans:
            offset = int(span.source.rpartition(" ")[2].replace(",", ""))
            assert training[offset : offset + span.end - span.start] == text[span.start : span.end]


def found_by(finder: CopyFinder, text: str) -> list[Copied]:
    *_, spans = finder.steps(text)
    assert spans is not None
    return spans


def test_shorter_copies_and_new_text_are_none(tiny: Model):
    finder = CopyFinder(tiny)
    training = tiny.tokenizer.decode(tiny.training())
    for text in (training[500 : 500 + SHORTEST - 1], "", "Nothing of this stands there. " * 20):
        assert found_by(finder, text) == []


def test_several_texts_are_looked_up_in_turn(tiny: Model):
    training = tiny.tokenizer.decode(tiny.training())
    finder = CopyFinder(tiny)
    left = finder.steps("is left before the table is made")
    next(left)
    one, other = (finder.steps(training[i : i + 100]) for i in (200, 900))
    told = [event for pair in zip_longest(one, other) for event in pair]
    assert [len(spans) for spans in told if spans] == [1, 1]


def test_a_table_that_could_not_be_made_is_made_for_the_next_text(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
):
    finder, make, gate = CopyFinder(tiny), CopyFinder._make, threading.Event()

    def fail(self: CopyFinder) -> None:
        gate.wait()
        raise ValueError("no memory")

    monkeypatch.setattr(CopyFinder, "_make", fail)
    both = finder.steps("river"), finder.steps("stone")
    assert [next(steps) for steps in both] == [None, None]
    gate.set()
    for steps in both:
        with pytest.raises(ValueError, match="no memory"):
            list(steps)
    monkeypatch.setattr(CopyFinder, "_make", make)
    assert [*finder.steps("river")][-1] == []
