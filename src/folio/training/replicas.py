"""Copies of a model that share its weights and compute a batch side by side.

On a processor each runs on a thread of its own. Threads that share every single operation
wait for each other hundreds of times in a step, and each wait is long when another program
takes a core for a moment; threads that share the windows of a batch wait once.

The copies compute in the precision of the device; the weights that the optimizer changes,
and the sum of the gradients, stay in float32 (https://arxiv.org/abs/1710.03740).

Shapes:  B windows in a batch · T context length · V vocabulary · N weights
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from folio.device import Device
from folio.model.dropout import Dropout
from folio.model.loss import next_token_loss
from folio.tokens.stream import IGNORED, Batch
from folio.training.weights import Weights

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Replica:
    """One copy."""

    model: nn.Module
    gradients: Tensor
    """(N,) of its share of the batch, in its own precision."""
    generator: torch.Generator
    """Draws its dropout masks."""


class Replicas:
    """The copies, and the weights that they share."""

    def __init__(self, model: nn.Module, device: Device, at_most: int, seed: int) -> None:
        """
        Args:
            model: its parameters become views of `weights`.
            device: where the copies compute, in which precision, on how many threads.
            at_most: copies that are of use: the windows in a batch.
            seed: names the series of dropout masks.
        """
        self.weights, self.device, self.seed = Weights(model), device, seed
        self.fitting_windows = 0
        """Windows in memory at once that proved to fit, after more of them did not; 0 before."""
        n = min(device.config.threads, at_most) if device.config.kind == "cpu" else 1
        self.threads_each = device.config.threads // n
        self._shared = self.weights.values.to(device.dtype)  # itself in float32
        self.copies = [self._copy(model) for _ in range(n)]
        self._pool = ThreadPoolExecutor(n, initializer=self._begin_thread) if n > 1 else None

    def _copy(self, model: nn.Module) -> Replica:
        replica = Replica(
            copy.deepcopy(model).to(self.device.dtype).train(),
            torch.zeros_like(self._shared),
            torch.Generator(),
        )
        self.weights.attach(replica.model, self._shared, replica.gradients)
        for module in replica.model.modules():
            if isinstance(module, Dropout):
                module.generator = replica.generator
        return replica

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While the copies work, torch's own threads rest; they would fight for the cores."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads_each)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def map(
        self, function: Callable[[Replica, Item], Answer], items: Sequence[Item]
    ) -> list[Answer]:
        """function(copy i, item i), at the same time, for at most as many items as copies."""
        if self._pool is None:
            return [function(replica, item) for replica, item in zip(self.copies, items)]
        return list(self._pool.map(function, self.copies, items))

    def accumulate_gradients(self, batch: Batch, micro_batch_size: int, step: int) -> float:
        """The gradient of a batch into `weights.gradients`, some windows at a time.

        Each window weighs by its targets, so that the sum is the gradient of the mean loss of
        the whole batch, short windows and a short last group included. Where an accelerator runs
        out of memory, the batch begins anew with half as many at a time, which then stays so.

        Args:
            batch: (B, T) inputs and targets.
            micro_batch_size: windows in memory at once; 0 takes all.
            step: with the seed, names the dropout masks.

        Returns:
            That mean loss, in nats.
        """
        n_windows, n_targets = len(batch.inputs), int((batch.targets != IGNORED).sum())
        at_once = min(micro_batch_size or n_windows, self.fitting_windows or n_windows)
        size = -(-at_once // len(self.copies))

        def compute(replica: Replica, first: int) -> float:
            replica.gradients.zero_()
            replica.generator.manual_seed(_mix(self.seed, step, first))
            inputs, targets = (
                torch.from_numpy(rows[first : first + size]).to(self.device.torch) for rows in batch
            )
            loss = next_token_loss(replica.model(inputs), targets, reduction="sum") / n_targets
            loss.backward()
            return loss.item()

        self.weights.gradients.zero_()
        total = 0.0
        firsts = range(0, n_windows, size)
        try:
            for number in range(0, len(firsts), len(self.copies)):
                together = firsts[number : number + len(self.copies)]
                total += sum(self.map(compute, together))
                for replica in self.copies[: len(together)]:
                    self.weights.gradients.add_(replica.gradients)
            return total
        except torch.OutOfMemoryError:
            if at_once <= len(self.copies):
                raise
            self.fitting_windows = -(-at_once // 2)
        # Out here the error, and with it what the step had in memory, is gone.
        return self.accumulate_gradients(batch, micro_batch_size, step)

    def refresh(self) -> None:
        """Give the copies the weights as they are now."""
        if self._shared is not self.weights.values:
            self._shared.copy_(self.weights.values)

    def _begin_thread(self) -> None:
        torch.set_num_threads(self.threads_each)
        torch.set_flush_denormal(True)


def _mix(*numbers: int) -> int:
    """A 63-bit whole number that looks random, the same for the same numbers."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
