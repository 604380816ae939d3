from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from folio.errors import UserError
from folio.generation.batch import Batch
from folio.generation.engine import FINISHED, write
from folio.generation.readers import PlainReader
from folio.generation.row import Request
from folio.generation.sampling import SamplingConfig
from folio.model.gpt import GPT
from folio.testing import tiny_gpt
from tests.generation.plain import write_in_one_pass, write_plainly
from tests.generation.writing import write_ids

GREEDY = SamplingConfig(temperature=0)
WILD = SamplingConfig(temperature=1.0, seed=1)


def run(
    model: GPT, prompts: list[list[int]], config: SamplingConfig = GREEDY, **more: Any
) -> list[list[int]]:
    return np.stack(list(write_ids(PlainReader(model), prompts, config, **more)), axis=1).tolist()


@pytest.mark.parametrize("positions", ["none", "learned", "sinusoidal", "rope"])
@pytest.mark.parametrize("length", [1, 5, 8, 13])
def test_cached_generation_equals_uncached_generation(positions: str, length: int):
    # 40 tokens with a context of 8: the window fills many times.
    model = tiny_gpt(positions=positions, initialization_std=0.5, tied_head=False)
    prompt = torch.randint(0, 11, (length,), generator=torch.Generator().manual_seed(1)).tolist()
    added = positions in ("learned", "sinusoidal")
    write_uncached = write_plainly if added else write_in_one_pass
    for config in (GREEDY, WILD):
        expected = write_uncached(model, prompt, config, 40)
        assert run(model, [prompt], config, max_tokens=40) == [expected]


def test_each_token_is_the_likeliest_after_its_window():
    model = tiny_gpt(initialization_std=0.5)
    window = [3]
    for token in run(model, [[3]], max_tokens=30)[0]:
        with torch.no_grad():
            assert token == model(torch.tensor([window]))[0, -1].argmax().item()
        window = [*window, token] if len(window) < 8 else [*window[5:], token]


def test_texts_of_a_batch_have_the_seeds_that_follow():
    model = tiny_gpt(initialization_std=0.5)
    prompts = [[1, 2], [3, 4, 5, 6], [1, 2]]
    expected = [
        write_plainly(model, prompt, SamplingConfig(temperature=1.0, seed=7 + n), 20)
        for n, prompt in enumerate(prompts)
    ]
    config = SamplingConfig(temperature=1.0, seed=7)
    assert run(model, prompts, config, max_tokens=20) == expected
    assert expected[0] != expected[2]


def test_the_length_of_a_text_does_not_change_it():
    model = tiny_gpt()
    long = run(model, [[1]], WILD, max_tokens=300)[0]
    assert [run(model, [[1]], WILD, max_tokens=n)[0] for n in (1, 199, 200)] == [
        long[:1], long[:199], long[:200]
    ]  # fmt: skip


def test_a_seed_names_a_text_and_none_makes_new_ones():
    model = tiny_gpt()
    texts = [
        run(model, [[1]], SamplingConfig(temperature=1.0, seed=seed), max_tokens=30)
        for seed in (1, 1, 2, 0, 0)
    ]
    assert texts[0] == texts[1]
    assert len({str(text) for text in texts}) == 4


def test_a_sequence_ends_at_its_stop_token_and_the_others_go_on():
    rows = run(tiny_gpt(), [[1], [1], [1]], WILD, max_tokens=200, stop_tokens=[5])
    ends = [row.index(5) for row in rows]
    assert len(set(ends)) > 1
    for row, end in zip(rows, ends):
        assert set(row[end + 1 :]) <= {FINISHED} and FINISHED not in row[: end + 1]
    assert len(rows[0]) == max(ends) + 1  # nothing is computed after the last end


def test_excluded_tokens_are_never_made():
    excluded = np.isin(np.arange(11), [2, 7])
    rows = run(
        tiny_gpt(), [[1]], SamplingConfig(temperature=3.0), max_tokens=300, excluded=excluded
    )
    assert not {2, 7} & set(rows[0])


def test_without_a_limit_text_is_endless():
    assert len(list(islice(write_ids(PlainReader(tiny_gpt()), [[1]], GREEDY), 100))) == 100


def test_a_text_begins_with_a_token():
    with pytest.raises(UserError, match="empty"):
        next(write_ids(PlainReader(tiny_gpt()), [[]], GREEDY))


def test_a_context_of_one_token_still_writes():
    assert len(run(tiny_gpt(context_length=1), [[1]], max_tokens=5)[0]) == 5


def test_more_requests_than_there_is_room_for_wait_their_turn():
    model = tiny_gpt(initialization_std=0.5)
    requests = [
        Request(prompt=[n % 11] * (1 + n % 3), config=WILD.of_text(n), max_tokens=1 + 5 * n % 7)
        for n in range(20)
    ]
    written: list[list[int]] = [[] for _ in requests]
    batch = Batch(PlainReader(model), 3)
    for number, drawn in write(batch, requests):
        written[number].append(drawn.token_id)
    assert written == [
        write_plainly(model, r.prompt, r.config, r.max_tokens or 0) for r in requests
    ]
    assert not batch.rows and len(batch.free) == 3
