"""A training step: the gradient of a batch, then the update of the weights by it.

`PlainStep` is the textbook version, in one process with torch alone: forward, `loss.backward()`,
clip, update. `--device.fast off` uses it, and so does any device whose faster step does not apply
(`why_plain` in recipe/build.py). `parallel/` computes the same on all cores of a processor,
`accelerated/` on a GPU.

Shapes:  B windows in a batch · T context length · V vocabulary
"""

from __future__ import annotations

import copy
import gc
import math
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from folio.accelerator import ran_out_of_memory, to_device
from folio.device import Device
from folio.evaluation.score import Score, Window, score
from folio.tokenizers.base import TokenIds
from folio.tokens.stream import Batch
from folio.training.config import OptimizerConfig, TrainingConfig
from folio.training.gradients import (
    clip_gradients,
    gradient_norm,
    gradient_of,
    gradients_of,
    require_gradients,
)
from folio.training.objective import Loss, usual_loss
from folio.training.optimizers import Optimizer
from folio.training.python_state import require_same_state
from folio.training.state import Remembers, UpdatesWeights


class Gradient(NamedTuple):
    """Loss and norm of the gradient of a batch; the gradient itself stays in the step."""

    loss: float
    """Mean loss of the batch, in nats."""
    norm: float
    """Norm of all gradients together, before clipping."""


class Step(Protocol):
    """Trains a model batch by batch."""

    loss: Loss
    """The loss that is minimized; it may be replaced before the step runs."""
    loss_scale: float
    """What the loss is multiplied by before its gradient is computed: 1 but in float16."""

    @property
    def n_workers(self) -> int:
        """Workers of this process that share its part of a batch, itself included."""
        ...

    @property
    def fitting_windows(self) -> int:
        """Micro-batch size that fit into memory after a larger one did not; 0 before."""
        ...

    @property
    def peak_bytes(self) -> int:
        """Peak memory of these workers together in bytes, once they have run; 0 where
        it is unknown.
        """
        ...

    @property
    def optimizer(self) -> Remembers:
        """The optimizer, whose state goes into a checkpoint."""
        ...

    def running(self) -> AbstractContextManager[None]:
        """Keep the workers running within this context."""
        ...

    def refresh(self) -> None:
        """Take over the model's weights after someone else has changed them."""

    def backward(self, batch: Batch, step: int) -> Gradient:
        """Compute the gradient of the mean loss over all targets of a batch.

        Args:
            batch: (B, T) inputs and targets.
            step: seeds the dropout masks, unless they come from torch's global state.

        Raises:
            WorkerError: a worker died or hung; the weights are as they were.
        """
        ...

    def update(self, lr_scale: float, norm: float) -> None:
        """Clip the gradient, and update the weights.

        Args:
            lr_scale: factor on the peak learning rates.
            norm: norm of the gradient.

        Raises:
            FloatingPointError: the weights would not be finite; they are as they were.
        """

    def score(
        self,
        tokens: TokenIds,
        windows: list[Window],
        protocol: str,
        nll: list[NDArray[np.float32]] | None = None,
    ) -> Score:
        """Measure the loss of windows without dropout; arguments as in `evaluation.score`."""
        ...

    def verify(self, batch: Batch) -> None:
        """Check that a batch still gives what the model computes, Python state and hooks included.

        Raises:
            UserError: something else is being trained.
        """


FLOAT16_SCALE = 2.0**16
"""Factor on the loss in float16, in which most gradients would otherwise be too small; halved
whenever gradients overflow."""


class PlainStep:
    """The textbook step: one process, one model, torch alone."""

    n_workers, peak_bytes, fitting_windows = 1, 0, 0

    def __init__(
        self,
        model: nn.Module,
        device: Device,
        config: TrainingConfig,
        optimizer_config: OptimizerConfig,
        optimizer: UpdatesWeights | None = None,
    ) -> None:
        """Prepare to train.

        Args:
            model: the model on the device in float32; its parameters are updated.
            device: the device; forward and backward use its precision.
            config: has the micro-batch size and the confidence penalty.
            optimizer_config: the rules, and where gradients are clipped.
            optimizer: by these rules; None makes one.
        """
        self.model, self.device, self.config = model.train(), device, config
        is_mixed = device.dtype != torch.float32  # https://arxiv.org/abs/1710.03740
        self.compute = copy.deepcopy(model).to(device.dtype) if is_mixed else model
        self.optimizer = optimizer or Optimizer(optimizer_config, model)
        self.max_norm = optimizer_config.gradient_clip or math.inf
        self.loss: Loss = usual_loss(config.confidence_penalty)
        self.loss_scale = FLOAT16_SCALE if device.dtype == torch.float16 else 1.0

    def running(self) -> AbstractContextManager[None]:
        """Start nothing: there are no workers."""
        return nullcontext()

    def backward(self, batch: Batch, step: int) -> Gradient:
        """Compute the gradient; if memory runs out, start again with half the micro-batch size, and
        if float16 overflows, with half the scale.
        """
        at_once = self.fitting_windows or self.config.micro_batch_size or len(batch.inputs)
        try:
            found = self._backward(batch, at_once)
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error) or at_once == 1:
                raise
            self.fitting_windows = -(-min(at_once, len(batch.inputs)) // 2)
        else:
            if self.loss_scale == 1.0 or all(map(math.isfinite, found)):
                return found
            self.loss_scale /= 2
        gc.collect()  # frees the error and its traceback, which hold the step's memory
        return self.backward(batch, step)

    def _backward(self, batch: Batch, micro_batch_size: int) -> Gradient:
        self.model.zero_grad(set_to_none=True)
        n_targets, losses = max(batch.n_targets, 1), list[Tensor]()
        for part in batch.split(micro_batch_size):
            inputs, targets = to_device(part, self.device.torch)  # each (B, T)
            loss = self.loss(self.compute, inputs, targets)  # summed over targets, in nats
            (loss / (n_targets / self.loss_scale)).backward()  # pyright: ignore[reportUnknownMemberType]
            losses.append(loss.detach())
            self._collect_gradients()
        norm = gradient_norm(self.optimizer.parameters)
        numbers = torch.stack([*losses, norm]).cpu().double().numpy()  # waits for a GPU, once
        return Gradient(float(numbers[:-1].sum()) / n_targets, float(numbers[-1]))

    def update(self, lr_scale: float, norm: float) -> None:
        """Clip the gradient, and update the weights."""
        clip_gradients(self.optimizer.parameters, norm, self.max_norm)
        self.optimizer.step(lr_scale)
        self.refresh()

    def score(
        self,
        tokens: TokenIds,
        windows: list[Window],
        protocol: str,
        nll: list[NDArray[np.float32]] | None = None,
    ) -> Score:
        """Measure the loss of windows in this process."""
        return score(self.compute, tokens, windows, protocol, nll=nll)

    def verify(self, batch: Batch) -> None:
        """Check that a rounded copy of the model still equals the model."""
        require_same_state(self.model, self.compute)

    def refresh(self) -> None:
        """Round the weights to the compute precision, if it is another one."""
        if self.compute is not self.model:
            for own, master in zip(self.compute.parameters(), self.model.parameters()):
                own.detach().copy_(master.detach())

    def _collect_gradients(self) -> None:
        """Accumulate the gradients of micro-batches in float32, if they have a lower precision."""
        require_gradients(gradients_of(self.compute))
        if self.compute is self.model:
            return
        for own, master in zip(self.compute.parameters(), self.model.parameters()):
            if own.requires_grad:
                gradient, own.grad = gradient_of(own).float().div_(self.loss_scale), None
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
