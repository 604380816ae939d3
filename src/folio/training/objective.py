"""What training minimizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from folio.model.loss import next_token_loss, penalized_loss

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""A model, (B, T) inputs and targets -> their loss, summed over the targets, in nats."""


def usual_loss(confidence_penalty: float = 0.0) -> Loss:
    """Build the loss that is minimized: the cross-entropy of the next tokens, with the penalty if
    any. It can be pickled.
    """
    return partial(_loss, confidence_penalty)


def _loss(confidence_penalty: float, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    if confidence_penalty:
        return penalized_loss(model(inputs), targets, confidence_penalty)
    return next_token_loss(model(inputs), targets, reduction="sum")
