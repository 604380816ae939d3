"""LoRA: the matrices of a trained model are frozen, and each gets a small trainable correction.

    y = W x + U (D x)        W is frozen; D (r, in) reads r directions, U (out, r) acts on them

U is initialized to 0, so that the model is unchanged at first. `merged` gives the weights of one
plain model that computes the same, W + U D, by which it is evaluated, sampled, saved and exported.

Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685.

Shapes:  r rank
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from folio.training.state import require_same_tensors

INSIDE = ".frozen."
"""Part of the name of a frozen parameter, in place of a dot in the plain model's name."""


class LowRankLinear(nn.Module):
    """A frozen linear layer with a trainable low-rank correction."""

    def __init__(
        self, linear: nn.Linear, rank: int, generator: torch.Generator | None = None
    ) -> None:
        """Freeze the layer; `generator` (on the CPU) makes the correction reproducible."""
        super().__init__()
        self.frozen = linear.requires_grad_(False)
        self.down = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.up = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        nn.init.normal_(self.down, std=linear.in_features**-0.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return self.frozen(x) + F.linear(F.linear(x, self.down), self.up)

    def merged_weight(self) -> Tensor:
        """(out, in) weight of the plain layer that computes the same."""
        return self.frozen.weight + self.up @ self.down


def add_low_rank(model: nn.Module, rank: int, generator: torch.Generator | None = None) -> None:
    """Freeze a model, and add a correction of rank `rank` to each linear layer of its blocks.

    Embedding, positions and head are not corrected.
    """
    model.requires_grad_(False)
    blocks = model.get_submodule("blocks")
    for parent in list(blocks.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                setattr(parent, name, LowRankLinear(layer, rank, generator))


def plain_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by their names in a plain model, without corrections; a tied one once."""
    corrections = {id(p) for layer in corrected(model).values() for p in (layer.down, layer.up)}
    return {
        name.replace(INSIDE, "."): parameter
        for name, parameter in model.named_parameters()
        if id(parameter) not in corrections
    }


@torch.no_grad()
def merged(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the plain model that computes the same, by name; a tied one once."""
    tensors: dict[str, Tensor] = {n: p.detach() for n, p in plain_parameters(model).items()}
    for name, layer in corrected(model).items():
        tensors[f"{name}.weight"] = layer.merged_weight()
    return tensors


def load_model_tensors(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load weights into a model; LoRA's corrections are unchanged.

    Raises:
        UserError: its names or shapes differ.
    """
    own = plain_parameters(model)
    require_same_tensors(own, tensors, "model")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def corrected(model: nn.Module) -> dict[str, LowRankLinear]:
    """The layers with a correction, by name."""
    untyped = cast(Any, model)  # torch does not say what it yields
    modules: Iterable[tuple[str, nn.Module]] = untyped.named_modules()
    return {name: m for name, m in modules if isinstance(m, LowRankLinear)}
