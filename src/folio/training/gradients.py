"""The gradients that `backward` left in the parameters: their norm, and clipping."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# (torch documents its operations on lists of tensors, but under private names.)

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from folio.errors import UserError


def gradient_of(parameter: Tensor) -> Tensor:
    """Return the gradient, which `backward` made."""
    assert parameter.grad is not None
    return parameter.grad


def gradients_of(model: nn.Module) -> dict[str, Tensor | None]:
    """Name -> gradient of each parameter that learns; None where `backward` made none."""
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def require_gradients(gradients: Mapping[str, Tensor | None]) -> None:
    """Require the gradient of each parameter, by its name.

    Raises:
        UserError: a parameter has none, since the loss was computed without it.
    """
    if unused := [name for name, gradient in gradients.items() if gradient is None]:
        raise UserError(
            f"Each parameter that learns must take part in the loss, but {', '.join(unused[:3])} "
            f"did not. Use it in forward, leave it out, or freeze it with requires_grad_(False)."
        )


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Scalar: the L2 norm of all gradients together."""
    return total_norm([gradient_of(p) for p in parameters])


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Scalar: the root of the sum of all squares."""
    norms = torch._foreach_norm(list(tensors))
    return torch.stack(list(norms)).square().sum().sqrt()


def clip_gradients(parameters: Sequence[nn.Parameter], norm: float, max_norm: float) -> None:
    """Scale all gradients down in place if their norm exceeds `max_norm`.

    Args:
        parameters: with gradients.
        norm: of all their gradients together.
        max_norm: what is left of it (Pascanu et al. 2013, https://arxiv.org/abs/1211.5063).
    """
    if norm > max_norm:
        torch._foreach_mul_([gradient_of(p) for p in parameters], max_norm / norm)
