"""`ParallelStep`: computes what `PlainStep` does, with several processes that share a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from folio.device import Device
from folio.errors import UserError
from folio.evaluation.score import Score, Window
from folio.fast.accelerate import not_accelerated
from folio.tokenizers.base import TokenIds
from folio.tokens.stream import Batch
from folio.training.config import OptimizerConfig, TrainingConfig
from folio.training.objective import Loss
from folio.training.parallel.data_parallel import (
    DataParallel,
    MicroBatch,
    Replica,
    fast_loss_of,
)
from folio.training.parallel.updates import ParallelOptimizer
from folio.training.python_state import WAY_OUT, require_same_state
from folio.training.step import Gradient

ROUNDING = 1e-5
"""Relative difference of a loss or a norm that counts as rounding."""


class ParallelStep:
    """The training step on all cores of a CPU."""

    loss_scale = 1.0

    def __init__(
        self,
        model: nn.Module,
        device: Device,
        config: TrainingConfig,
        optimizer_config: OptimizerConfig,
        seed: int,
    ) -> None:
        """Prepare to train.

        Args:
            model: the model in float32; its parameters become views of the master weights.
            device: a CPU.
            config: has batch size, micro-batch size and the confidence penalty.
            optimizer_config: the rules, and where gradients are clipped.
            seed: seeds the dropout masks.
        """
        self.model, self.config = model, config
        self._not_accelerated = not_accelerated(model)
        self.parallel = DataParallel(model, device, config.batch_size, seed)
        self.loss: Loss = fast_loss_of(config.confidence_penalty)
        self.parallel.loss = lambda model, inputs, targets: self.loss(model, inputs, targets)
        self.optimizer = ParallelOptimizer(optimizer_config, model, self.parallel)
        self._verify = self.parallel.task(_verify_phase)

    @property
    def n_workers(self) -> int:
        """Workers of this process that share its part of a batch, itself included."""
        return len(self.parallel.replicas)

    @property
    def fitting_windows(self) -> int:
        """Micro-batch size that fit into memory after a larger one did not; 0 before."""
        return self.parallel.fitting_windows

    @property
    def peak_bytes(self) -> int:
        """Peak memory of all workers together in bytes, once they have run."""
        return self.parallel.peak_bytes

    def running(self) -> AbstractContextManager[None]:
        """Fork the workers; they end with this context."""
        return self.parallel.running()

    def refresh(self) -> None:
        """Copy the current master weights to the compute weights."""
        self.parallel.refresh()

    def backward(self, batch: Batch, step: int) -> Gradient:
        """Compute the gradient of a batch; `step` is part of the seed of the dropout masks."""
        loss, square = self.parallel.backward(batch, self.config.micro_batch_size, step)
        return Gradient(loss, math.sqrt(square))

    def update(self, lr_scale: float, norm: float) -> None:
        """Clip the gradient, and update the weights."""
        self.optimizer.step(lr_scale, norm)

    def verify(self, batch: Batch) -> None:
        """Check that a replay gives the same numbers as Python, for one micro-batch per worker, and
        that the model was not edited since its replicas were made.
        """
        micro_batch = self.parallel.split(batch, self.config.micro_batch_size, step=0)[0]
        is_replayed = not self.parallel.replicas[0].backward.gave_up(len(micro_batch.batch.inputs))
        if not is_replayed:  # Python alone trains, which takes seconds for a large batch
            micro_batch = micro_batch._replace(batch=micro_batch.batch.split(1)[0])
        answers = self._verify([(micro_batch, is_replayed)] * self.n_workers)
        _, expected = answers[0]
        for rank, (replayed, computed) in enumerate(answers):
            for found, how in ((computed, f"in worker {rank}"), (replayed, "as it was captured")):
                if not all(map(_is_same, found, expected)):
                    raise UserError(
                        f"The same batch has a loss of {expected.loss:.6g} and a gradient of norm "
                        f"{expected.norm:.6g} by the model as it is now, but {found.loss:.6g} and "
                        f"{found.norm:.6g} {how}: what it reads from Python has changed since "
                        f"training began, which other processes and a captured step do not see. "
                        f"{WAY_OUT}"
                    )
        require_same_state(self.model, self.parallel.replicas[0].model)
        if not_accelerated(self.model) != self._not_accelerated:
            raise UserError(
                f"The code of the model was changed since training began, which its replicas do "
                f"not see. {WAY_OUT}"
            )

    def score(
        self,
        tokens: TokenIds,
        windows: list[Window],
        protocol: str,
        nll: list[NDArray[np.float32]] | None = None,
    ) -> Score:
        """Measure the loss of windows, shared among the workers."""
        return self.parallel.score(tokens, windows, protocol, nll)


def _verify_phase(replica: Replica, message: tuple[MicroBatch, bool]) -> tuple[Gradient, Gradient]:
    """Compute a micro-batch by replay, if there is one, and by Python alone."""
    micro_batch, is_replayed = message
    inputs, targets = map(torch.as_tensor, micro_batch.batch)
    weight = torch.tensor(1 / micro_batch.n_targets)

    def measure(backward: Callable[..., Tensor]) -> Gradient:
        replica.seed(micro_batch.dropout_seed)
        loss = backward(inputs, targets, weight).item()
        return Gradient(loss, get_total_norm([replica.gradients.float()]).item())

    computed = measure(replica.backward.function)
    return measure(replica.backward) if is_replayed else computed, computed


def _is_same(found: float, expected: float) -> bool:
    """Whether two numbers are equal but for rounding, or both not finite, which the loop reports: a
    replay writes products where the gradients are, and a product into memory that begins elsewhere
    in a cache line may have other last bits.
    """
    return math.isclose(found, expected, rel_tol=ROUNDING) or not (
        math.isfinite(found) or math.isfinite(expected)
    )
