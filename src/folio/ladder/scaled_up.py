"""Step 7: the same block, scaled up, with dropout. The "baby GPT" of a public course.

This file says what is larger, and how much dropout each sublayer gets;
recipes/shakespeare-baby.toml is the same recipe. Free of torch.

Source of dropout: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from folio.config import Table
from folio.recipe.recipe import Recipe

EXPECTED = 1.4894
"""Validation loss that the course reports, in nats per character; its best of all is 1.4868."""

RUN_NAME = "ladder-7"

SETTINGS: Table = {
    "preset": "gpt2",
    "size": "baby",
    "seed": 1337,
    "corpus": {"sources": ["shakespeare"]},
    "tokenizer": {"kind": "character"},
    "model": {
        "n_layers": 6,
        "n_heads": 6,
        "d_model": 384,
        "context_length": 256,
        "activation": "relu",
        "tied_head": False,
        "attention_dropout": 0.2,
        "residual_dropout": 0.2,
    },
    "optimizer": {
        "kind": "adamw",
        "learning_rate": 3e-4,
        "beta1": 0.9,
        "beta2": 0.999,
        "weight_decay": 0.01,
        "gradient_clip": 0.0,
    },
    # Constant learning rate.
    "schedule": {"kind": "linear", "warmup_fraction": 0.0, "cooldown_fraction": 0.0},
    "training": {"batch_size": 64, "max_steps": 5000, "evaluation_interval": 500},
}


def measure_seconds(recipe: Recipe, tell: Callable[[str], None]) -> tuple[float, float]:
    """Predict how long a run takes on this machine, from a few seconds of training.

    Args:
        recipe: a recipe with max_steps and evaluation_interval.
        tell: receives lines about what is being done.

    Returns:
        Seconds of the whole run, evaluations included, and of one step.
    """
    from folio.recipe.build import choose_for, fit_vocabulary
    from folio.recipe.prepare import prepare
    from folio.recipe.speed import measure

    text = prepare(recipe, tell)
    recipe = fit_vocabulary(recipe, text.tokenizer.vocab_size)
    device = choose_for(recipe)
    recipe = replace(recipe, device=device.config)
    validation = text.validation()
    speed = measure(recipe, device, text.training(), validation)
    length = recipe.model.context_length
    return speed.run_seconds(recipe.training, length, len(validation)), speed.step_seconds
