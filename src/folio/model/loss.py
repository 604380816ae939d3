"""Cross-entropy of the next token.

Shapes:  B batch · T positions · V vocabulary
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

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
    flat = logits.flatten(0, 1).float()
    return F.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED, reduction=reduction)
