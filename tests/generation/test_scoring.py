from __future__ import annotations

import numpy as np
import pytest
import torch

from folio.generation.scoring import score_tokens
from folio.testing import tiny_gpt


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 2, 8, 9])
def test_a_text_that_fits_is_scored_token_by_token_after_all_before_it(length: int):
    model = tiny_gpt(initialization_std=0.5)
    text = torch.randint(0, 11, (length,), generator=torch.Generator().manual_seed(1)).tolist()
    first, *others = score_tokens(model, text, n_alternatives=3)
    assert first == (text[0], None, [])
    assert [s.token_id for s in others] == text[1:]
    for t, scored in enumerate(others):
        expected = model(torch.tensor([text[: t + 1]]))[0, -1].log_softmax(0)
        assert scored.log_probability == pytest.approx(expected[text[t + 1]].item(), abs=1e-5)
        ids = expected.argsort(descending=True)[:3].tolist()
        assert [i for i, _ in scored.alternatives] == ids
        assert [p for _, p in scored.alternatives] == pytest.approx(
            expected[ids].tolist(), abs=1e-5
        )


@torch.no_grad()
def test_in_a_longer_text_each_token_has_at_least_half_a_context_before_it():
    model = tiny_gpt(initialization_std=0.5)
    text = np.random.default_rng(0).integers(0, 11, 30).tolist()
    scored = list(score_tokens(model, text))
    assert [s.token_id for s in scored] == text
    for t in range(1, 30):
        # Windows of 8 begin at 0, 4, 8, ...; each scores the targets that the one before did not.
        start = max(0, -(-(t - 8) // 4) * 4)
        expected = model(torch.tensor([text[start:t]]))[0, -1].log_softmax(0)[text[t]]
        assert scored[t].log_probability == pytest.approx(expected.item(), abs=1e-5), t


def test_tokens_that_are_never_drawn_are_not_told():
    excluded = ~np.isin(np.arange(11), [4, 7])
    scored = list(score_tokens(tiny_gpt(), [1, 2, 3], 5, excluded))
    assert {i for s in scored[1:] for i, _ in s.alternatives} == {4, 7}
    assert list(score_tokens(tiny_gpt(), [])) == []
