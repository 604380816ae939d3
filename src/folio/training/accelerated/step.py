"""`AcceleratedStep`: the plain step as a GPU likes it."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# (torch documents its operations on lists of tensors, but under private names.)

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from folio.accelerator import peak_memory, ran_out_of_memory, release, to_device
from folio.device import Device
from folio.errors import UserError
from folio.fast.untouched import has_hooks, listeners
from folio.model.gpt import GPT
from folio.tokens.stream import Batch
from folio.training.accelerated.graph import CudaGraphed
from folio.training.accelerated.head import can_be_padded, chunked_loss, pad_head, without_head
from folio.training.accelerated.rules import accelerate_rules
from folio.training.config import OptimizerConfig, TrainingConfig
from folio.training.gradients import require_gradients, total_norm
from folio.training.optimizers import Optimizer
from folio.training.python_state import WAY_OUT
from folio.training.step import Gradient, PlainStep

BACKEND = "inductor"
"""The backend that torch.compile uses."""


class AcceleratedStep(PlainStep):
    """Computes what PlainStep does, and starts and waits less.

    The gradients of all parameters lie side by side, so that one operation adds those of a
    micro-batch; so does the loss, so that nothing is read before the end.
    """

    def __init__(
        self,
        model: nn.Module,
        device: Device,
        config: TrainingConfig,
        optimizer_config: OptimizerConfig,
        compiled: bool = False,
    ) -> None:
        """Prepare to train.

        Args:
            model, device, config, optimizer_config: as of PlainStep.
            compiled: whether forward and backward are compiled by torch.compile.
        """
        optimizer = Optimizer(optimizer_config, model)
        accelerate_rules(optimizer)
        super().__init__(model, device, config, optimizer_config, optimizer)
        self._usual_loss, self._ends_as_written = self.loss, can_be_padded(model)
        if self._ends_as_written and self.compute is not model:
            pad_head(cast(GPT, self.compute))
        pairs = list(zip(self.compute.parameters(), model.parameters()))
        # A padded weight has rows of its own after those of the master weights.
        self._own = [x.detach()[: len(w)] if x.shape != w.shape else x.detach() for x, w in pairs]
        self._masters = [w.detach() for _, w in pairs]
        self._learning = {n: x for n, x in self.compute.named_parameters() if x.requires_grad}

        sizes = [w.numel() for w in self.optimizer.parameters]
        self._gradients = self.optimizer.parameters[0].detach().new_zeros(sum(sizes))
        self._views = [
            x.view(w.shape)
            for x, w in zip(torch.split(self._gradients, sizes), self.optimizer.parameters)
        ]
        self._loss, self._scale = self._gradients.new_zeros(2).unbind()
        faster = self._compiled_add() if compiled else None
        changes, is_heard = (self._gradients, self._loss), listeners(self.compute)
        self._add = CudaGraphed(self._add_micro_batch, changes, faster, is_heard)

    @property
    def peak_bytes(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Peak memory of the GPU in bytes; 0 where it is unknown."""
        return peak_memory(self.device.torch)

    def _backward(self, batch: Batch, micro_batch_size: int) -> Gradient:
        for w, view in zip(self.optimizer.parameters, self._views):
            w.grad = view
        self._gradients.zero_()
        self._loss.zero_()
        n_targets = max(batch.n_targets, 1)
        self._scale.fill_(self.loss_scale / n_targets)
        try:
            for part in batch.split(micro_batch_size):
                self._add(*to_device(part, self.device.torch))  # each (B, T)
        except (MemoryError, RuntimeError) as error:
            if ran_out_of_memory(error):
                self._add.reset()
                release()
            raise
        if self.loss_scale != 1.0:
            self._gradients.div_(self.loss_scale)
        found = torch.stack([self._loss, total_norm([self._gradients])])
        loss, norm = map(float, found.cpu().numpy())  # waits for the GPU, once
        return Gradient(loss / n_targets, norm)

    def _add_micro_batch(self, inputs: Tensor, targets: Tensor, loss_of: Any = None) -> None:
        """Add loss and gradients of (B, T) inputs and targets to what is there."""
        loss = (loss_of or self._loss_of)(inputs, targets)  # summed over targets, in nats
        learning = list(self._learning.values())
        found = torch.autograd.grad(loss * self._scale, learning, allow_unused=True)
        require_gradients(dict(zip(self._learning, found)))
        parts = [x.flatten()[: view.numel()] for x, view in zip(found, self._views)]
        self._gradients.add_(torch.cat(parts))
        self._loss.add_(loss.detach())

    def _loss_of(self, inputs: Tensor, targets: Tensor) -> Tensor:
        listens = self._ends_as_written and any(
            has_hooks(x) for x in (self.compute, self.compute.get_submodule("lm_head"))
        )
        if not self._ends_as_written or listens or self.loss is not self._usual_loss:
            return self.loss(self.compute, inputs, targets)
        return self._chunked_loss(without_head(self.compute), inputs, targets)

    def _chunked_loss(self, body: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        head, size = cast(GPT, self.compute).lm_head.weight, cast(GPT, self.model).config.vocab_size
        return chunked_loss(body(inputs), head, targets, size, self.config.confidence_penalty)

    def _compiled_add(self) -> Callable[[Tensor, Tensor], None]:
        body = without_head(self.compute) if self._ends_as_written else None

        def loss(inputs: Tensor, targets: Tensor) -> Tensor:
            if body is None or self.loss is not self._usual_loss:
                return self.loss(self.compute, inputs, targets)
            return self._chunked_loss(body, inputs, targets)

        # Masks are those that would be drawn without it, so that both can be compared.
        options = {"fallback_random": True} if BACKEND == "inductor" else None
        settings = {"backend": BACKEND, "fullgraph": True, "dynamic": False, "options": options}
        loss_of: Any = torch.compile(loss, **settings)  # pyright: ignore

        def add(inputs: Tensor, targets: Tensor) -> None:
            self._add_micro_batch(inputs, targets, loss_of)

        return add

    def verify(self, batch: Batch) -> None:
        """Check that the copy equals the model, and that captures still compute what it does."""
        super().verify(batch)
        n_windows = self.fitting_windows or self.config.micro_batch_size or len(batch.inputs)
        try:
            self._add.compare(*to_device(batch.split(n_windows)[0], self.device.torch))
        except ArithmeticError as error:
            raise UserError(
                f"The model computes something else than what is trained ({error}): it was changed "
                f"since training began. {WAY_OUT}"
            ) from None

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the weights to the compute precision, if it is another one."""
        if self.compute is not self.model:
            torch._foreach_copy_(self._own, self._masters)
