"""Compiles in advance what the first steps need, so that no first run waits for it.

`make setup` does this. Without it, the first run compiles what it needs, and says so.
"""

from __future__ import annotations

import numpy as np

from folio.recipe.build import choose_for
from folio.recipe.presets import FAMILIES
from folio.recipe.recipe import make_recipe
from folio.recipe.speed import measure
from folio.run import look_back

DROPOUTS = dict.fromkeys(("embedding_dropout", "residual_dropout", "attention_dropout"), 0.1)


def compile_kernels() -> None:
    """Take some steps of a small model of each preset, in the precision of this machine."""
    for preset in FAMILIES:
        recipe = make_recipe(
            {
                "preset": preset,
                "model": {"vocab_size": 128, "n_layers": 1, **DROPOUTS},
                "training": {"batch_size": 4},
                "device": {"kind": "cpu", "threads": 1},
            }
        )
        tokens = np.arange(4 * recipe.model.context_length, dtype=np.uint8) % 128
        measure(recipe, choose_for(recipe), tokens, tokens, seconds=0.0)
    look_back.compile_kernels()


if __name__ == "__main__":
    compile_kernels()
