"""The weights of a model in one row, group by group, and their gradients in another.

Optimizer, clipping and conversion then take one call for a whole group where they would
take one for each of dozens of small tensors.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Group = Literal["hidden", "embedding", "vector"]
GROUPS: tuple[Group, ...] = ("hidden", "embedding", "vector")


class Weights:
    """(N,) weights and gradients; the model's own parameters become views of them."""

    def __init__(self, model: nn.Module) -> None:
        named: dict[Group, dict[str, nn.Parameter]] = {}
        for group in GROUPS:
            members = {n: p for n, p in model.named_parameters() if group_of(n, p) == group}
            if members:
                named[group] = members
        everything = {name: p for members in named.values() for name, p in members.items()}
        self.values = torch.cat([p.detach().flatten() for p in everything.values()])
        self.gradients = torch.zeros_like(self.values)

        end = 0
        self._spans: dict[str, slice] = {}
        for name, parameter in everything.items():
            self._spans[name] = slice(end, end := end + parameter.numel())
        self.attach(model, self.values, self.gradients)

        self.members = {group: list(members.values()) for group, members in named.items()}
        """The parameters of the model in each group."""
        self.groups: dict[Group, nn.Parameter] = {}
        """The groups that the model has, each as one long parameter."""
        for group, members in named.items():
            spans = [self._spans[name] for name in members]
            whole = slice(spans[0].start, spans[-1].stop)
            self.groups[group] = nn.Parameter(self.values[whole])
            self.groups[group].grad = self.gradients[whole]

    def attach(self, model: nn.Module, values: Tensor, gradients: Tensor) -> None:
        """Make the parameters of a model of the same shape views of (N,) rows."""
        for name, parameter in model.named_parameters():
            span = self._spans[name]
            parameter.data = values[span].view(parameter.shape)
            parameter.grad = gradients[span].view(parameter.shape)


def group_of(name: str, parameter: nn.Parameter) -> Group:
    """What kind of weight a parameter is.

    Matrices between hidden layers are one kind, tables from or to token ids and places
    another, gains and biases the third.
    """
    if parameter.dim() < 2:
        return "vector"
    return "hidden" if name.startswith("blocks.") else "embedding"
