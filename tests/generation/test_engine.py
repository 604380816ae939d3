from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch

from folio.errors import UserError
from folio.generation.engine import FINISHED, generate
from folio.generation.sampling import SamplingConfig
from folio.model.gpt import GPT
from folio.testing import tiny_gpt

GREEDY = SamplingConfig(temperature=0)


def run(
    model: GPT, prompt: list[list[int]], config: SamplingConfig = GREEDY, seed: int = 0, **more: Any
) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    steps = generate(model, torch.tensor(prompt), config, generator=generator, **more)
    return torch.stack(list(steps), dim=1).tolist()


@pytest.mark.parametrize("positions", ["none", "learned", "sinusoidal", "rope"])
@pytest.mark.parametrize("length", [1, 5, 8, 13])
def test_cached_generation_equals_uncached_generation(positions: str, length: int):
    # 40 tokens with a context of 8: the window slides many times.
    model = tiny_gpt(positions=positions, initialization_std=0.5, tied_head=False)
    prompt = torch.randint(0, 11, (2, length), generator=torch.Generator().manual_seed(1)).tolist()
    for config in (GREEDY, SamplingConfig(temperature=1.0)):
        cached = run(model, prompt, config, max_tokens=40)
        assert cached == run(model, prompt, config, max_tokens=40, use_cache=False)


def test_each_token_is_the_likeliest_after_its_window():
    model = tiny_gpt(initialization_std=0.5)
    window = [3]
    for token in run(model, [[3]], max_tokens=30)[0]:
        with torch.no_grad():
            assert token == model(torch.tensor([window]))[0, -1].argmax().item()
        window = [*window, token] if len(window) < 8 else [*window[5:], token]


def test_a_batch_writes_what_its_sequences_write_alone():
    model = tiny_gpt(initialization_std=0.5)
    together = run(model, [[1, 2], [3, 4]], max_tokens=20)
    assert together == [run(model, [p], max_tokens=20)[0] for p in ([1, 2], [3, 4])]


def test_a_seed_names_a_text():
    model, config = tiny_gpt(), SamplingConfig(temperature=1.0)
    texts = [run(model, [[1]], config, seed=seed, max_tokens=30) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_sequence_ends_at_its_stop_token_and_the_others_go_on():
    model, config = tiny_gpt(), SamplingConfig(temperature=1.0)
    rows = run(model, [[1], [1], [1]], config, max_tokens=200, stop_token=5)
    ends = [row.index(5) for row in rows]
    assert len(set(ends)) > 1
    for row, end in zip(rows, ends):
        assert set(row[end + 1 :]) <= {FINISHED} and FINISHED not in row[: end + 1]
    assert len(rows[0]) == max(ends) + 1  # nothing is computed after the last end


def test_excluded_tokens_are_never_made():
    excluded = torch.zeros(11, dtype=torch.bool)
    excluded[[2, 7]] = True
    rows = run(
        tiny_gpt(), [[1]], SamplingConfig(temperature=3.0), max_tokens=300, excluded=excluded
    )
    assert not {2, 7} & set(rows[0])


def test_without_a_limit_text_is_endless():
    steps = generate(
        tiny_gpt(), torch.tensor([[1]]), GREEDY, generator=torch.Generator(), max_tokens=None
    )
    assert len(list(islice(steps, 100))) == 100


def test_no_tokens_and_no_prompt():
    generator = torch.Generator()
    empty = torch.zeros(1, 0, dtype=torch.long)
    assert (
        list(generate(tiny_gpt(), torch.tensor([[1]]), GREEDY, generator=generator, max_tokens=0))
        == []
    )
    with pytest.raises(UserError, match="empty"):
        next(generate(tiny_gpt(), empty, GREEDY, generator=generator))


def test_a_context_of_one_token_still_writes():
    assert len(run(tiny_gpt(context_length=1), [[1]], max_tokens=5)[0]) == 5
