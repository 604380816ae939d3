"""Data parallelism on one machine: each worker has a replica of the model and a shard of the batch.

Threads that share every operation wait for each other hundreds of times per step, and each wait is
long when another program takes a core for a moment; workers with windows of their own wait a few
times. The page of `folio.training.parallel` draws a step.

Shapes:  B windows in a batch · T context length · V vocabulary · N parameters
"""

from __future__ import annotations

import copy
import gc
import operator
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from folio.accelerator import ran_out_of_memory
from folio.device import Device
from folio.evaluation.parallel import split_windows
from folio.evaluation.score import Score, Window, score
from folio.fast import calls, int8
from folio.fast import loss as fast_loss
from folio.fast.accelerate import accelerate, is_known
from folio.fast.int8 import Int8Weight
from folio.fast.kernels import training as kernels
from folio.fast.layers import FastLinear
from folio.fast.untouched import listeners
from folio.model.dropout import Dropout
from folio.tokenizers.base import TokenIds
from folio.tokens.stream import Batch
from folio.training.objective import Loss
from folio.training.parallel.capture import MAX_BYTES, CapturedStep
from folio.training.parallel.flat_parameters import FlatParameters
from folio.training.seeds import dropout_seed
from folio.workers import (
    Task,
    WorkerPool,
    forks,
    keep_freed_memory,
    make_pool,
    return_freed_memory,
    shared_buffer,
)

Phase = Callable[["Replica", Any], Any]
"""(replica, message) -> answer, the message of the next phase."""


def fast_loss_of(confidence_penalty: float = 0.0) -> Loss:
    """Return the loss of `usual_loss` in fused kernels, forward and backward in one pass each."""

    def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        if confidence_penalty:
            return fast_loss.penalized_loss(model(inputs), targets, confidence_penalty)
        return fast_loss.next_token_loss(model(inputs), targets, reduction="sum")

    return loss


@dataclass(frozen=True)
class Replica:
    """The model of one worker, and everything that belongs to it alone."""

    rank: int
    world_size: int
    model: nn.Module
    """The replica; its parameters are views of the compute weights."""
    gradients: Tensor
    """(N,) gradient of its micro-batch, in the precision of the device."""
    generator: torch.Generator
    """The generator of its dropout masks."""
    backward: CapturedStep
    """Takes (B, T) inputs and targets and a weight, and returns the loss summed over the targets;
    `gradients` then has its gradient times the weight."""

    def seed(self, seed: int) -> None:
        """Begin the dropout masks of a micro-batch."""
        self.generator.manual_seed(seed)
        if not self.backward.max_bytes:  # code of others, which may draw from torch's own
            torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]

    def shard(self, flat: Tensor) -> Tensor:
        """Return the slice of a flat buffer that this worker processes."""
        return flat[shard(len(flat), self.rank, self.world_size)]


class MicroBatch(NamedTuple):
    """What one worker computes at once."""

    batch: Batch
    n_targets: int
    """Number of targets in the whole batch."""
    dropout_seed: int
    is_first: bool
    """Whether the sum of gradients begins in this round."""
    n_beside: int
    """Number of micro-batches in this round, one for each of the first workers."""


class Computed(NamedTuple):
    """The result of a worker's micro-batch."""

    loss: float
    """Its part of the batch's mean loss."""
    micro_batch: MicroBatch


class PartialGradient(NamedTuple):
    """A worker's part of the batch's mean loss, and of its gradient's squared norm."""

    loss: float
    squared_norm: float


class DataParallel:
    """The replicas, and the flat parameters that they share."""

    def __init__(self, model: nn.Module, device: Device, max_world_size: int, seed: int) -> None:
        """Make a replica for each thread of the device.

        Args:
            model: its parameters become views of the master weights.
            device: a CPU; the replicas compute in its precision.
            max_world_size: most replicas that are useful: the windows in a batch.
            seed: seeds the dropout masks.

        Raises:
            UserError: this machine does not have that precision.
        """
        if device.config.precision == "int8":
            int8.require()
        self.parameters = FlatParameters(model, device.dtype)
        self.device, self.seed = device, seed
        self.loss: Loss = fast_loss_of()
        self.fitting_windows = 0
        """Micro-batch size that fit into memory after a larger one did not; 0 before."""
        self.peak_bytes = 0
        """Peak memory of all workers together in bytes, once they have run."""
        n = min(device.config.threads, max_world_size)
        self._int8_weights: dict[str, Int8Weight] = {}
        n_parameters = len(self.parameters.master)
        flat = shared_buffer(n * n_parameters, device.dtype)
        self._gradients = flat.view(n, n_parameters)
        self.replicas = [self._replicate(rank, n, model) for rank in range(n)]
        self._tasks: list[Task] = []
        self._pool: WorkerPool | None = None
        self._refresh = self.task(self._refresh_phase, *self.after_update)
        self._backward = self.task(self._backward_phase, self._reduce_phase)
        self._score = self.task(_score_phase)

    @property
    def after_update(self) -> list[Phase]:
        """Phases that must run after the master and compute weights were updated."""
        return [self._quantize_phase] if self._int8_weights else []

    def _replicate(self, rank: int, world_size: int, model: nn.Module) -> Replica:
        plain = copy.deepcopy(model).to(self.device.dtype).train()
        max_bytes = MAX_BYTES if is_known(plain) else 0  # unknown code runs each time
        replica = accelerate(plain)
        self.parameters.attach(replica, self.parameters.compute)
        generator = torch.Generator()
        for name, module in cast("Iterator[tuple[str, nn.Module]]", replica.named_modules()):
            if isinstance(module, Dropout):
                module.generator = generator
            learns_in_int8 = self.device.config.precision == "int8" and name.startswith("blocks.")
            if isinstance(module, FastLinear) and learns_in_int8:
                module.int8_weight = self._int8_weight(name, module.weight)
        gradients = self._gradients[rank]
        differentiate = partial(self._differentiate, replica, gradients)
        backward = CapturedStep(differentiate, max_bytes, listeners(replica))
        return Replica(rank, world_size, replica, gradients, generator, backward)

    def _int8_weight(self, name: str, weight: Tensor) -> Int8Weight:
        """Return the int8 weights of a layer, which all replicas share."""
        if name not in self._int8_weights:
            self._int8_weights[name] = Int8Weight(weight.detach(), shared_buffer)
        return self._int8_weights[name]

    def _differentiate(
        self, model: nn.Module, gradients: Tensor, inputs: Tensor, targets: Tensor, weight: Tensor
    ) -> Tensor:
        loss = self.loss(model, inputs, targets)
        self.parameters.differentiate(loss, weight, model, gradients)
        return loss.detach()

    @contextmanager
    def running(self) -> Generator[None]:
        """Run one worker per replica within this context, while torch uses one thread, since both
        would fight for the cores.
        """
        n, threads = len(self.replicas), torch.get_num_threads()
        self._prepare()
        self._pool = make_pool(n, self._tasks, self._prepare) if n > 1 else None
        try:
            yield
        finally:
            if self._pool is not None:
                self.peak_bytes = self._pool.close()
            self._pool = None
            torch.set_flush_denormal(False)
            torch.set_num_threads(threads)
            for replica in self.replicas:
                replica.backward.reset()
            return_freed_memory()

    def _prepare(self) -> None:
        n, threads = len(self.replicas), self.device.config.threads
        # Forked workers have one thread each (workers.py), and rank 0 as many as they.
        torch.set_num_threads(1 if n > 1 and forks() else threads // n)
        torch.set_flush_denormal(True)
        keep_freed_memory()

    def task(self, *phases: Phase) -> Callable[[Sequence[Any]], list[Any]]:
        """Register a task that the workers can run; to be called before they start.

        Args:
            phases: run in order, with a barrier between any two. The answer of a phase is the
                message of the next; only the first messages and the last answers are sent between
                processes.

        Returns:
            A function messages -> answers: message i is for rank i, in parallel while workers run;
            at most as many messages as workers.
        """
        assert self._pool is None, "the workers run already"
        number = len(self._tasks)
        task = [partial(self._run, phase) for phase in phases]
        self._tasks.append(task)

        def run(messages: Sequence[Any]) -> list[Any]:
            if self._pool is not None:
                return self._pool.run(number, messages)
            for phase in task:
                messages = [phase(rank, message) for rank, message in enumerate(messages)]
            return list(messages)

        return run

    def _run(self, phase: Phase, rank: int, message: Any) -> Any:
        return phase(self.replicas[rank], message)

    def backward(self, batch: Batch, micro_batch_size: int, step: int) -> PartialGradient:
        """Compute the gradient of a batch into `parameters.gradients`.

        Each window is weighted by its targets, so that the sum is the gradient of the mean loss of
        the whole batch, even with short windows and a small last micro-batch. If memory runs out,
        the batch starts again with half the micro-batch size, which is then kept.

        Args:
            batch: (B, T) inputs and targets.
            micro_batch_size: windows in memory at once; 0 takes the whole batch.
            step: seeds the dropout masks, with the seed.

        Returns:
            That mean loss, and the squared norm of the gradient.
        """
        n = len(self.replicas)
        micro_batches = self.split(batch, micro_batch_size, step)
        try:
            rounds = range(0, len(micro_batches), n)
            found = [self._backward(micro_batches[i : i + n]) for i in rounds]
        except (MemoryError, RuntimeError) as error:
            at_once = self._at_once(batch, micro_batch_size)
            if not ran_out_of_memory(error) or at_once <= n:
                raise
            self.fitting_windows = -(-at_once // 2)
        else:
            loss = sum(loss for group in found for loss, _ in group)
            return PartialGradient(loss, sum(square for _, square in found[-1]))
        gc.collect()  # frees the error and its traceback, which hold the step's memory
        return self.backward(batch, micro_batch_size, step)

    def split(self, batch: Batch, micro_batch_size: int, step: int) -> list[MicroBatch]:
        """Split a batch into what the workers compute at once; arguments as for `backward`."""
        n, n_targets = len(self.replicas), max(1, batch.n_targets)
        size = -(-self._at_once(batch, micro_batch_size) // n)
        parts = batch.split(size)
        return [
            MicroBatch(
                part,
                n_targets,
                dropout_seed(self.seed, step, i * size),
                is_first=i < n,
                n_beside=min(n, len(parts) - i // n * n),
            )
            for i, part in enumerate(parts)
        ]

    def _at_once(self, batch: Batch, micro_batch_size: int) -> int:
        n_windows = len(batch.inputs)
        return min(micro_batch_size or n_windows, self.fitting_windows or n_windows)

    def _backward_phase(self, replica: Replica, micro_batch: MicroBatch) -> Computed:
        """Compute the gradient of a micro-batch into the replica's own buffer."""
        replica.seed(micro_batch.dropout_seed)
        inputs, targets = map(torch.as_tensor, micro_batch.batch)
        weight = torch.tensor(1 / micro_batch.n_targets)
        loss = replica.backward(inputs, targets, weight).item() / micro_batch.n_targets
        return Computed(loss, micro_batch)

    def _reduce_phase(self, replica: Replica, computed: Computed) -> PartialGradient:
        """Add up a shard of all replicas' gradients, and compute its squared norm."""
        micro_batch, n = computed.micro_batch, computed.micro_batch.n_beside
        total = self.parameters.gradients
        own = shard(len(total), replica.rank, n)
        squared_norm = add_up(self._gradients[:n], total, own, micro_batch.is_first)
        return PartialGradient(computed.loss, squared_norm)

    def score(
        self,
        tokens: TokenIds,
        windows: list[Window],
        protocol: str,
        nll: list[NDArray[np.float32]] | None = None,
    ) -> Score:
        """Measure a loss as `evaluation.score` does, with some of the windows on each replica."""
        shares = split_windows(tokens, windows, protocol, len(self.replicas))
        answers = self._score([(*share, nll is not None) for share in shares])
        if nll is not None:
            nll += [array for _, arrays in answers for array in arrays]
        return reduce(operator.add, (score for score, _ in answers))

    def refresh(self) -> None:
        """Take over the current master weights."""
        self._refresh([None] * len(self.replicas))

    def _refresh_phase(self, replica: Replica, _: Any) -> None:
        replica.shard(self.parameters.compute).copy_(replica.shard(self.parameters.master))

    def _quantize_phase(self, replica: Replica, message: Any) -> Any:
        """Round the worker's share of the int8 weights; hands on what the phase before it said."""
        weights = list(self._int8_weights.values())
        for int8_weight in weights[replica.rank :: replica.world_size]:
            int8_weight.refresh()
        return message


def _score_phase(
    replica: Replica, message: tuple[TokenIds, list[Window], str, bool]
) -> tuple[Score, list[NDArray[np.float32]]]:
    tokens, windows, protocol, each = message
    nll: list[NDArray[np.float32]] = []
    return score(replica.model, tokens, windows, protocol, nll=nll if each else None), nll


def shard(length: int, rank: int, world_size: int) -> slice:
    """Return one of `world_size` slices of a buffer, of about equal length."""
    return slice(length * rank // world_size, length * (rank + 1) // world_size)


def add_up(gradients: Tensor, total: Tensor, shard: slice, is_first: bool) -> float:
    """Add up a shard of the gradients of several replicas.

    Args:
        gradients: (R, N), gradients of R replicas.
        total: (N,) float32, the sum so far, updated in place.
        shard: the slice to add up.
        is_first: whether to overwrite `total` instead of adding to it.

    Returns:
        The squared norm of that shard of the total.
    """
    arrays = calls.arrays(gradients, total)
    return float(kernels.add_up(*arrays, start=shard.start, stop=shard.stop, begins=is_first))
