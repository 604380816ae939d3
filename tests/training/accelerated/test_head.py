"""The loss in chunks of rows, against the plain one of all logits at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from folio.model.loss import next_token_loss, penalized_loss
from folio.testing import tiny_gpt
from folio.tokens.ignored import IGNORED
from folio.training.accelerated import head
from folio.training.accelerated.head import (
    PaddedHead,
    can_be_padded,
    chunked_loss,
    pad_head,
    without_head,
)

B, T, C, V = 3, 5, 8, 11


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, C, generator=draw) for n in (B * T, V))
    targets = torch.randint(0, V, (B, T), generator=draw)
    targets[1, 2:] = IGNORED
    return hidden.view(B, T, C).requires_grad_(), weight.requires_grad_(), targets


@pytest.mark.parametrize("numbers", [1, 4 * V, 1 << 20])
@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_chunks_give_the_loss_and_gradient_of_all_logits(
    numbers: int, penalty: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(head, "NUMBERS", numbers)
    hidden, weight, targets = drawn()
    logits = F.linear(hidden, weight)
    plain = (
        penalized_loss(logits, targets, penalty)
        if penalty
        else next_token_loss(logits, targets, "sum")
    )
    found = chunked_loss(hidden, weight, targets, V, penalty)
    torch.testing.assert_close(found, plain)
    expected = torch.autograd.grad(0.25 * plain, (hidden, weight))
    own = torch.autograd.grad(0.25 * found, (hidden, weight))
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)


def test_padded_rows_are_in_no_logit_and_get_no_gradient():
    hidden, weight, targets = drawn()
    padded = F.pad(weight.detach(), (0, 0, 0, 5)).requires_grad_()
    plain, found = (chunked_loss(hidden, w, targets, V) for w in (weight, padded))
    torch.testing.assert_close(plain, found)
    (gradient,) = torch.autograd.grad(found, padded)
    (expected,) = torch.autograd.grad(plain, weight)
    torch.testing.assert_close(gradient[:V], expected)
    assert not gradient[V:].any()


@pytest.mark.parametrize("tied", [True, False])
def test_a_padded_model_computes_the_same_logits(tied: bool):
    plain, padded = (tiny_gpt(tied_head=tied) for _ in range(2))
    pad_head(padded)
    ids = torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(plain(ids), padded(ids))
    assert padded(ids).shape == (B, T, V)
    width = plain.config.d_model
    assert padded.lm_head.weight.shape == (128, width)
    assert without_head(padded)(ids).shape == (B, T, width) and padded(ids).shape == (B, T, V)
    names = [[n for n, _ in m.named_parameters()] for m in (plain, padded)]
    assert names[0] == names[1]
    assert (padded.token_embedding.weight is padded.lm_head.weight) == tied


def test_a_vocabulary_that_fits_is_left_as_long_as_it_is():
    assert PaddedHead(nn.Linear(3, 256, bias=False)).weight.shape == (256, 3)


def test_a_model_of_the_users_own_keeps_its_head():
    assert can_be_padded(tiny_gpt())
    model = tiny_gpt()
    model.lm_head = nn.Linear(model.config.d_model, V)  # with a bias
    assert not can_be_padded(model)
    model = tiny_gpt()
    model.lm_head.register_forward_hook(lambda *given: None)
    assert not can_be_padded(model)
    other = type("Capped", (type(model),), {})(model.config)
    assert not can_be_padded(other)
