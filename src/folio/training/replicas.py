"""Copies of a model that share its weights and compute a batch side by side.

On a processor each has a core of its own. Threads that share every single operation wait for
each other hundreds of times in a step, and each wait is long when another program takes a core
for a moment; workers that share the windows of a batch wait once.

The copies compute in the precision of the device; the weights that the optimizer changes,
and the sum of the gradients, stay in float32 (https://arxiv.org/abs/1710.03740).

Shapes:  B windows in a batch · T context length · V vocabulary · N weights
"""

from __future__ import annotations

import copy
import gc
import hashlib
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from folio.device import Device, keep_freed_memory, return_freed_memory
from folio.evaluation.parallel import split_windows
from folio.evaluation.score import Score, Window, score
from folio.fast import calls, int8
from folio.fast import loss as fast_loss
from folio.fast.accelerate import accelerate, is_known
from folio.fast.int8 import Int8Weight
from folio.fast.layers import FastLinear
from folio.model.dropout import Dropout
from folio.tokenizers.base import TokenIds
from folio.tokens.stream import Batch
from folio.training.step import Loss, ran_out_of_memory
from folio.training.tape import MOST_BYTES, Taped
from folio.training.weights import Weights, new_row
from folio.workers import Task, WorkerPool, forks, make_pool

Work = Callable[["Replica", Any], Any]
"""(copy, item) -> answer."""


def fast_loss_of(confidence_penalty: float = 0.0) -> Loss:
    """Make the loss of `usual_loss`, forward and backward in one pass each."""

    def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        if confidence_penalty:
            return fast_loss.penalized_loss(model(inputs), targets, confidence_penalty)
        return fast_loss.next_token_loss(model(inputs), targets, reduction="sum")

    return loss


@dataclass(frozen=True)
class Replica:
    """One copy."""

    number: int
    """From 0."""
    n_copies: int
    """How many there are."""
    model: nn.Module
    gradients: Tensor
    """(N,) of its share of the batch, in its own precision."""
    generator: torch.Generator
    """Draws its dropout masks."""
    differentiate: Taped
    """(B, T) inputs and targets, weight -> the loss summed over the targets, whose gradient times
    the weight is then in `gradients`."""

    def part_of(self, row: Tensor) -> Tensor:
        """What of a row falls to this one when all copies work on it."""
        return row[part(len(row), self.number, self.n_copies)]


class Share(NamedTuple):
    """What a copy computes of a batch."""

    batch: Batch
    n_targets: int
    """Of the whole batch."""
    dropout_seed: int
    begins: bool
    """Whether the sum of gradients begins with this share and those beside it."""
    n_together: int
    """Shares side by side, of which the first copies have one each."""


class Computed(NamedTuple):
    """What a copy computed."""

    loss: float
    """Its part of the loss of the batch."""
    share: Share


class Gradient(NamedTuple):
    """Of a batch; or what a part of it adds to both."""

    loss: float
    """The mean loss of the batch, in nats."""
    square: float
    """The squared length of its gradient."""


class Replicas:
    """The copies, and the weights that they share."""

    def __init__(self, model: nn.Module, device: Device, at_most: int, seed: int) -> None:
        """
        Args:
            model: its parameters become views of `weights`.
            device: where the copies compute, in which precision, on how many threads.
            at_most: copies that are of use: the windows in a batch.
            seed: names the series of dropout masks.

        Raises:
            UserError: this machine does not have that precision.
        """
        if device.config.precision == "int8":
            int8.require()
        self.weights, self.device, self.seed = Weights(model, device.dtype), device, seed
        self.loss: Loss = fast_loss_of()  # another may be put here before the copies are at work
        self.fitting_windows = 0
        """Windows in memory at once that proved to fit, after more of them did not; 0 before."""
        self.peak_bytes = 0
        """Most memory of all workers together, once they have been at work."""
        n = min(device.config.threads, at_most) if device.config.kind == "cpu" else 1
        self._int8_weights: dict[str, Int8Weight] = {}
        length, place = len(self.weights.values), self.weights.values.device
        self._gradients = new_row(n * length, device.dtype, place).view(n, length)
        self.copies = [self._copy(number, n, model) for number in range(n)]
        self._tasks: list[Task] = []
        self._pool: WorkerPool | None = None
        self._refresh = self.task(self._refresh_part, *self.after_a_move)
        self._add_share = self.task(self._compute_share, self._add_up_part)
        self._score_share = self.task(_score_share)

    @property
    def after_a_move(self) -> list[Work]:
        """What is left to do once the weights have moved, and `weights.working` with them."""
        return [self._refresh_bytes] if self._int8_weights else []

    def _copy(self, number: int, n_copies: int, model: nn.Module) -> Replica:
        mine = copy.deepcopy(model).to(self.device.dtype).train()
        captures = is_known(mine)
        mine = accelerate(mine)
        self.weights.attach(mine, self.weights.working)
        generator = torch.Generator()
        for name, module in mine.named_modules():
            if isinstance(module, Dropout):
                module.generator = generator
            learns_in_int8 = self.device.config.precision == "int8" and name.startswith("blocks.")
            if isinstance(module, FastLinear) and learns_in_int8:
                module.int8_weight = self._int8_weight(name, module.weight)
        gradients = self._gradients[number]
        most_bytes = MOST_BYTES if captures else 0  # what nobody knows is asked each time
        differentiate = Taped(partial(self._differentiate, mine, gradients), most_bytes)
        return Replica(number, n_copies, mine, gradients, generator, differentiate)

    def _int8_weight(self, name: str, weight: Tensor) -> Int8Weight:
        """That of a layer, one for all copies."""
        if name not in self._int8_weights:
            zeros = partial(new_row, device=weight.device)
            self._int8_weights[name] = Int8Weight(weight.detach(), zeros)
        return self._int8_weights[name]

    def _differentiate(
        self, model: nn.Module, gradients: Tensor, inputs: Tensor, targets: Tensor, weight: Tensor
    ) -> Tensor:
        loss = self.loss(model, inputs, targets)
        self.weights.gather_gradients(loss, weight, model, gradients)
        return loss.detach()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While this lasts, each copy has a worker of its own, and torch's own threads rest; they
        would fight for the cores."""
        n, threads = len(self.copies), torch.get_num_threads()
        self._begin_work()
        self._pool = make_pool(n, self._tasks, self._begin_work) if n > 1 else None
        try:
            yield
        finally:
            if self._pool is not None:
                self.peak_bytes = self._pool.close()
            self._pool = None
            torch.set_flush_denormal(False)
            torch.set_num_threads(threads)
            for replica in self.copies:
                replica.differentiate.forget()
            return_freed_memory()

    def _begin_work(self) -> None:
        n, threads = len(self.copies), self.device.config.threads
        # Forked workers have one thread each (workers.py), and rank 0 as many as they.
        torch.set_num_threads(1 if n > 1 and forks() else threads // n)
        torch.set_flush_denormal(True)
        keep_freed_memory()

    def task(self, *works: Work) -> Callable[[Sequence[Any]], list[Any]]:
        """Teach the copies something, before they are at work.

        Args:
            works: done one after the other. Each begins when all copies are done with the one
                before it, whose answer is its item. The first items and the last answers are sent
                between processes.

        Returns:
            items -> answers: item i is for copy i, at the same time while they are at work; at
            most as many items as copies.
        """
        assert self._pool is None, "the copies are at work already"
        number = len(self._tasks)
        task = [lambda i, item, work=work: work(self.copies[i], item) for work in works]
        self._tasks.append(task)

        def run(items: Sequence[Any]) -> list[Any]:
            if self._pool is not None:
                return self._pool.run(number, items)
            for work in task:
                items = [work(i, item) for i, item in enumerate(items)]
            return list(items)

        return run

    def accumulate_gradients(self, batch: Batch, micro_batch_size: int, step: int) -> Gradient:
        """The gradient of a batch into `weights.gradients`, some windows at a time.

        Each window weighs by its targets, so that the sum is the gradient of the mean loss of
        the whole batch, short windows and a short last group included. Where memory runs out,
        the batch begins anew with half as many at a time, which then stays so.

        Args:
            batch: (B, T) inputs and targets.
            micro_batch_size: windows in memory at once; 0 takes all.
            step: with the seed, names the dropout masks.

        Returns:
            That mean loss, and how long the gradient is.
        """
        n_windows, n_targets = len(batch.inputs), max(1, batch.n_targets)
        at_once = min(micro_batch_size or n_windows, self.fitting_windows or n_windows)
        n, size = len(self.copies), -(-at_once // len(self.copies))
        firsts = range(0, n_windows, size)
        shares = [
            Share(
                Batch(*(rows[first : first + size] for rows in batch)),
                n_targets,
                _mix(self.seed, step, first),
                begins=number < n,
                n_together=min(n, len(firsts) - number // n * n),
            )
            for number, first in enumerate(firsts)
        ]
        try:
            parts = [self._add_share(shares[i : i + n]) for i in range(0, len(shares), n)]
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error) or at_once <= len(self.copies):
                raise
            self.fitting_windows = -(-at_once // 2)
        else:
            loss = sum(loss for group in parts for loss, _ in group)
            return Gradient(loss, sum(square for _, square in parts[-1]))
        gc.collect()  # the error and its traceback, which hold what the step had in memory
        return self.accumulate_gradients(batch, micro_batch_size, step)

    def _compute_share(self, replica: Replica, share: Share) -> Computed:
        """The gradient of some windows into the copy's."""
        replica.generator.manual_seed(share.dropout_seed)
        inputs, targets = (torch.from_numpy(rows).to(self.device.torch) for rows in share.batch)
        weight = torch.tensor(1 / share.n_targets, device=self.device.torch)
        loss = replica.differentiate(inputs, targets, weight).item() / share.n_targets
        return Computed(loss, share)

    def _add_up_part(self, replica: Replica, computed: Computed) -> Gradient:
        """A part of all copies' gradients into their sum, and the squared length of that."""
        share, n = computed.share, computed.share.n_together
        total = self.weights.gradients
        span = part(len(total), replica.number, n)
        return Gradient(computed.loss, add_up(self._gradients[:n], total, span, share.begins))

    def score(
        self,
        tokens: TokenIds,
        windows: list[Window],
        protocol: str,
        nll: list[NDArray[np.float32]] | None = None,
    ) -> Score:
        """As `evaluation.score`, each copy reading some of the windows."""
        parts = split_windows(tokens, windows, protocol, len(self.copies))
        items = [(*part, nll is not None) for part in parts]
        answers = self._score_share(items)
        if nll is not None:
            nll += [array for _, arrays in answers for array in arrays]
        return reduce(operator.add, (score for score, _ in answers))

    def refresh(self) -> None:
        """Give the copies the weights as they are now."""
        self._refresh([None] * len(self.copies))

    def _refresh_part(self, replica: Replica, _: Any) -> None:
        replica.part_of(self.weights.working).copy_(replica.part_of(self.weights.values))

    def _refresh_bytes(self, replica: Replica, _: Any) -> None:
        for int8_weight in list(self._int8_weights.values())[replica.number :: replica.n_copies]:
            int8_weight.refresh()


def _score_share(
    replica: Replica, item: tuple[TokenIds, list[Window], str, bool]
) -> tuple[Score, list[NDArray[np.float32]]]:
    tokens, windows, protocol, each = item
    nll: list[NDArray[np.float32]] = []
    return score(replica.model, tokens, windows, protocol, nll=nll if each else None), nll


def part(length: int, number: int, n: int) -> slice:
    """One of n parts of a row, which are about equally long."""
    return slice(length * number // n, length * (number + 1) // n)


def add_up(rows: Tensor, total: Tensor, span: slice, begins: bool) -> float:
    """Sum of rows.

    Args:
        rows: (R, N).
        total: (N,) float32, to which they are added, or which they become.
        span: the part to do.
        begins: whether it becomes the sum.

    Returns:
        The squared length of that part of the total.
    """
    if calls.serves(total):
        from folio.fast.kernels import training as kernels

        arrays = calls.arrays(rows, total)
        return float(kernels.add_up(*arrays, start=span.start, stop=span.stop, begins=begins))
    total = total[span]
    for number, row in enumerate(rows[:, span]):
        (total.copy_ if begins and number == 0 else total.add_)(row)
    return torch.linalg.vector_norm(total).item() ** 2


def _mix(*numbers: int) -> int:
    """A 63-bit whole number that looks random, the same for the same numbers."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
