"""Cross-entropy of the next token.

Shapes:  B batch · T positions · V vocabulary
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from folio.tokens.ignored import IGNORED


def next_token_loss(
    logits: Tensor, targets: Tensor, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Compute the cross-entropy of the true next tokens.

    Args:
        logits: (B, T, V), of any precision; the loss is computed in float32.
        targets: (B, T) token ids, or IGNORED.
        reduction: how the targets that count are combined.

    Returns:
        Scalar, in nats.
    """
    flat = logits.flatten(0, 1).float()  # (B * T, V)
    return F.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED, reduction=reduction)


def penalized_loss(logits: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """Compute the summed cross-entropy, with a gradient that also penalizes confidence.

    A model that has read a text many times has memorized it, and is as certain on new text. So the
    gradient is that of the cross-entropy minus `penalty` times the entropy of each prediction.

    Args:
        logits, targets: as for next_token_loss.
        penalty: 0.1 is usual.

    Returns:
        Scalar: the cross-entropy alone, in nats, with the gradient of both.

    Source: Pereyra et al. 2017, https://arxiv.org/abs/1701.06548.
    """
    flat, flat_targets = logits.flatten(0, 1).float(), targets.flatten()
    log_probabilities = F.log_softmax(flat, 1)
    loss = F.nll_loss(log_probabilities, flat_targets, ignore_index=IGNORED, reduction="sum")
    entropy = -(log_probabilities.exp() * log_probabilities).sum(1)
    bonus = penalty * torch.where(flat_targets == IGNORED, 0.0, entropy).sum()
    return loss - (bonus - bonus.detach())
