"""The weights of a model in one row, group by group, and their gradients in another.

What computes may read them in a precision of its own, in a third row, which whoever changes the
weights keeps up to date.

Optimizer, clipping and conversion then take one call for a whole group where they would
take one for each of dozens of small tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from folio.training.optimizers import Group, parameter_groups
from folio.workers import shared_row


def new_row(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(n,) zeros; on the CPU in memory that all workers see."""
    return (
        shared_row(n, dtype) if device.type == "cpu" else torch.zeros(n, dtype=dtype, device=device)
    )


class Weights:
    """(N,) weights and gradients; the model's own parameters become views of them."""

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        """
        Args:
            model: in float32.
            dtype: in which copies of it compute.
        """
        named = parameter_groups(model)
        everything = {name: p for members in named.values() for name, p in members.items()}
        row = torch.cat([p.detach().flatten() for p in everything.values()])
        self.values = new_row(len(row), row.dtype, row.device).copy_(row)
        self.gradients = new_row(len(row), row.dtype, row.device)
        self.working = self.values
        """(N,) as the copies read them; the weights themselves if that is their precision."""
        if dtype != row.dtype:
            self.working = new_row(len(row), dtype, row.device).copy_(row)

        end = 0
        self._spans: dict[str, slice] = {}
        for name, parameter in everything.items():
            self._spans[name] = slice(end, end := end + parameter.numel())
        self.attach(model, self.values)
        for name, parameter in everything.items():
            parameter.grad = self.gradients[self._spans[name]].view(parameter.shape)

        self.members = {group: list(members.values()) for group, members in named.items()}
        """The parameters of the model in each group."""
        self.groups: dict[Group, nn.Parameter] = {}
        """The groups that the model has, each as one long parameter."""
        for group, members in named.items():
            spans = [self._spans[name] for name in members]
            whole = slice(spans[0].start, spans[-1].stop)
            self.groups[group] = nn.Parameter(self.values[whole])
            self.groups[group].grad = self.gradients[whole]

    def to_refresh(self, part: Tensor) -> Tensor:
        """What must change with a part of the values; nothing where the copies read those."""
        if self.working is self.values:
            return part.new_empty(0)
        first = part.storage_offset() - self.values.storage_offset()
        return self.working[first : first + len(part)]

    def attach(self, model: nn.Module, values: Tensor) -> None:
        """Make the parameters of a model of the same shape views of an (N,) row."""
        for name, parameter in model.named_parameters():
            parameter.data = values[self._spans[name]].view(parameter.shape)

    def gather_gradients(self, loss: Tensor, weight: Tensor, model: nn.Module, row: Tensor) -> None:
        """Differentiate a loss by the weights of such a model.

        Adding to gradients that are there already would read and write each once more. The weight
        is not given to autograd as the gradient of the loss: to compare the shapes of both, torch
        loads sympy, for half a second and 60 MB.

        Args:
            loss, weight: scalars; the gradient is that of their product.
            model: whose parameters lie as those of this one.
            row: (N,), written; of the precision of the model.
        """
        parameters = dict(model.named_parameters())
        gradients = torch.autograd.grad(loss * weight, [parameters[name] for name in self._spans])
        torch.cat([gradient.flatten() for gradient in gradients], out=row)
