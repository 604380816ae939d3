"""What lm-evaluation-harness asks of the server, and how it reads the answer, without the harness
itself, which is 40 packages (`test_harness.py` runs it where it is installed).

Its `local-completions` sends token ids of several texts at once, wants one more token than it
needs, and leaves that one out again; a text is greedy if each of its tokens is the likeliest one
that is named beside it.
Source: lm_eval/models/openai_completions.py, https://github.com/EleutherAI/lm-evaluation-harness.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from folio.run.model import Model
from tests.serving.running import Running

PAIRS = [
    ("The river", " stone garden"),
    ("A window of the morning", "s letters, the bridge"),
    ("candle", "."),
]
SCORING = {"temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}


def log_likelihoods(answer: Any, n_before: list[int]) -> list[tuple[float, bool]]:
    """As the harness sums them up: without what the tokens follow, and without the last one."""
    found = []
    for choice, start in zip(sorted(answer["choices"], key=lambda c: c["index"]), n_before):
        told = choice["logprobs"]
        values, tops = told["token_logprobs"][start:-1], told["top_logprobs"][start:-1]
        greedy = all(value == max(top.values()) for value, top in zip(values, tops))
        found.append((sum(values), greedy))
    return found


def by_the_model(opened: Model, begin: list[int], end: list[int]) -> tuple[float, bool]:
    with torch.no_grad():
        scores = opened.model(torch.tensor([begin + end]))[0, len(begin) - 1 : -1].log_softmax(1)
    own = scores.gather(1, torch.tensor(end)[:, None])
    return float(own.sum()), bool((own[:, 0] == scores.amax(dim=1)).all())


def test_log_likelihoods_of_several_texts_are_those_of_the_model(server: Running, tiny: Model):
    encode = tiny.tokenizer.encode
    pairs = [(encode(begin).tolist(), encode(end).tolist()) for begin, end in PAIRS]
    likely = encode(tiny.generate("The river", max_tokens=9, temperature=0)).tolist()
    pairs.append((encode("The river").tolist(), likely))
    answer = server.complete([begin + end for begin, end in pairs], **SCORING)
    found = log_likelihoods(answer, [len(begin) for begin, _ in pairs])
    expected = [by_the_model(tiny, begin, end) for begin, end in pairs]
    assert [value for value, _ in found] == pytest.approx([v for v, _ in expected], abs=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert {greedy for _, greedy in found} == {True, False}


def test_texts_of_several_prompts_end_before_a_string(server: Running, tiny: Model):
    prompts = ["The river", "candle"]
    whole = [tiny.generate(prompt, max_tokens=12, temperature=0) for prompt in prompts]
    answer = server.complete(
        [tiny.tokenizer.encode(prompt).tolist() for prompt in prompts],
        max_tokens=12,
        temperature=0,
        stop=[whole[0][8]],
        seed=1234,
    )
    texts = [c["text"] for c in sorted(answer["choices"], key=lambda c: c["index"])]
    assert texts == [text.partition(whole[0][8])[0] for text in whole]
