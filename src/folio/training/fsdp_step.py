"""A training step by several processes, none of which has the whole model (FSDP2).

For a model that does not fit into one card with its gradients. torch divides each parameter by rows
among the processes, and puts together those of a block for as long as it computes:

    rank 0                              rank 1
    ------                              ------
    windows 0 1 2                       windows 3 4 5
    for each block:  ============== all-gather of its weights ==============
      forward                             forward
    for each block, from the last:  ===== all-gather of its weights ========
      backward                            backward
                     ============== reduce-scatter of its gradients ========
    ============ all-reduce of (loss, "stop?", "save?", squares of the gradients) ============
    clip, update own rows               clip, update own rows          (sharded_optimizer.py)

The whole model is in the main memory of the first process alone, which gives the others their rows
when training begins, and takes up all weights for a checkpoint, so a checkpoint is the same as of
one process. In training no other process, and no card, has more than its rows and a block or two.

Source: Zhao et al. 2023, https://arxiv.org/abs/2304.11277;
https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html.

Shapes:  B windows in a batch · T context length
"""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false, reportUnknownMemberType=false
# (torch documents its operations on lists of tensors, but under private names.)

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from folio.accelerator import to_device
from folio.device import Device
from folio.errors import UserError
from folio.evaluation.score import Score, Window, places_of, score
from folio.tokenizers.base import TokenIds
from folio.tokens.ignored import IGNORED
from folio.tokens.stream import Batch
from folio.training.config import OptimizerConfig, TrainingConfig
from folio.training.distributed import Processes, add_up_nll
from folio.training.fsdp_rows import Rows, own_rows, rows_of
from folio.training.gradients import gradient_of, gradients_of, require_gradients, total_norm
from folio.training.objective import Loss, usual_loss
from folio.training.seeds import dropout_seed
from folio.training.sharded_optimizer import ShardedOptimizer
from folio.training.step import Gradient


class FSDPStep:
    """A Step by processes that divide weights, gradients and optimizer state."""

    n_workers, peak_bytes, fitting_windows, loss_scale = 1, 0, 0, 1.0

    def __init__(
        self,
        model: nn.Module,
        device: Device,
        config: TrainingConfig,
        optimizer_config: OptimizerConfig,
        group: Processes,
        seed: int,
    ) -> None:
        """Divide a model.

        Args:
            model: the whole model in float32, in main memory in the first process; in the others it
                has no values, on torch's meta device.
            device: where this process computes, and in which precision.
            config, optimizer_config: as in PlainStep.
            group: the processes.
            seed: with the step and the rank, names the dropout masks.

        Raises:
            UserError: the precision is float16, whose gradients would have to be scaled.
        """
        self.model, self.device, self.config = model, device, config
        self.group, self.seed = group, seed
        self.compute = without_values(model).train()
        _divide(self.compute, device)
        self.compute.to_empty(device=device.torch)
        self.parameters = list(self.compute.parameters())
        self.rows = Rows(group, device.torch)
        self.optimizer = ShardedOptimizer(optimizer_config, self.compute, group, self.rows, model)
        self.max_norm = optimizer_config.gradient_clip or math.inf
        self.loss: Loss = usual_loss(config.confidence_penalty)
        self.should_stop: Callable[[], bool] = lambda: False
        """Whether this process was asked to stop."""
        self.should_save: Callable[[], bool] = lambda: False
        """Whether a checkpoint is due by the clock of this process."""
        self.stopping, self.saving = False, False
        """The same of any process, which all know alike, after the same step."""
        self._has_begun = False

    def running(self) -> AbstractContextManager[None]:
        """Start nothing: the processes run."""
        return nullcontext()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the weights of the whole model, which the first process has; all must come here
        at the same time.

        Raises:
            WorkerError: a process died or hung before it came here.
        """
        assert not self._has_begun, "the whole model has older weights by now"
        self._has_begun = True
        for whole, own in zip(self.model.buffers(), self.compute.buffers()):
            if self.group.rank == 0:
                own.copy_(whole)
            self.group.broadcast(own, 0)
        for whole, divided in zip(self.model.parameters(), self.parameters):
            own_rows(divided).view(-1).copy_(self._rows_of_first(whole))
        self.rows.refresh()

    def _rows_of_first(self, whole: Tensor) -> Tensor:
        """(n,) the weights of a parameter that this process has, which the first process sends."""
        rank, world_size = self.group.rank, self.group.world_size
        if rank:
            start, stop = rows_of(whole.shape, rank, world_size)
            rows = torch.empty(stop - start)
            if len(rows):
                self.group.send(rows, 0, rank)
            return rows
        each = [
            whole.view(-1)[slice(*rows_of(whole.shape, n, world_size))] for n in range(world_size)
        ]
        for other, rows in enumerate(each):
            if other and len(rows):
                self.group.send(rows, 0, other)
        return each[0]

    def backward(self, batch: Batch, step: int) -> Gradient:
        """Compute the gradient of a batch, of which each process takes as many windows, since all
        must put each block together as often. Those that are missing have no targets. Memory that
        runs out is an error.
        """
        own, n_targets = self._own(batch), max(batch.n_targets, 1)
        self.compute.zero_grad(set_to_none=True)
        mask = step * self.group.world_size + self.group.rank  # another one for each process
        torch.manual_seed(dropout_seed(self.seed, mask))
        told = torch.zeros(4, device=self.device.torch)  # loss, stop, save, square of the norm
        for part in own.split(self.config.micro_batch_size or len(own.inputs)):
            inputs, targets = to_device(part, self.device.torch)  # each (B, T)
            with self.group.together():
                loss = self.loss(self.compute, inputs, targets) / n_targets
                loss.backward()
            told[0] += loss.detach()
        require_gradients(gradients_of(self.compute))
        told[1], told[2] = self.should_stop(), self.should_save()
        told[3] = total_norm(self._gradients()).square()
        self.group.all_reduce(told)
        loss, stop, save, square = map(float, told.cpu().numpy())
        self.stopping, self.saving = self.stopping or stop > 0, save > 0
        return Gradient(loss, math.sqrt(square))

    def _own(self, batch: Batch) -> Batch:
        """The windows of this process: as many as all others have."""
        n_windows, each = len(batch.inputs), -(-len(batch.inputs) // self.group.world_size)
        which = self.group.rank * each + np.arange(each)
        inputs, targets = (rows[which % n_windows] for rows in batch)
        targets[which >= n_windows] = IGNORED
        return Batch(inputs, targets)

    def _gradients(self) -> list[Tensor]:
        return [own_rows(gradient_of(p)) for p in self.parameters if p.requires_grad]

    def update(self, lr_scale: float, norm: float) -> None:
        """Clip the gradient and update the weights; all learn whether one would not be finite."""
        if norm > self.max_norm:
            torch._foreach_mul_(self._gradients(), self.max_norm / norm)
        self.optimizer.step(lr_scale)

    def score(
        self,
        tokens: TokenIds,
        windows: list[Window],
        protocol: str,
        nll: list[NDArray[np.float32]] | None = None,
    ) -> Score:
        """Measure the loss of windows: each process reads as many, maybe the first one again."""
        each = -(-len(windows) // self.group.world_size)
        first = min(self.group.rank * each, len(windows))
        own = windows[first : first + each]
        found = list[NDArray[np.float32]]()
        with self.group.together():
            filled = own + windows[:1] * (each - len(own))
            part = score(self.compute, tokens, filled, protocol, nll=found)
            cast(Any, self.compute).reshard()  # of the outermost layers, which backward needs soon
        nats = np.concatenate(found)[: sum(window.length for window in own)]
        of_targets = add_up_nll(self.group, windows, first, nats, self.device.torch)
        if nll is not None:
            nll.append(of_targets)
        targets = tokens[places_of(windows)]
        return Score.of(of_targets, targets, protocol, len(part.counts))

    def verify(self, batch: Batch) -> None:
        """Check nothing: what is trained is the only copy."""

    @contextmanager
    def gathered(self) -> Generator[None]:
        """Put weights and optimizer state together in the main memory of the first process, tensor
        by tensor; all must come here at the same time.

        Raises:
            WorkerError: a process died or hung before it came here.
        """
        with torch.no_grad(), self.group.together():
            for whole, divided in zip(self.model.parameters(), self.parameters):
                weights = cast(Any, divided).full_tensor()
                if self.group.rank == 0:
                    whole.copy_(weights)
        with self.optimizer.gathered():
            yield


def without_values(model: nn.Module) -> nn.Module:
    """A copy of a model whose parameters have a shape, and no values; tied ones stay tied, and
    frozen ones frozen.
    """
    empty: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, empty)


def _divide(model: nn.Module, device: Device) -> None:
    """Divide each block of a model, then what is around the blocks.

    Gradients are added up, not averaged, in float32.
    """
    from torch.distributed.device_mesh import DeviceMesh  # takes a second to load
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    if device.dtype == torch.float16:
        raise UserError(
            "training.sharding = full computes in float32 or bfloat16, got device.precision "
            "float16, whose gradients would have to be scaled. Give --device.precision float32."
        )
    # Of the group that is there: a new one would wait for processes that are not here yet.
    mesh = DeviceMesh.from_group(cast(Any, distributed.group.WORLD), device.torch.type)
    policy = MixedPrecisionPolicy()
    if device.dtype != torch.float32:
        policy = MixedPrecisionPolicy(param_dtype=device.dtype, reduce_dtype=torch.float32)
    for block in cast(nn.ModuleList, model.get_submodule("blocks")):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
