"""Cross-entropy of the next token.

Shapes:  B batch · T positions · V vocabulary
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from folio.model import fused
from folio.tokens.stream import IGNORED


def next_token_loss(
    logits: Tensor, targets: Tensor, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Surprise at the true next tokens.

    Args:
        logits: (B, T, V), of any precision; the loss is computed in float32.
        targets: (B, T) token ids, or IGNORED.
        reduction: over all targets that count.

    Returns:
        Scalar, in nats.
    """
    if fused.serves(logits):
        total: Tensor = fused.CrossEntropy.apply(logits, targets, 0.0)
        return total if reduction == "sum" else total / (targets != IGNORED).sum()
    flat = logits.flatten(0, 1).float()
    return F.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED, reduction=reduction)


def penalized_loss(logits: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """The same, summed, for a model that is to stay in doubt: its certainty costs too.

    Who reads a text many times knows it by heart, and is as certain of a text that is new. So what
    is minimized is the surprise less `penalty` times the entropy of each prediction.

    Args:
        logits, targets: as for next_token_loss.
        penalty: 0.1 is usual.

    Returns:
        Scalar: the surprise alone, in nats, with the gradient of both.

    Source: Pereyra et al. 2017, https://arxiv.org/abs/1701.06548.
    """
    if fused.serves(logits):
        told: Tensor = fused.CrossEntropy.apply(logits, targets, penalty)
        return told
    flat, places = logits.flatten(0, 1).float(), targets.flatten()
    scores = F.log_softmax(flat, 1)
    surprise = F.nll_loss(scores, places, ignore_index=IGNORED, reduction="sum")
    entropy = -(scores.exp() * scores).sum(1)
    doubt = penalty * torch.where(places == IGNORED, 0.0, entropy).sum()
    return surprise - (doubt - doubt.detach())
