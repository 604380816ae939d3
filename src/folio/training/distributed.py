"""Several processes that train one model, on one machine or many, as torchrun starts them.

    torchrun --standalone --nproc-per-node 2 -m folio train recipe.toml --name ours

Each process has the whole model, and computes the gradient of its shard of each batch. All
gradients lie side by side in one buffer, which is added up over the processes; then each
moves its own weights, all in the same way, so that weights are never sent:

    rank 0                              rank 1
    ------                              ------
    batch -> windows 0 1 2              batch -> windows 3 4 5
    backward                            backward
    ============ all-reduce of (gradients, loss, "stop?", "save?") ============
    norm, clip, update                  norm, clip, update

The order of the text is that of one process, whatever their number, and so are the losses but for
rounding. Inside of a process any Step computes, the plain or the parallel one.

Shapes:  N parameters that learn · B windows in a batch · T context length
"""

# pyright: reportPrivateImportUsage=false, reportUnknownMemberType=false
# (torch.distributed has few types, and exports its stores from nowhere else.)

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from folio.errors import UserError
from folio.evaluation.score import Score, Window, places_of
from folio.tokenizers.base import TokenIds
from folio.tokens.stream import Batch
from folio.training.gradients import gradient_norm, gradient_of
from folio.training.objective import Loss
from folio.training.seeds import dropout_seed
from folio.training.state import Remembers
from folio.training.step import Gradient, Step
from folio.workers import WorkerError

TIMEOUT_SECONDS = 600.0
"""Seconds without an answer after which a process gives up; FOLIO_TIMEOUT overrides it."""
PREPARING = timedelta(days=1)
"""How long the others wait while the first process prepares the text."""
N_TOLD = 3
"""Numbers beside the gradients in what is added up."""
STOPPED = 75
"""Exit code of a run that was interrupted: a scheduler may start it again (EX_TEMPFAIL)."""


class Processes:
    """The processes, of which this is one."""

    def __init__(
        self,
        rank: int,
        world_size: int,
        store: distributed.Store,
        lasting: distributed.Store | None = None,
        n_here: int = 1,
    ) -> None:
        """Begin with a group that torch has initialized.

        Args:
            rank: of this process; 0 prepares, writes and speaks.
            world_size: how many there are.
            store: where each reads what any of them wrote.
            lasting: where those read it, too, that torchrun starts after these have failed.
            n_here: how many of them are on this machine.
        """
        self.rank, self.world_size, self.n_here, self.store = rank, world_size, n_here, store
        self.lasting = lasting or store
        self.has_told = False
        self.is_over = False
        """Whether their run has ended; for another one they meet again."""
        self.is_broken = False
        """Whether one of them is known to have died, so that nothing can be done together."""

    def note_run(self, name: str) -> None:
        """Keep the name of the run for those that are started after a failure."""
        self.lasting.set("folio run", name)

    def earlier_run(self) -> str | None:
        """The name that was kept, if any."""
        return self.lasting.get("folio run").decode() if self.lasting.check(["folio run"]) else None

    def tell(self, message: dict[str, Any]) -> None:
        """Give the others a message: once."""
        self.has_told = True
        self.store.set("message", json.dumps(message))

    def hear(self) -> dict[str, Any]:
        """Wait for the message of the first process."""
        self.store.wait(["message"], PREPARING)
        return json.loads(self.store.get("message"))

    def all_reduce(self, tensor: Tensor, operation: Any = distributed.ReduceOp.SUM) -> None:
        """Add up a tensor over all processes, in place; or whatever the operation says.

        Raises:
            WorkerError: one of them died or hung.
        """
        with self.together():
            distributed.all_reduce(tensor, operation)

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Overwrite a tensor by that of one process, in all of them; errors as `all_reduce`."""
        with self.together():
            distributed.broadcast(tensor, source)

    def send(self, tensor: Tensor, source: int, to: int) -> None:
        """Send a tensor in main memory from one process to another, where it is overwritten; to be
        called by these two. Errors as `all_reduce`.
        """
        with self.together():
            if self.rank == source:
                distributed.send(tensor, to)
            else:
                distributed.recv(tensor, source)

    def all_to_all(self, parts: list[Tensor], sizes: list[int]) -> list[Tensor]:
        """Give each process a flat tensor, and get one of each.

        Args:
            parts: for each process what it gets.
            sizes: of what comes from each process.

        Raises:
            WorkerError: one of them died or hung.
        """
        coming = parts[0].new_empty(sum(sizes))
        with self.together():
            going = [len(part) for part in parts]
            distributed.all_to_all_single(coming, torch.cat(parts), sizes, going)
        return [*torch.split(coming, sizes)]

    @contextmanager
    def together(self) -> Generator[None]:
        """Do within this context what all processes must do.

        Raises:
            WorkerError: one of them died or hung.
        """
        try:
            yield
        except RuntimeError as error:
            if "gloo" not in str(error) and not isinstance(error, distributed.DistError):
                raise  # of this process alone
            self.is_broken = True
            raise WorkerError(
                f"{self._missing()} of the {self.world_size} that train together died or hung "
                f"({str(error).splitlines()[0][:120]}). Started again, they go on from the last "
                f"checkpoint, in any number: torchrun ... -m folio resume"
            ) from None

    def _missing(self) -> str:
        """Name the processes that do not notice, within a moment, that something is wrong."""
        with suppress(RuntimeError):  # the store may have gone with the first process
            self.store.set(f"noticed {self.rank}", "")
            time.sleep(2.0)
            others = range(self.world_size)
            if silent := [str(r) for r in others if not self.store.check([f"noticed {r}"])]:
                return f"Process {', '.join(silent)}"
        return "One"


def is_launched() -> bool:
    """Whether torchrun or a scheduler started this process, alone or as one of several: then it is
    told how a run ended by an exit code, and may start the same command again.
    """
    return "WORLD_SIZE" in os.environ


_joined: Processes | None = None
_n_runs = 0
"""Runs for which the processes have met, each with keys of its own in their store."""


def joined() -> Processes | None:
    """The processes that this one has met last; None where it is alone."""
    return _joined


def join() -> Processes | None:
    """Meet the processes that torchrun started with this one; None where it is alone.

    A program may train several runs, one after the other: for each the processes meet anew, once
    the first one has ended the run before.

    Raises:
        UserError: the variables by which they find each other are incomplete.
    """
    global _joined, _n_runs
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return _joined
    if _joined is not None and not _joined.is_over:
        return _joined
    lacking = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if lacking:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(lacking)} must be set too. "
            f"Start the processes with: torchrun --nproc-per-node 2 -m folio train ..."
        )
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    lasting = _joined.lasting if _joined else _lasting_store(rank)
    # After a restart the addresses of the processes that died stand in the agent's store still.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = distributed.PrefixStore(f"folio attempt {attempt} run {_n_runs}", lasting)
    if _n_runs:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        if rank:  # the first one still has to write what follows the training before
            store.wait(["here"], PREPARING)
        else:
            store.set("here", "")
    _n_runs += 1
    timeout = timedelta(seconds=float(os.environ.get("FOLIO_TIMEOUT", TIMEOUT_SECONDS)))
    distributed.init_process_group(
        _backend(), store=store, rank=rank, world_size=world_size, timeout=timeout
    )
    _joined = Processes(rank, world_size, store, lasting, _processes_here())
    return _joined


def _lasting_store(rank: int) -> distributed.TCPStore:
    """The store of torchrun's agent; else the first process has one."""
    is_server = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return distributed.TCPStore(*address, is_master=is_server, wait_for_workers=False)


def _backend() -> str:
    """NCCL between cards, of which it wants one for each process; gloo between processors."""
    has_nccl = torch.cuda.is_available() and distributed.is_nccl_available()
    has_cards = has_nccl and _processes_here() <= torch.cuda.device_count()
    return "cpu:gloo,cuda:nccl" if has_cards else "gloo"


def _processes_here() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def leave() -> None:
    """Part, after the last gradient; what follows is done by the first process alone."""
    if _joined is not None:
        _joined.is_over = True
        if distributed.is_initialized():
            distributed.destroy_process_group()


class DistributedStep:
    """A Step by several processes, in each of which another Step computes."""

    def __init__(
        self,
        step: Step,
        model: nn.Module,
        group: Processes,
        seed: int,
        vocab_size: int,
        should_stop: Callable[[], bool] = lambda: False,
        should_save: Callable[[], bool] = lambda: False,
    ) -> None:
        """Put the parts together.

        Args:
            step: of this process.
            model: whose parameters it moves.
            group: of the processes.
            seed: with the step and the rank, names the dropout masks.
            vocab_size: of the model.
            should_stop: whether this process was asked to stop.
            should_save: whether a checkpoint is due by the clock of this process.
        """
        self.step, self.group = step, group
        self.should_stop, self.should_save = should_stop, should_save
        self.seed, self.vocab_size = seed, vocab_size
        self.stopping = False
        """Whether any process was asked to stop: all know it after the same step."""
        self.saving = False
        """Whether a checkpoint is due by the clock of any process, which all know alike."""
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._sizes = [p.numel() for p in self.parameters]
        self._flat = self.parameters[0].detach().new_zeros(sum(self._sizes) + N_TOLD)
        """(N + 3,) gradients; the loss, and how many were asked to stop, and want to save."""

    @property
    def n_workers(self) -> int:
        """Workers of this process that share its part of a batch, itself included."""
        return self.step.n_workers

    @property
    def fitting_windows(self) -> int:
        """Windows that fit into the memory of this process; 0 before it is known."""
        return self.step.fitting_windows

    @property
    def peak_bytes(self) -> int:
        """Peak memory of the workers of this process together in bytes; 0 where it is unknown."""
        return self.step.peak_bytes

    @property
    def loss_scale(self) -> float:
        """What this process multiplies the loss by."""
        return self.step.loss_scale

    @loss_scale.setter
    def loss_scale(self, scale: float) -> None:
        self.step.loss_scale = scale

    @property
    def optimizer(self) -> Remembers:
        """The optimizer of this process, whose state is that of all others."""
        return self.step.optimizer

    @property
    def loss(self) -> Loss:
        """The loss that each process minimizes on its share."""
        return self.step.loss

    @loss.setter
    def loss(self, loss: Loss) -> None:
        self.step.loss = loss

    @contextmanager
    def running(self) -> Generator[None]:
        """Compare the weights of all processes, then keep the workers running in this context."""
        with self.step.running():
            require_same_weights(self.group, self.parameters)
            yield

    def refresh(self) -> None:
        """Take over the model's weights, in the step of this process."""
        self.step.refresh()

    def backward(self, batch: Batch, step: int) -> Gradient:
        """Compute the gradient of a batch, of which each process takes some windows, or none."""
        rank, world_size, n_windows = self.group.rank, self.group.world_size, len(batch.inputs)
        share = slice(n_windows * rank // world_size, n_windows * (rank + 1) // world_size)
        own = Batch(*(rows[share] for rows in batch))
        weight, loss = own.n_targets / max(batch.n_targets, 1), 0.0
        *gradients, told = torch.split(self._flat, [*self._sizes, N_TOLD])
        self._flat.zero_()
        if weight:
            mask = step * world_size + rank  # another one for each process
            torch.manual_seed(dropout_seed(self.seed, mask))  # for the plain step, and on a GPU
            loss = self.step.backward(own, mask).loss
            torch.cat([gradient_of(p).flatten() for p in self.parameters], out=self._flat[:-N_TOLD])
            self._flat.mul_(weight)
        told.copy_(torch.tensor([loss * weight, self.should_stop(), self.should_save()]))
        self.group.all_reduce(self._flat)
        for p, gradient in zip(self.parameters, gradients):
            if p.grad is None:
                p.grad = torch.empty_like(p)
            p.grad.copy_(gradient.view(p.shape))
        found = torch.cat([told, gradient_norm(self.parameters)[None]])
        loss, stop, save, norm = map(float, found.cpu().numpy())
        self.stopping, self.saving = self.stopping or stop > 0, save > 0
        return Gradient(loss, norm)

    def update(self, lr_scale: float, norm: float) -> None:
        """Clip the gradient and update the weights, in all processes alike."""
        self.step.update(lr_scale, norm)

    def score(
        self,
        tokens: TokenIds,
        windows: list[Window],
        protocol: str,
        nll: list[NDArray[np.float32]] | None = None,
    ) -> Score:
        """Measure the loss of windows, none of which may skip targets: each process reads some."""
        n, rank, world_size = len(windows), self.group.rank, self.group.world_size
        first, last = n * rank // world_size, n * (rank + 1) // world_size
        found: list[NDArray[np.float32]] = [np.zeros(0, np.float32)]
        if last > first:
            self.step.score(tokens, windows[first:last], protocol, found)
        of_targets = add_up_nll(
            self.group, windows, first, np.concatenate(found), self._flat.device
        )
        if nll is not None:
            nll.append(of_targets)
        return Score.of(of_targets, tokens[places_of(windows)], protocol, self.vocab_size)

    def verify(self, batch: Batch) -> None:
        """Check what this process trains, and that all have the same weights."""
        self.step.verify(batch)
        require_same_weights(self.group, self.parameters)


def require_same_weights(group: Processes, parameters: Sequence[Tensor]) -> None:
    """Compare the weights of all processes, to the bit; all must come here.

    Raises:
        UserError: a process has other weights than the rest.
    """
    bits = [p.detach().view(torch.int32).sum(dtype=torch.int64) for p in parameters]
    numbers = torch.stack(bits)
    largest = torch.cat([numbers, -numbers])
    group.all_reduce(largest, distributed.ReduceOp.MAX)
    above, below = largest.chunk(2)
    if not torch.equal(above, -below):
        raise UserError(
            "The processes that train together have come to different weights, as machines of "
            "different kinds do. Start them on machines of one kind; they go on from the last "
            "checkpoint: torchrun ... -m folio resume"
        )


def add_up_nll(
    group: Processes,
    windows: list[Window],
    first: int,
    own: NDArray[np.float32],
    device: torch.device,
) -> NDArray[np.float32]:
    """Put together what each process has read of some windows.

    Args:
        group: all of which come here.
        windows: none of which skips targets.
        first: number of the first window that this process has read.
        own: (m,) the nats of the targets that it has read, which lie side by side.
        device: where it computes.

    Returns:
        (n,) the nats of all targets.
    """
    assert not any(window.skip for window in windows)
    before = sum(window.length for window in windows[:first])
    each = torch.zeros(sum(window.length for window in windows), device=device)
    each[before : before + len(own)] = torch.from_numpy(own).to(device)
    group.all_reduce(each)
    return each.cpu().numpy()
