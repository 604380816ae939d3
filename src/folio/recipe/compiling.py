"""Decides whether a run is long enough for torch.compile."""

from __future__ import annotations

from dataclasses import replace

from folio.device import Device
from folio.recipe.recipe import Recipe
from folio.recipe.speed import matmul_flops, token_flops

WORTHWHILE_SECONDS = 300.0
"""Seconds that a run must last to be compiled. Assumption: compiling a step of 12 layers takes 20
to 40 seconds, once a process, and saves a fifth to a quarter of a step that is captured as a CUDA
graph already, so two to three minutes earn it; a run that is twice as long gains for certain."""

SHORTEST_STEP = 0.004
"""Assumption: seconds that even a small model takes for a step, captured as a CUDA graph."""

SHARE_OF_MATMULS = 0.5
"""Assumption: share of the rate of a matmul that a whole step reaches."""


def choose_compile(recipe: Recipe, device: Device, seconds: float | None = None) -> Recipe:
    """Set what `device.compile = "auto"` means for a run on CUDA.

    Args:
        recipe: with a budget in steps.
        device: where it runs.
        seconds: how long it will run; None estimates it.
    """
    if device.config.kind != "cuda" or recipe.device.compile != "auto":
        return recipe
    if seconds is None:
        seconds = expected_seconds(recipe, device)
    is_long = device.is_accelerated and seconds >= WORTHWHILE_SECONDS
    return replace(recipe, device=replace(recipe.device, compile="on" if is_long else "off"))


def expected_seconds(recipe: Recipe, device: Device) -> float:
    """Seconds of all steps, by the rate of a matmul of the model's width."""
    config, model = recipe.training, recipe.model
    n_tokens = config.batch_size * model.context_length
    step = n_tokens * token_flops(recipe) / (SHARE_OF_MATMULS * matmul_flops(recipe, device))
    return config.max_steps * max(step, SHORTEST_STEP)
