"""The losses of `folio.model.loss`, forward and backward in one pass each.

Shapes:  B batch · T positions · V vocabulary
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from folio.fast.calls import serves
from folio.fast.functions import CrossEntropy
from folio.fast.written_for import is_as_written
from folio.model import loss as plain
from folio.tokens.ignored import IGNORED


def next_token_loss(
    logits: Tensor, targets: Tensor, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Compute the cross-entropy of the true next tokens; see `folio.model.loss`."""
    if not serves(logits) or not is_as_written(plain):
        return plain.next_token_loss(logits, targets, reduction)
    total: Tensor = CrossEntropy.apply(logits, targets, 0.0)
    return total if reduction == "sum" else total / (targets != IGNORED).sum()


def penalized_loss(logits: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """Compute the summed cross-entropy, whose gradient penalizes confidence too."""
    if not serves(logits) or not is_as_written(plain):
        return plain.penalized_loss(logits, targets, penalty)
    return CrossEntropy.apply(logits, targets, penalty)
