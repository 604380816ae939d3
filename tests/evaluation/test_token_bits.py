"""Distributions over tokens as log-odds of their bits."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from folio.evaluation.token_bits import LARGEST, log_odds, n_bits
from tests.evaluation.bits import nats_of


@given(st.integers(1, 40), st.integers(0, 2**31))
def test_the_probabilities_of_the_bits_multiply_to_that_of_the_token(vocab_size: int, seed: int):
    logits = 2 * torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(seed))
    ids = torch.arange(vocab_size)
    odds = log_odds(logits, ids)
    assert odds.shape == (vocab_size, n_bits(vocab_size)) and odds.dtype == torch.float32
    expected = torch.nn.functional.cross_entropy(logits, ids, reduction="none")
    found = nats_of(odds.numpy(), ids.numpy(), vocab_size)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_what_is_no_number_or_certain_has_odds_all_the_same():
    nothing, certain = torch.full((1, 5), torch.nan), torch.tensor([[0.0, -1e9, -1e9, -1e9, -1e9]])
    odds = log_odds(torch.cat([nothing, certain, certain]), torch.tensor([3, 0, 1]))
    assert odds[0].tolist() == [0.0, 0.0, 0.0]
    assert odds[1].tolist() == odds[2].tolist() == [-LARGEST] * 3
