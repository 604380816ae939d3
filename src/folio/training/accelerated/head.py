"""The head of a model with its loss, for GPUs: in chunks of rows, of an even number of logits.

With 50,257 ids, the float32 logits of 16,384 positions take 3.3 GB, and so do their log-softmax and
gradient; a matmul with rows of 100,514 bytes is slow, since tensor cores read 16 bytes at a time.
So the loss takes some rows of hidden states at a time, and computes the gradient of their logits at
once, while they are there; and the weights of the compute copy have rows of zeros below them, which
neither logits, checkpoints nor the master weights know of.

Shapes:  N positions · C = d_model · V vocabulary · P padded vocabulary
"""

# pyright: reportIncompatibleMethodOverride=false, reportUnknownMemberType=false

from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from folio.fast.untouched import is_untouched
from folio.fast.written_for import is_as_written
from folio.model import loss as plain_loss
from folio.model.gpt import GPT
from folio.tokens.ignored import IGNORED

MULTIPLE = 128
"""The padded vocabulary is a multiple of this. nanoGPT reports a quarter more speed for 50,304 rows
in place of 50,257 on an A100."""

NUMBERS = 1 << 28
"""Logits of a chunk: 1 GB in float32, twice over."""

Model = TypeVar("Model", bound=nn.Module)


class PaddedHead(nn.Linear):
    """A linear layer whose (P, C) weight has rows of zeros after the V that count."""

    def __init__(self, linear: nn.Linear) -> None:
        """Pad the weight of a layer without bias."""
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        weight = F.pad(linear.weight.detach(), (0, 0, 0, -linear.out_features % MULTIPLE))
        self.weight = nn.Parameter(weight, linear.weight.requires_grad)

    def forward(self, input: Tensor) -> Tensor:
        """(..., C) -> (..., V) logits, a view of P of them."""
        return F.linear(input, self.weight)[..., : self.out_features]


def can_be_padded(model: nn.Module) -> bool:
    """Whether a model ends as Folio wrote it: its logits are what a linear head gives, and its loss
    is the usual one.
    """
    if type(model) is not GPT or not is_untouched(model) or not is_as_written(plain_loss):
        return False
    head = model.lm_head
    return type(head) is nn.Linear and cast(object, head.bias) is None and is_untouched(head)


def pad_head(model: GPT) -> None:
    """Replace the head by a padded one; a tied embedding takes its weight."""
    head = PaddedHead(model.lm_head)
    if model.token_embedding.weight is model.lm_head.weight:
        model.token_embedding.weight = head.weight
    model.lm_head = head


def without_head(model: Model) -> Model:
    """The same model of the same layers, but one that returns what its head would read."""
    body = copy.copy(model)
    vars(body)["_modules"] = {**vars(model)["_modules"], "lm_head": nn.Identity()}
    return body


def chunked_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, penalty: float = 0.0
) -> Tensor:
    """Compute `next_token_loss`, or `penalized_loss`, of the logits hidden @ weight^T.

    Args:
        hidden: (B, T, C) what the head reads.
        weight: (V or P, C) of the head.
        targets: (B, T) token ids, or IGNORED.
        vocab_size: V.
        penalty: as for penalized_loss.

    Returns:
        Scalar float32, summed over the targets, in nats. Its gradient can be taken once.
    """
    flat = hidden.flatten(0, 1), weight, targets.flatten(), vocab_size, penalty
    return _ChunkedLoss.apply(*flat)  # type: ignore[no-any-return]


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, penalty: float
    ) -> Tensor:
        """(N, C), (P, C), (N,) -> scalar; the gradients are ready by then."""
        at_once = max(1, NUMBERS // len(weight))
        counted = (targets != IGNORED)[:, None]  # (N, 1)
        x_counted, wanted = x * counted, targets.clamp(min=0)[:, None]
        picked: list[Tensor] = []
        x_gradients: list[Tensor] = []
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        padded = x.new_zeros(min(at_once, len(x)), len(weight))  # (n, P)
        parts = (torch.split(each, at_once) for each in (x, x_counted, wanted))
        for rows, rows_counted, ids in zip(*parts):
            log_p = (rows @ weight.T)[:, :vocab_size].float().log_softmax(1)  # (n, V)
            picked.append(log_p.gather(1, ids))
            gradient = padded[: len(rows)]
            gradient[:, :vocab_size] = _logit_gradient(log_p, ids, penalty)
            x_gradients.append(gradient @ weight)
            weight_gradient += gradient.T @ rows_counted
        loss = -(torch.cat(picked) * counted).sum()
        ctx.save_for_backward(torch.cat(x_gradients) * counted, weight_gradient)
        ctx.dtype = weight.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        """Scalar -> (N, C), (P, C)."""
        x_gradient, weight_gradient = ctx.saved_tensors
        x_gradient = x_gradient * scale.to(x_gradient.dtype)
        return x_gradient, (weight_gradient * scale).to(ctx.dtype), None, None, None


def _logit_gradient(log_p: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Overwrite (n, V) log-probabilities of the logits z by the gradient of the loss, p less 1 at
    the (n, 1) ids.

    The entropy H = -sum p log p has dH/dz = -p (log p + H), of which the penalty's is subtracted.
    """
    if penalty:
        p = log_p.exp()
        entropy = -(p * log_p).sum(1, keepdim=True)
        p += penalty * p * (log_p + entropy)
    else:
        p = log_p.exp_()
    return p.scatter_(1, ids, p.gather(1, ids) - 1)
