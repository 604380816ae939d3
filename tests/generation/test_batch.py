"""A text is the same alone and beside others, whoever joins and leaves."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from folio.errors import UserError
from folio.generation.batch import Batch
from folio.generation.readers import PlainReader
from folio.generation.row import Drawn, Request, Row
from folio.generation.sampling import SamplingConfig
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.model.kv_cache import CacheRow
from folio.testing import tiny_gpt
from tests.generation.plain import write_plainly

# No width is a multiple of 8, so that rows lie at all addresses.
ODD = {"vocab_size": 37, "context_length": 11, "n_heads": 3, "d_model": 30}


def request(number: int, **more: object) -> Request:
    """All different: prompts of 1 to 15 tokens, temperatures, seeds, lengths."""
    chosen = random.Random(number)
    settings: dict[str, object] = {
        "prompt": [chosen.randrange(37) for _ in range(1 + number % 15)],
        "config": SamplingConfig(
            temperature=chosen.choice([0.0, 0.7, 1.5]), top_p=chosen.choice([0.8, 1.0]),
            top_k=chosen.choice([0, 5]), repetition_penalty=chosen.choice([1.0, 1.3]),
            logprobs=number % 4, seed=number + 1,
        ),
        "max_tokens": 1 + number % 30,
    }  # fmt: skip
    return Request(**(settings | more))  # type: ignore[arg-type]


def alone(model: GPT, wanted: Request) -> list[Drawn]:
    batch, drawn = Batch(PlainReader(model), 1), []
    batch.add(wanted)
    while batch.rows:
        drawn += [token for _, token in batch.step()]
    return drawn


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_thirty_texts_that_join_and_leave_are_each_as_alone_to_the_bit(positions: str):
    model = tiny_gpt(positions=positions, initialization_std=0.5, **ODD)
    batch, chosen = Batch(PlainReader(model), 9), random.Random(0)
    waiting = [request(number) for number in range(30)]
    written: dict[Row, list[Drawn]] = {}
    cancelled: set[Row] = set()
    while waiting or batch.rows:
        while waiting and batch.free and chosen.random() < 0.4:
            written[batch.add(waiting.pop())] = []
        if batch.rows and chosen.random() < 0.3:
            cancelled.add(left := chosen.choice(batch.rows))
            batch.drop(left)
        for row, drawn in batch.step():
            written[row].append(drawn)
    assert len(written) == 30 and 3 <= len(cancelled) <= 20
    for row, drawn in written.items():
        expected = alone(model, row.request)
        assert drawn == (expected[: len(drawn)] if row in cancelled else expected)
    assert sorted(cache.row for cache in batch.free) == list(range(9))


def test_a_batch_without_texts_does_nothing_and_a_text_leaves_once():
    batch = Batch(PlainReader(tiny_gpt()), 2)
    assert batch.step() == []
    first, second = batch.add(Request(prompt=[1])), batch.add(Request(prompt=[2]))
    batch.drop(first)
    batch.drop(first)
    assert batch.rows == [second] and len(batch.free) == 1


def test_log_probabilities_are_the_models_own_whatever_changes_the_draw():
    model = tiny_gpt(initialization_std=0.5, **ODD)
    batch, text = Batch(PlainReader(model), 1, excluded=np.arange(37) < 20), [3, 1, 4]
    batch.add(request(2, prompt=text, max_tokens=8, config=SamplingConfig(
        temperature=5.0, repetition_penalty=2.0, logprobs=4, seed=1)))  # fmt: skip
    while batch.rows:
        ((_, drawn),) = batch.step()
        with torch.no_grad():
            expected = model(torch.tensor([text]))[0, -1].double().log_softmax(0)
        assert drawn.log_probability == pytest.approx(expected[drawn.token_id].item(), abs=1e-4)
        order = [i for i in expected.argsort(descending=True).tolist() if i >= 20]
        assert [i for i, _ in drawn.alternatives] == order[:4]
        for token_id, value in drawn.alternatives:
            assert value == pytest.approx(expected[token_id].item(), abs=1e-4)
        text = [*text, drawn.token_id]


def test_what_is_seen_already_is_penalized_the_prompt_and_what_was_written():
    model = tiny_gpt(initialization_std=0.5, context_length=8)
    config = SamplingConfig(temperature=0, repetition_penalty=3.0)
    window = [3, 1, 4, 3]
    batch = Batch(PlainReader(model), 1)
    batch.add(Request(prompt=window, config=config, max_tokens=30))
    plain = write_plainly(model, window, SamplingConfig(temperature=0), 30)
    written = []
    while batch.rows:
        with torch.no_grad():
            logits = model(torch.tensor([window]))[0, -1]
        for token_id in set(window):
            logits[token_id] *= 1 / 3.0 if logits[token_id] > 0 else 3.0
        ((_, drawn),) = batch.step()
        assert drawn.token_id == logits.argmax().item()
        written.append(drawn.token_id)
        window = [*(window if len(window) < 8 else window[5:]), drawn.token_id]
    assert written != plain


def test_a_text_ends_by_its_stop_token_or_by_its_length():
    model, config = tiny_gpt(), SamplingConfig(temperature=1.0, seed=1)
    tokens = write_plainly(model, [1], config, 100)
    stop = tokens[20]
    by_stop = alone(model, Request(prompt=[1], config=config, stop_tokens=[stop]))
    assert [d.token_id for d in by_stop] == tokens[: tokens.index(stop) + 1]
    assert [d.ended for d in by_stop] == [None] * tokens.index(stop) + ["stop"]
    by_length = alone(model, Request(prompt=[1], config=config, max_tokens=7))
    assert [d.ended for d in by_length] == [None] * 6 + ["length"]


def test_a_batch_reads_each_prompt_as_a_block_and_each_token_once():
    taken = []

    class Noting(PlainReader):
        def read(self, token_ids: Sequence[Sequence[int]], caches: Sequence[CacheRow]):
            taken.append([list(ids) for ids in token_ids])
            return super().read(token_ids, caches)

    batch = Batch(Noting(tiny_gpt(context_length=8)), 2)
    first = batch.add(Request(prompt=[1, 2, 3, 4, 5]))
    written = [batch.step()[0][1].token_id for _ in range(2)]
    batch.add(Request(prompt=[9, 9]))
    batch.step()
    batch.drop(first)
    batch.step()
    assert taken[:2] == [[[1, 2, 3, 4, 5]], [written[:1]]]
    assert taken[2] == [written[1:], [9, 9]]
    assert [len(of_row) for of_row in taken[3]] == [1]


def test_settings_of_a_request_are_checked():
    for wrong in (0, -3):
        with pytest.raises(UserError, match=f"max_tokens must be 1 or more, got {wrong}"):
            Request(prompt=[1], max_tokens=wrong)
    with pytest.raises(UserError, match="prompt is empty"):
        Request(prompt=[])


def test_a_pool_is_as_wide_as_its_capacity():
    config = ModelConfig(vocab_size=7, context_length=5, n_layers=1, n_heads=1, d_model=4)
    assert [c.row for c in Batch(PlainReader(GPT(config).eval()), 4).free] == [0, 1, 2, 3]
