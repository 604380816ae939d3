"""`ParallelStep`: what `PlainStep` computes, by several processes that share a batch."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray
from torch import nn

from folio.device import Device
from folio.evaluation.score import Score, Window
from folio.tokenizers.base import TokenIds
from folio.tokens.stream import Batch
from folio.training.config import OptimizerConfig, TrainingConfig
from folio.training.parallel.data_parallel import DataParallel, fast_loss_of
from folio.training.parallel.updates import ParallelOptimizer
from folio.training.step import Gradient, Loss


class ParallelStep:
    """The same step on all cores of a processor."""

    def __init__(
        self,
        model: nn.Module,
        device: Device,
        config: TrainingConfig,
        optimizer_config: OptimizerConfig,
        seed: int,
    ) -> None:
        """Put the parts together.

        Args:
            model: in float32; its parameters become views of the master weights.
            device: a processor.
            config: for batch size, micro-batch size and the confidence penalty.
            optimizer_config: the rules, and where gradients are clipped.
            seed: names the series of dropout masks.
        """
        self.config = config
        self.parallel = DataParallel(model, device, config.batch_size, seed)
        self.loss: Loss = fast_loss_of(config.confidence_penalty)
        self.parallel.loss = lambda *given: self.loss(*given)
        self.optimizer = ParallelOptimizer(optimizer_config, model, self.parallel)

    @property
    def world_size(self) -> int:
        """Processes that share the work, this one included."""
        return len(self.parallel.replicas)

    @property
    def fitting_windows(self) -> int:
        """As a Step."""
        return self.parallel.fitting_windows

    @property
    def peak_bytes(self) -> int:
        """As a Step."""
        return self.parallel.peak_bytes

    def running(self) -> AbstractContextManager[None]:
        """As a Step: the workers are forked now, and end with it."""
        return self.parallel.running()

    def refresh(self) -> None:
        """As a Step."""
        self.parallel.refresh()

    def backward(self, batch: Batch, step: int) -> Gradient:
        """As a Step; the seed of the dropout masks is made of `step` too."""
        loss, square = self.parallel.backward(batch, self.config.micro_batch_size, step)
        return Gradient(loss, math.sqrt(square))

    def update(self, lr_scale: float, norm: float) -> None:
        """As a Step."""
        self.optimizer.step(lr_scale, norm)

    def score(
        self,
        tokens: TokenIds,
        windows: list[Window],
        protocol: str,
        nll: list[NDArray[np.float32]] | None = None,
    ) -> Score:
        """As a Step, each worker a share of the windows."""
        return self.parallel.score(tokens, windows, protocol, nll)
