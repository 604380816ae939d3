"""`AcceleratedStep`: the plain step as a GPU likes it."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# (torch documents its operations on lists of tensors, but under private names.)

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from folio.accelerator import peak_memory, ran_out_of_memory, release, to_device
from folio.device import Device
from folio.model.gpt import GPT
from folio.tokens.stream import Batch
from folio.training.accelerated.graph import Graphed
from folio.training.accelerated.head import can_be_padded, chunked_loss, pad_head, without_head
from folio.training.accelerated.rules import accelerate_rules
from folio.training.config import OptimizerConfig, TrainingConfig
from folio.training.step import Gradient, PlainStep

BACKEND = "inductor"
"""Of torch.compile."""


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
        super().__init__(model, device, config, optimizer_config)
        self._usual_loss = self.loss
        self._body: nn.Module | None = None
        if can_be_padded(model):
            if self.compute is not model:
                pad_head(cast(GPT, self.compute))
            self._body = without_head(self.compute)
        pairs = list(zip(self.compute.parameters(), model.parameters()))
        # A padded weight has rows of its own after those of the master weights.
        self._own = [x.detach()[: len(w)] if x.shape != w.shape else x.detach() for x, w in pairs]
        self._masters = [w.detach() for _, w in pairs]
        self._learning = [x for x, _ in pairs if x.requires_grad]

        sizes = [w.numel() for w in self.optimizer.parameters]
        self._gradients = self.optimizer.parameters[0].detach().new_zeros(sum(sizes))
        self._views = [
            x.view(w.shape)
            for x, w in zip(torch.split(self._gradients, sizes), self.optimizer.parameters)
        ]
        self._loss, self._scale = self._gradients.new_zeros(2).unbind()
        accelerate_rules(self.optimizer)
        faster = self._compiled_add() if compiled else None
        self._add = Graphed(self._add_micro_batch, (self._gradients, self._loss), faster)

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
        self._scale.fill_(self._loss_scale / n_targets)
        try:
            for part in batch.split(micro_batch_size):
                self._add(*to_device(part, self.device.torch))  # each (B, T)
        except (MemoryError, RuntimeError) as error:
            if ran_out_of_memory(error):
                self._add.forget()
                release()
            raise
        if self._loss_scale != 1.0:
            self._gradients.div_(self._loss_scale)
        norm = torch.linalg.vector_norm(self._gradients)
        loss, length = torch.stack([self._loss, norm]).cpu().tolist()  # waits, once
        return Gradient(loss / n_targets, length)

    def _add_micro_batch(self, inputs: Tensor, targets: Tensor, loss_of: Any = None) -> None:
        """Add loss and gradients of (B, T) inputs and targets to what is there."""
        loss = (loss_of or self._loss_of)(inputs, targets)  # summed over targets, in nats
        found = torch.autograd.grad(loss * self._scale, self._learning)
        parts = [x.flatten()[: view.numel()] for x, view in zip(found, self._views)]
        self._gradients.add_(torch.cat(parts))
        self._loss.add_(loss.detach())

    def _loss_of(self, inputs: Tensor, targets: Tensor) -> Tensor:
        if self._body is None or self.loss is not self._usual_loss:
            return self.loss(self.compute, inputs, targets)
        head, size = cast(GPT, self.compute).lm_head.weight, cast(GPT, self.model).config.vocab_size
        penalty = self.config.confidence_penalty
        return chunked_loss(self._body(inputs), head, targets, size, penalty)

    def _compiled_add(self) -> Any:
        loss_of = torch.compile(self._loss_of, backend=BACKEND, fullgraph=True, dynamic=False)
        return lambda inputs, targets: self._add_micro_batch(inputs, targets, loss_of)

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the weights to the compute precision, if it is another one."""
        if self.compute is not self.model:
            torch._foreach_copy_(self._own, self._masters)
