"""Bytes that a parameter takes while it learns, and which of them processes divide.

With AdamW in bfloat16, and n processes, by `training.sharding`:

                                             none    optimizer    full
    weights and gradients in float32         8       8            8 / n
    weights before the step, AdamW's state   12      12 / n       12 / n
    rounded weights and gradients            4       4            those of a block or two
    all gradients side by side               4       4            none

A process alone has 24. Free of torch, which would have to be loaded for a plan.

Shapes:  n processes
"""

from __future__ import annotations

from dataclasses import replace

from folio.model.config import ModelConfig
from folio.recipe.recipe import Recipe

FLOAT32 = 4


def parameter_bytes(recipe: Recipe, itemsize: int, n_processes: int = 1) -> float:
    """Bytes a parameter that a process holds while the plain step computes gradients.

    Args:
        recipe: names the optimizer, and what processes divide.
        itemsize: bytes of a number in the precision of forward and backward.
        n_processes: that train together; one alone has everything in any case.
    """
    weights = gradients = before = FLOAT32
    divided = before + _remembered(recipe)
    rounded = 2 * itemsize if itemsize < FLOAT32 else 0
    if n_processes == 1:
        return weights + gradients + rounded + divided
    if recipe.training.sharding == "full":
        divided += weights + gradients
        if recipe.optimizer.kind == "muon":  # its owner has a matrix whole, and its gradient
            divided += weights + gradients
        return divided / n_processes
    side_by_side = FLOAT32
    parts = n_processes if recipe.training.sharding == "optimizer" else 1
    return weights + gradients + rounded + side_by_side + divided / parts


def update_bytes(recipe: Recipe, itemsize: int, n_processes: int = 1) -> float:
    """Bytes a parameter that an update takes for a moment, when nothing else is held any more, and
    no rounded gradients.
    """
    rounded = itemsize if itemsize < FLOAT32 else 0
    if n_processes == 1 or recipe.training.sharding == "none":
        return FLOAT32 - rounded  # a root
    if recipe.training.sharding == "optimizer":
        return max(FLOAT32 / n_processes - rounded, 0.0)
    is_sent = recipe.optimizer.kind == "muon"  # rows, these side by side, and what comes for them
    return (3 if is_sent else 1) * FLOAT32 / n_processes


def gathered_bytes(recipe: Recipe, itemsize: int, n_processes: int = 1) -> float:
    """Bytes of what `full` puts together for as long as it computes: what is around the blocks from
    the first block to the last, a block with its gradients, and the next block.

    Assumption, but for the gradients: torch brings the next block while one computes.
    """
    if n_processes == 1 or recipe.training.sharding != "full":
        return 0.0
    block = n_parameters_per_block(recipe.model)
    around = recipe.model.n_parameters - recipe.model.n_layers * block
    weights = gradients = itemsize
    next_block = 2 * itemsize  # as it comes, and in the shape of its parameters
    return around * (weights + gradients) + block * (weights + gradients + FLOAT32 + next_block)


def windows_at_once(recipe: Recipe, n_processes: int = 1) -> int:
    """Windows of a micro-batch of one of several processes, which share a batch evenly."""
    share = -(-recipe.training.batch_size // n_processes)
    return min(recipe.training.micro_batch_size or share, share)


def n_parameters_per_block(model: ModelConfig) -> int:
    """Number of parameters of one block."""
    one, two = (replace(model, n_layers=n).n_parameters for n in (1, 2))
    return two - one


def _remembered(recipe: Recipe) -> int:
    """Bytes a parameter of the optimizer's state; Muon has one momentum, and briefly its update."""
    if recipe.optimizer.kind == "sgd":
        return FLOAT32 * bool(recipe.optimizer.momentum)
    return 2 * FLOAT32
