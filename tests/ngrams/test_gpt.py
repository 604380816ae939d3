"""A model beside n-grams computes their product: at once, with a cache, and as a reader."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from folio import jit
from folio.fast.accelerate import accelerate, is_known
from folio.fast.stand_in import arrays_of
from folio.generation.readers import PlainReader, reader_for
from folio.generation.with_ngrams import ReaderWithNGrams
from folio.model.gpt import GPT
from folio.model.kv_cache import KVCache
from folio.ngrams.gpt import GPTWithNGrams
from folio.ngrams.table import count_ngrams
from folio.ngrams.weights import Weights
from folio.ngrams.window import WindowRule, count_window, mix_in
from folio.testing import tiny_gpt

TEXT = np.random.default_rng(1).integers(0, 11, 300)
WEIGHTS = Weights(0.6, 0.5)


def model_of(
    order: int = 4, text: NDArray[np.int64] = TEXT, **settings: Any
) -> tuple[GPTWithNGrams, GPT]:
    """A model with n-grams, and the same without."""
    alone = tiny_gpt(**settings)
    model = GPTWithNGrams(alone.config, count_ngrams(text, order, 11), WEIGHTS)
    model.load_state_dict(alone.state_dict())
    return model.eval(), alone


def rows(n: int = 3) -> torch.Tensor:
    return torch.from_numpy(TEXT[: 8 * n].reshape(n, 8))


def expected(model: GPTWithNGrams, alone: GPT, ids: torch.Tensor) -> torch.Tensor:
    found = torch.from_numpy(model.ngrams.probabilities(ids.numpy())).log()
    return 0.6 * alone(ids) + 0.5 * found


@torch.no_grad()
def test_logits_are_those_of_the_product():
    model, alone = model_of()
    torch.testing.assert_close(model(rows()), expected(model, alone, rows()))
    assert (model(rows()) - alone(rows())).abs().max() > 0.1


@pytest.mark.parametrize("steps", [(1,) * 8, (3, 1, 4), (8,)])
@torch.no_grad()
def test_a_cache_changes_nothing(steps: tuple[int, ...]):
    model, _ = model_of()
    cache, at, found = KVCache(model.config, 3, like=model.lm_head.weight), 0, []
    for n in steps:
        found.append(model(rows()[:, at : at + n], cache))
        at += n
    torch.testing.assert_close(torch.cat(found, 1), model(rows()))


@torch.no_grad()
def test_a_cache_that_was_cleared_has_no_tokens():
    model, _ = model_of()
    cache = KVCache(model.config, 3, like=model.lm_head.weight)
    model(rows(), cache)
    cache.length = 0
    torch.testing.assert_close(model(rows()[:, 4:], cache), model(rows()[:, 4:]))


@torch.no_grad()
def test_the_fast_layers_take_it_and_the_state_is_that_of_a_gpt():
    model, alone = model_of()
    assert is_known(model)
    torch.testing.assert_close(accelerate(model)(rows()), model(rows()), atol=1e-5, rtol=1e-5)
    assert model.state_dict().keys() == alone.state_dict().keys()
    assert arrays_of(model).config == alone.config
    assert copy.deepcopy(model).ngrams is model.ngrams


@torch.no_grad()
def test_in_bfloat16_the_ngrams_are_as_they_were():
    model, alone = model_of()
    rounded = model.bfloat16()(rows())
    found = torch.from_numpy(model.ngrams.probabilities(rows().numpy())).log()
    torch.testing.assert_close(rounded, 0.6 * alone.bfloat16()(rows()).float() + 0.5 * found)


@pytest.mark.parametrize("positions", ["learned", "rope"])
@pytest.mark.parametrize("compiled", [False, None])
def test_readers_compute_what_the_model_does(positions: str, compiled: bool | None):
    if compiled is None and not jit.available():
        pytest.skip("needs numba")
    model, _ = model_of(positions=positions)
    reader = reader_for(model, compiled)
    expected_kind: type[Any] = PlainReader if compiled is False else ReaderWithNGrams
    assert type(reader) is expected_kind
    one, other = reader.caches(2)
    first = reader.read([[1, 2, 3], [4]], [one, other])
    then = reader.read([[7], [5, 6]], [one, other])
    with torch.no_grad():
        for found, ids in zip([*first, *then], ([1, 2, 3], [4], [1, 2, 3, 7], [4, 5, 6])):
            logits = model(torch.tensor([ids]))[0, -1].numpy()
            np.testing.assert_allclose(found, logits, atol=1e-4)
    alone = reader.read([[1, 2, 3]], [reader.caches(1)[0]])
    np.testing.assert_array_equal(alone[0], first[0])


@pytest.mark.parametrize("compiled", [False, None])
def test_what_slid_out_of_a_window_is_forgotten(compiled: bool | None):
    if compiled is None and not jit.available():
        pytest.skip("needs numba")
    text = TEXT % 2
    model, _ = model_of(order=7, text=text, positions="none")
    reader = reader_for(model, compiled)
    cache = reader.caches(1)[0]
    reader.read([text[:8].tolist()], [cache])
    assert reader.forget(cache, 5)
    (found,) = reader.read([[int(text[8])]], [cache])
    few = model.ngrams.probabilities(text[None, 5:9])[0, -1]
    many = model.ngrams.probabilities(text[None, :9])[0, -1]
    assert np.abs(few - many).max() > 1e-3
    # Keys and values of what stayed know of what left, the n-grams do not.
    with torch.no_grad():
        other = PlainReader(tiny_gpt(positions="none"))
        of_model = other.caches(1)[0]
        other.read([text[:8].tolist()], [of_model])
        other.forget(of_model, 5)
        (logits,) = other.read([[int(text[8])]], [of_model])
    np.testing.assert_allclose(found, 0.6 * logits + 0.5 * np.log(few), atol=1e-4)


@torch.no_grad()
def test_a_text_is_read_with_what_stands_in_its_windows_and_written_without():
    alone = tiny_gpt()
    ngrams, rule = count_ngrams(TEXT, 4, 11), WindowRule(3.0, 1)
    model = GPTWithNGrams(alone.config, ngrams, WEIGHTS, rule)
    model.load_state_dict(alone.state_dict())
    model.eval()
    ids = torch.tensor([[1, 2, 1, 2, 1, 2, 3, 1], [5, 5, 5, 5, 5, 5, 5, 5], [*range(8)]])
    torch.testing.assert_close(model(ids), expected(model, alone, ids))
    in_windows = model(ids).softmax(2)
    for rows, window in zip(in_windows.numpy(), ids.numpy()):
        mix_in(rows, count_window(window, 8), rule)
    reading = model.reading()
    torch.testing.assert_close(reading(ids), in_windows.log())
    assert not torch.allclose(reading(ids).softmax(2), model(ids).softmax(2))
    cache, first = KVCache(model.config, 3, like=model.lm_head.weight), reading(ids)
    parts = [reading(ids[:, :5], cache), reading(ids[:, 5:], cache)]
    torch.testing.assert_close(torch.cat(parts, 1), first)
    assert not model.is_reading and reading.lm_head.weight is model.lm_head.weight
