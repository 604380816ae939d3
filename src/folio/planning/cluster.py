"""What a training takes on one GPU, on two, and so on up to a cluster, before any is rented.

A batch is a setting of the recipe and does not grow with the number of GPUs: each computes its
shard of the windows (training/distributed.py). So computing gets shorter with every GPU, and the
all-reduce does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from folio.errors import UserError
from folio.planning.gpus import Gpu
from folio.planning.step_cost import (
    GRADIENT_BYTES,
    PLAIN,
    RECORDED,
    RECORDED_COMPILED,
    Kernels,
    StepCost,
    all_reduce_seconds,
    all_reduces,
    computing,
    update_share,
)
from folio.planning.step_memory import step_memory
from folio.recipe.recipe import Recipe, sharded
from folio.training.config import SHARDINGS, Sharding, budget_steps

TOKENS_PER_PARAMETER = 20
"""Where no budget is given (Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556)."""
WORTHWHILE_SECONDS = 300.0
"""Of a run that is compiled: as in recipe/compiling.py, which would load torch. A test compares."""
SMALL_SHARE = 0.1
"""Of a step that an all-reduce may take before a larger batch is recommended."""


@dataclass(frozen=True)
class Cluster:
    """GPUs of one kind in machines of one kind."""

    gpu: Gpu
    n_gpus: int
    """In each machine."""
    n_machines: int
    link: float
    """Bus bandwidth within a machine, in bytes per second."""
    network: float
    """Line rate of the network of each machine, in bytes per second."""

    def parts(self) -> Iterator[Cluster]:
        """One GPU, two, four and so on, then two machines and so on, up to all."""
        for n in doublings(self.n_gpus):
            yield replace(self, n_gpus=n, n_machines=1)
        for n in list(doublings(self.n_machines))[1:]:
            yield replace(self, n_machines=n)

    @property
    def total(self) -> int:
        """GPUs in all machines."""
        return self.n_gpus * self.n_machines


def doublings(n: int) -> Iterator[int]:
    """Count 1, 2, 4 and so on, and n.

    >>> list(doublings(6))
    [1, 2, 4, 6]
    """
    i = 1
    while i < n:
        yield i
        i *= 2
    yield n


@dataclass(frozen=True)
class Row:
    """The prediction for a part of the cluster."""

    cluster: Cluster
    windows: int
    """Of the batch, on the GPU that has most."""
    windows_at_once: int
    cost: StepCost
    memory_by_sharding: dict[Sharding, float]
    """Bytes of the GPU that has most, with each training.sharding that the recipe may have; with
    fewer windows at once where more do not fit."""
    sharding: Sharding
    tokens_per_second: float
    hours: float
    """For all tokens."""

    @property
    def memory_bytes(self) -> float:
        """Of the GPU that has most, as the rest of the row is predicted."""
        return self.memory_by_sharding[self.sharding]

    @property
    def fits(self) -> bool:
        """Whether that is no more than the card has."""
        return self.memory_bytes <= self.cluster.gpu.memory_bytes

    def record(self) -> dict[str, Any]:
        """Return the entry for --json."""
        return {
            "gpus": self.cluster.total,
            "machines": self.cluster.n_machines,
            "windows": self.windows,
            "windows_at_once": self.windows_at_once,
            "step_seconds": self.cost.seconds,
            "parts_seconds": asdict(self.cost),
            "memory_bytes": round(self.memory_bytes),
            "memory_by_sharding": {n: round(x) for n, x in self.memory_by_sharding.items()},
            "fits": self.fits,
            "tokens_per_second": self.tokens_per_second,
            "hours": self.hours,
        }


@dataclass(frozen=True)
class ClusterPlan:
    """The predictions for all parts of a cluster, smallest first."""

    recipe: Recipe
    """With the training.sharding that the rows are of."""
    asked: Sharding
    """The one that was asked for."""
    cluster: Cluster
    rows: list[Row]
    n_tokens: int
    """To be trained on."""
    kernels: Kernels

    def efficiency(self, row: Row) -> float:
        """Tokens per second and GPU, as a share of what one GPU alone computes."""
        return row.tokens_per_second / row.cluster.total / self.rows[0].tokens_per_second

    @property
    def best(self) -> Row:
        """The fastest one that fits; the largest if none does."""
        fitting = [row for row in self.rows if row.fits] or self.rows[-1:]
        return max(fitting, key=lambda row: row.tokens_per_second)

    @property
    def costs_more(self) -> Row | None:
        """The first one that is slower than the one before it."""
        for fewer, more in zip(self.rows, self.rows[1:]):
            if more.tokens_per_second <= fewer.tokens_per_second:
                return more
        return None

    @property
    def mostly_sending(self) -> Row | None:
        """The first one that spends more of a step in the all-reduce than computing."""
        for row in self.rows:
            if row.cost.all_reduce > row.cost.computing:
                return row
        return None

    def larger_batch(self) -> int:
        """Windows of a batch with which the all-reduce takes a tenth of a step of all GPUs."""
        last = self.rows[-1]

        def seconds(windows: int) -> float:
            at_once, gpu = last.windows_at_once, self.cluster.gpu
            return _computing(self.recipe, gpu, windows, at_once, self.kernels).computing

        each = last.windows
        while seconds(each) < last.cost.all_reduce * (1 / SMALL_SHARE - 1):
            each *= 2
        return each * self.cluster.total

    def verdict(self) -> str:
        """Say in words where communication costs more than it gives, and what to do."""
        if not any(row.fits for row in self.rows):
            return self._without_room()
        best, batch = self.best, self.recipe.training.batch_size
        parts = [f"{best.cluster.total} GPUs are fastest with this batch of {batch} windows"]
        if best.cluster.total == 1:
            parts[0] = f"One GPU is fastest with this batch of {batch} windows"
        if self.sharding != self.asked:
            parts[0] = f"{self._why_sharded()}; {parts[0]}"
        slower, sending = self.costs_more, self.mostly_sending
        if sending and not (slower and slower.cluster.total <= sending.cluster.total):
            parts.append(f"from {sending.cluster.total} on it sends longer than it computes")
        if slower:
            parts.append(f"from {slower.cluster.total} on communication costs more than it gives")
        last = self.rows[-1]
        # With `full` a larger batch is computed in more parts, each of which sends as much.
        if self.sharding != "full" and last.cost.all_reduce > SMALL_SHARE * last.cost.seconds:
            parts.append(
                f"a batch of {self.larger_batch()} windows would leave all {last.cluster.total} "
                f"with a tenth of communication"
            )
        return "; ".join(parts) + "."

    @property
    def sharding(self) -> Sharding:
        """The training.sharding that the rows are of."""
        return self.recipe.training.sharding

    def _why_sharded(self) -> str:
        row = next(row for row in self.rows if row.fits)
        return (
            f"{self._needed()}; with --training.sharding {self.sharding}, each of "
            f"{row.cluster.total} has {row.memory_bytes / 1e9:.1f} GB"
        )

    def _without_room(self) -> str:
        last = self.rows[-1]
        if last.cluster.total == 1:
            return f"{self._needed()}: each GPU holds the whole model."
        sharding, least = min(last.memory_by_sharding.items(), key=lambda choice: choice[1])
        return (
            f"{self._needed()}, nor do the {least / 1e9:.1f} GB that each of {last.cluster.total} "
            f"has with --training.sharding {sharding}."
        )

    def _needed(self) -> str:
        return (
            f"{min(row.memory_by_sharding[self.asked] for row in self.rows) / 1e9:.1f} GB do not "
            f"fit into the {self.cluster.gpu.memory_bytes / 1e9:.0f} GB of this card"
        )

    def record(self) -> dict[str, Any]:
        """Return what --json prints."""
        return {
            "parameters": self.recipe.model.n_parameters,
            "batch_size": self.recipe.training.batch_size,
            "context_length": self.recipe.model.context_length,
            "tokens": self.n_tokens,
            "gpus": [{**row.record(), "efficiency": self.efficiency(row)} for row in self.rows],
            "fastest": self.best.cluster.total,
            "sharding": self.sharding,
            "verdict": self.verdict(),
        }


def plan_cluster(recipe: Recipe, cluster: Cluster, kernels: Kernels | None = None) -> ClusterPlan:
    """Predict time and memory on each part of a cluster: with the recipe's training.sharding, or
    with the next one that fits into the cards of any part.

    Args:
        recipe: has model.vocab_size.
        cluster: the GPUs.
        kernels: how the step is written; None takes what the recipe's device.fast, device.compile
            and training.sharding mean.

    Raises:
        UserError: as `asked_tokens`.
    """
    asked = recipe.training.sharding
    choices = sharded(recipe)
    plans = list[ClusterPlan]()
    for sharding in SHARDINGS[SHARDINGS.index(asked) :]:
        if sharding in choices:
            plans.append(_plan(choices, sharding, asked, cluster, kernels))
            if any(row.fits for row in plans[-1].rows):
                return plans[-1]
    return plans[0]


def _plan(
    choices: dict[Sharding, Recipe],
    sharding: Sharding,
    asked: Sharding,
    cluster: Cluster,
    kernels: Kernels | None,
) -> ClusterPlan:
    recipe = choices[sharding]
    tokens = asked_tokens(recipe)
    if kernels is None:
        is_plain = recipe.device.fast == "off" or sharding != "none"
        kernels = PLAIN if is_plain else RECORDED
        shortest = 3600 * _row(choices, sharding, cluster, kernels, tokens).hours
        compiled, is_long = recipe.device.compile, shortest >= WORTHWHILE_SECONDS
        if kernels is RECORDED and (compiled == "on" or (compiled == "auto" and is_long)):
            kernels = RECORDED_COMPILED
    rows = [_row(choices, sharding, part, kernels, tokens) for part in cluster.parts()]
    return ClusterPlan(recipe, asked, cluster, rows, tokens, kernels)


def asked_tokens(recipe: Recipe) -> int:
    """Tokens of the budget in steps or tokens; 20 per parameter if there is none.

    Raises:
        UserError: the budget is in epochs or minutes.
    """
    config, length = recipe.training, recipe.model.context_length
    if config.max_epochs or config.minutes:
        raise UserError(
            "folio plan --gpus knows no text and keeps no clock, so a budget in epochs or minutes "
            "says nothing. Give --training.max-tokens, or leave the budget out: "
            f"{TOKENS_PER_PARAMETER} tokens per parameter are assumed."
        )
    if steps := budget_steps(config, length, 0):
        return steps * config.batch_size * length
    return TOKENS_PER_PARAMETER * recipe.model.n_parameters


def _row(
    choices: dict[Sharding, Recipe],
    sharding: Sharding,
    part: Cluster,
    kernels: Kernels,
    n_tokens: int,
) -> Row:
    recipe = choices[sharding]
    model, batch_size = recipe.model, recipe.training.batch_size
    windows = -(-batch_size // part.total)
    at_once, _ = _fitting(recipe, part, windows)
    cost = _computing(recipe, part.gpu, windows, at_once, kernels)
    sending = all_reduce_seconds(
        GRADIENT_BYTES * model.n_parameters, part.total, part.n_machines, part.link, part.network
    )
    cost = replace(
        cost,
        update=cost.update * update_share(sharding, part.total),
        all_reduce=sending * all_reduces(sharding, -(-windows // at_once)),
    )
    speed = batch_size * model.context_length / cost.seconds
    memory = dict[Sharding, float]()
    for name, choice in choices.items():
        memory[name] = _fitting(choice, part, windows)[1]
    hours = n_tokens / speed / 3600
    return Row(part, windows, at_once, cost, memory, sharding, speed, hours)


def _fitting(recipe: Recipe, part: Cluster, windows: int) -> tuple[int, float]:
    """How many windows fit into a card at once, at least one, and the bytes that they take."""
    at_once = min(recipe.training.micro_batch_size or windows, windows)
    while True:
        n_bytes = step_memory(recipe, at_once, part.total)
        if n_bytes <= part.gpu.memory_bytes or at_once == 1:
            return at_once, n_bytes
        at_once = -(-at_once // 2)


def _computing(recipe: Recipe, gpu: Gpu, windows: int, at_once: int, kernels: Kernels) -> StepCost:
    n_tokens, n_parts = windows * recipe.model.context_length, -(-windows // at_once)
    return computing(recipe.model, gpu, n_tokens, n_parts, kernels, recipe.optimizer.kind)
