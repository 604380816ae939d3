"""One run by several processes: the first leads it, the others follow.

The first process prepares the text, writes the run and tells the others where it is; they wait for
that, read it and train along. What is told, drawn and evaluated at the end is its work alone.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from folio.device import choose_device
from folio.errors import UserError
from folio.recipe.finish import Result
from folio.recipe.recipe import Recipe, read_recipe
from folio.recipe.reopen import reopen
from folio.recipe.restore import restore
from folio.recipe.watcher import Observers, Watcher
from folio.run.diagnosis import Diagnosis
from folio.run.directory import Run
from folio.training.distributed import DistributedStep, Processes, leave
from folio.training.fsdp_step import FSDPStep
from folio.training.loop import train
from folio.training.parts import Ending, Observer, Training
from folio.training.saving import SaveTimer
from folio.training.sharded_optimizer import ShardedOptimizer
from folio.training.state import TrainingState


@contextmanager
def leading(group: Processes | None) -> Iterator[None]:
    """Have the others end, too, where this process ends before there is anything to train; behind
    it the run of these processes is over.
    """
    try:
        yield
    except BaseException as error:
        if group is not None and not group.has_told:
            group.tell({"error": str(error)})
        raise
    else:
        if group is not None and not group.has_told:
            group.tell({"complete": True})
    finally:
        if group is not None:
            group.is_over = True


def follow(group: Processes, should_stop: Callable[[], bool]) -> Result | None:
    """Train along with the first process.

    Returns:
        How it ended, without what the first process alone finds out; None where nothing is left
        to train.

    Raises:
        UserError: this process cannot do what the first one can.
        SystemExit: the first one has told what is wrong.
    """
    try:
        return _follow(group, should_stop)
    finally:
        group.is_over = True


def _follow(group: Processes, should_stop: Callable[[], bool]) -> Result | None:
    told = group.hear()
    if "error" in told:
        raise SystemExit(2)
    if "complete" in told:
        return None
    run = Run(Path(told["run"]))
    try:
        if not run.exists():
            raise UserError(
                f"{run.path} is not there. All machines must see the folder of the run: name one "
                f"that they share, as with FOLIO_RUNS"
            )
        recipe = read_recipe(run)
        training = reopen(run, recipe, choose_device(recipe.device), group)
        state, _ = restore(run, training)
        if state.step != told["step"]:
            raise UserError(
                f"it finds step {state.step} of {run.path} where the first one has {told['step']}"
            )
        state.stale_evaluations = told["stale_evaluations"]
    except UserError as error:
        raise UserError(
            f"process {group.rank} of {group.world_size}, on {socket.gethostname()}: {error}"
        ) from error
    ending = train_along(group, recipe, training, state, Watcher(), should_stop)
    return Result(run, ending, state, Diagnosis("too early", "", ""), "", [])


def train_along(
    group: Processes | None,
    recipe: Recipe,
    training: Training,
    state: TrainingState,
    observer: Observer,
    should_stop: Callable[[], bool],
) -> Ending:
    """Train, alone or as one of several processes.

    Args:
        group: of processes; None for this one alone.
        recipe, training, state: the same in all of them.
        observer: what this one does beside.
        should_stop: whether this one was asked to stop; then all do.
    """
    timer = SaveTimer(training.config.save_minutes)
    observer = Observers(observer, timer)
    if group is None:
        return train(training, state, observer, should_stop, timer.is_due)
    step, own, seed = training.step, training.step.optimizer, recipe.seed
    if isinstance(step, FSDPStep):
        step.should_stop, step.should_save = should_stop, timer.is_due
        observer = Gathered(observer, step, group)
    else:
        if isinstance(own, ShardedOptimizer):
            observer = Gathered(observer, own, group)
        model, n_ids = training.model, recipe.model.vocab_size
        step = DistributedStep(step, model, group, seed, n_ids, should_stop, timer.is_due)
    parts = replace(training, step=step)
    try:
        return train(parts, state, observer, lambda: step.stopping, lambda: step.saving)
    finally:
        leave()


class Gathered(Observers):
    """Has what the processes divide put together before an observer saves it."""

    def __init__(
        self, observer: Observer, parts: FSDPStep | ShardedOptimizer, group: Processes
    ) -> None:
        super().__init__(observer)
        self.parts, self.group = parts, group

    def save(self, state: TrainingState) -> None:
        """Save; nothing where a process is gone, since its part is, too."""
        if not self.group.is_broken:
            with self.parts.gathered():
                super().save(state)


def require_steps(group: Processes | None, is_timed: bool) -> None:
    """Refuse a budget in minutes where several processes train: each has a clock of its own.

    Raises:
        UserError: several processes were started with a budget in minutes.
    """
    if group is not None and is_timed:
        raise UserError(
            f"A budget in minutes is kept by the clock of one process, and {group.world_size} were "
            f"started. Give a number of steps, tokens or epochs: --training.max-steps 5000"
        )
