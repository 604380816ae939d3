"""Keeps all parameters of a model in one flat buffer, group by group, and their gradients in
another.

There are three buffers of N numbers: master weights in float32, which the optimizer updates; their
gradients; and compute weights in the precision of the device, which the workers read and every
update of the master weights also writes (https://arxiv.org/abs/1710.03740). Optimizer, clipping and
rounding then take one call for a whole group instead of one for each of dozens of small tensors.

Shapes:  N parameters
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from folio.training.gradients import require_gradients
from folio.training.groups import Group, parameter_groups
from folio.workers import shared_buffer


class FlatParameters:
    """(N,) master weights, gradients and compute weights; the model's parameters become views."""

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        """Move the parameters of a model into memory that all workers share.

        Args:
            model: the model in float32, on the CPU.
            dtype: dtype of the compute weights.
        """
        named = parameter_groups(model)
        everything = {name: p for members in named.values() for name, p in members.items()}
        flat = torch.cat([p.detach().flatten() for p in everything.values()])
        self.master = shared_buffer(len(flat), flat.dtype).copy_(flat)
        self.gradients = shared_buffer(len(flat), flat.dtype)
        self.compute = self.master
        """(N,) compute weights; the master weights themselves if both have the same precision."""
        if dtype != flat.dtype:
            self.compute = shared_buffer(len(flat), dtype).copy_(flat)

        end = 0
        self._spans: dict[str, slice] = {}
        for name, parameter in everything.items():
            self._spans[name] = slice(end, end := end + parameter.numel())
        self.attach(model, self.master)
        for name, parameter in everything.items():
            parameter.grad = self.gradients[self._spans[name]].view(parameter.shape)

        self.groups: dict[Group, nn.Parameter] = {}
        """The groups that the model has, each as one long parameter with its gradient."""
        for group, members in named.items():
            spans = [self._spans[name] for name in members]
            whole = slice(spans[0].start, spans[-1].stop)
            self.groups[group] = nn.Parameter(self.master[whole])
            self.groups[group].grad = self.gradients[whole]

    def compute_weights_of(self, master: Tensor) -> Tensor:
        """Return the compute weights of a slice of the master weights; empty if both are
        the same.
        """
        if self.compute is self.master:
            return master.new_empty(0)
        first = master.storage_offset() - self.master.storage_offset()
        return self.compute[first : first + len(master)]

    def attach(self, model: nn.Module, flat: Tensor) -> None:
        """Make the parameters of a model of this shape views of an (N,) buffer."""
        for name, parameter in model.named_parameters():
            parameter.data = flat[self._spans[name]].view(parameter.shape)

    def differentiate(self, loss: Tensor, weight: Tensor, model: nn.Module, out: Tensor) -> None:
        """Compute the gradient of `loss * weight` with respect to the parameters of a model.

        `loss.backward()` would add to existing gradients, which reads and writes each once more.
        The weight is not passed to autograd as the gradient of the loss: to compare their shapes,
        torch would load sympy, which takes half a second and 60 MB.

        Args:
            loss, weight: scalars.
            model: a model that is attached to these parameters.
            out: (N,) output, in the precision of the model.

        Raises:
            UserError: the loss does not depend on a parameter.
        """
        parameters = dict(model.named_parameters())
        learning = [parameters[name] for name in self._spans]
        gradients = torch.autograd.grad(loss * weight, learning, allow_unused=True)
        require_gradients(dict(zip(self._spans, gradients)))
        torch.cat([gradient.flatten() for gradient in gradients], out=out)
