from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from folio.errors import UserError
from folio.evaluation.frequencies import count_tokens, frequency_loss
from folio.evaluation.score import (
    Window,
    exact_score,
    exact_windows,
    nll_of,
    read_once,
    sampled_windows,
    score,
    strided_windows,
)
from folio.testing import tiny_gpt
from folio.tokenizers.character import CharacterTokenizer

TOKENS = np.random.default_rng(0).integers(0, 11, 29).astype(np.uint8)


def nll_of_target(model: nn.Module, context: np.ndarray, target: int) -> float:
    logits = model(torch.tensor(context.astype(np.int64))[None])[0, -1]
    return -F.log_softmax(logits.double(), dim=0)[target].item()


def test_exact_is_the_mean_over_every_token_but_the_first_token_by_token():
    model = tiny_gpt(initialization_std=0.5)
    expected = []
    for i in range(1, len(TOKENS)):
        begin = (i - 1) // 8 * 8  # windows of the context length, side by side
        expected.append(nll_of_target(model, TOKENS[begin:i], TOKENS[i]))
    result = exact_score(model, TOKENS, 8)
    assert result.targets == 28
    assert result.nats_per_token == pytest.approx(np.mean(expected), rel=1e-5)
    assert result.standard_error == pytest.approx(np.std(expected) / 28**0.5, rel=1e-4)
    assert result.perplexity == pytest.approx(math.exp(np.mean(expected)), rel=1e-4)


def test_strided_gives_each_token_at_least_half_a_context():
    model = tiny_gpt(initialization_std=0.5)
    expected = []
    windows = strided_windows(len(TOKENS), 8)
    for window in windows:
        for i in range(window.start + window.skip + 1, window.start + window.length + 1):
            expected.append(nll_of_target(model, TOKENS[window.start : i], TOKENS[i]))
    result = score(model, TOKENS, windows, "strided")
    assert result.targets == 28
    assert result.nats_per_token == pytest.approx(np.mean(expected), rel=1e-5)


@given(st.integers(2, 200), st.integers(1, 20))
def test_both_protocols_score_each_target_once(n: int, length: int):
    for windows in (exact_windows(n, length), strided_windows(n, length)):
        scored = [w.start + j + 1 for w in windows for j in range(w.skip, w.length)]
        assert sorted(scored) == list(range(1, n))
        assert all(w.length <= length for w in windows)
    for window in strided_windows(n, length)[1:]:
        assert window.skip + 1 >= min(length, n - 1) / 2


@given(st.integers(2, 200), st.integers(1, 20))
def test_windows_that_both_protocols_have_are_read_once_and_give_both(n: int, length: int):
    protocols = exact_windows(n, length), strided_windows(n, length)
    read = read_once(*protocols)
    assert len(set(read)) == len(read) and (length % 2 or len(read) <= len(protocols[1]) + 1)

    def nll(windows: list[Window]) -> np.ndarray:  # a number for each place in each window
        rows = (1000 * w.start + np.arange(w.skip, w.length) for w in windows)
        return np.concatenate([*rows]).astype(np.float32)

    for windows in protocols:
        np.testing.assert_array_equal(nll_of(windows, read, nll(read)), nll(windows))


def test_a_sample_is_spread_over_the_text_and_never_larger_than_it():
    windows = sampled_windows(1001, 10, n_targets=50)
    assert [w.start for w in windows] == [0, 240, 490, 740, 990]
    assert sampled_windows(31, 10, n_targets=500) == exact_windows(31, 10)


def test_evaluation_leaves_the_mode_as_it_was():
    model = tiny_gpt(residual_dropout=0.5).train()
    one, two = exact_score(model, TOKENS, 8), exact_score(model, TOKENS, 8)
    assert one.nats == two.nats
    assert model.training


def test_bits_per_byte_count_the_bytes_behind_the_targets():
    tokenizer = CharacterTokenizer("aä世" + "bcdefg")
    token_ids = tokenizer.encode("aä世ab")
    result = exact_score(tiny_gpt(), token_ids, 8)
    record = result.record(tokenizer)
    # Targets are all but the first: ä (2 bytes), 世 (3), a, b.
    assert record["bits_per_byte"] == pytest.approx(result.nats / math.log(2) / 7)
    assert record["bits_per_character"] == pytest.approx(result.nats / math.log(2) / 4)


def test_a_text_whose_targets_stand_for_nothing_has_a_loss_per_token_alone():
    tokenizer = CharacterTokenizer("abcdefgh")
    end = tokenizer.end_of_document
    assert end is not None
    record = exact_score(tiny_gpt(), np.array([0, end], np.uint8), 8).record(tokenizer)
    assert record["targets"] == 1 and math.isfinite(record["nats_per_token"])
    assert not {"nats_per_character", "bits_per_byte", "unknown_share"} & record.keys()


def test_unknown_characters_forbid_bits_per_byte():
    tokenizer = CharacterTokenizer("abcdefghi")
    record = exact_score(tiny_gpt(), tokenizer.encode("abXYab"), 8).record(tokenizer)
    assert "bits_per_byte" not in record
    assert record["unknown_share"] == pytest.approx(2 / 5)


def test_frequency_loss_is_that_of_counting():
    training, validation = np.array([0, 0, 0, 1], np.uint8), np.array([1, 0, 1], np.uint8)
    # One added to each count of three ids: 4/7, 2/7, 1/7.
    expected = -(math.log(4 / 7) + math.log(2 / 7)) / 2
    assert frequency_loss(count_tokens(training, 3), validation) == pytest.approx(expected)


def test_a_single_token_has_no_loss():
    with pytest.raises(UserError, match="at least 2"):
        exact_score(tiny_gpt(), TOKENS[:1], 8)
