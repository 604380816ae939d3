"""A training for its loss alone, without a run; and a part of a text that is like the whole.

Shapes:  N tokens
"""

from __future__ import annotations

import gc
import math
from dataclasses import replace

import numpy as np

from folio.device import Device
from folio.recipe.build import build
from folio.recipe.recipe import Recipe
from folio.recipe.watcher import Watcher
from folio.tokenizers.base import TokenIds
from folio.training.loop import train
from folio.training.state import TrainingState

EVALUATIONS = 4
"""In a trial, the last at its end; the best counts, since a long one may overfit."""
BLOCK_TOKENS = 2048
"""Of a part of a text: long beside a window, so that few windows cross a joint, and short beside
the text, so that a part has some of everything."""


def trial_loss(
    recipe: Recipe, device: Device, steps: int, training: TokenIds, validation: TokenIds
) -> float:
    """Best exact validation loss in nats per token, with the whole schedule in so many steps."""
    interval = math.ceil(steps / EVALUATIONS)
    config = replace(recipe.training, max_steps=steps, evaluation_interval=interval)
    state = TrainingState()
    gc.collect()  # models of trials before: copies and what they were taught hold each other
    trial = build(replace(recipe, training=config), device, training, validation)
    train(trial, state, Watcher())
    return state.best_validation_loss


def part_of(tokens: TokenIds, share: float) -> TokenIds:
    """Blocks spread evenly over a text: (N,) -> about (share * N,).

    The beginning alone would be other than the rest: the first play, the first chapter.
    """
    size = min(BLOCK_TOKENS, max(1, len(tokens) // 64))
    n_blocks = len(tokens) // size
    n_kept = max(1, round(share * n_blocks))
    blocks = np.arange(n_kept) * n_blocks // n_kept
    where = (blocks[:, None] * size + np.arange(size)).ravel()
    return tokens.view(np.ndarray)[where]
