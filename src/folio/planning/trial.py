"""Trains for a loss alone, without a run; and takes a part of a text that is like the whole.

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
"""Evaluations per trial, the last at its end; the best counts, since a long trial may overfit."""
BLOCK_TOKENS = 2048
"""Length of the blocks of a part: long compared with a window, so that few windows cross a joint,
and short compared with the text, so that a part has some of everything."""


def trial_loss(
    recipe: Recipe, device: Device, steps: int, training: TokenIds, validation: TokenIds
) -> float:
    """Best exact validation loss in nats per token, with the whole schedule in this number of
    steps.
    """
    interval = math.ceil(steps / EVALUATIONS)
    config = replace(recipe.training, max_steps=steps, evaluation_interval=interval)
    state = TrainingState()
    gc.collect()  # the models of earlier trials are in reference cycles
    trial = build(replace(recipe, training=config), device, training, validation)
    train(trial, state, Watcher())
    return state.best_validation_loss


def part_of(tokens: TokenIds, share: float) -> TokenIds:
    """Take blocks spread evenly over a text: (N,) -> about (share * N,).

    The beginning alone, such as the first play or chapter, would differ from the rest.
    """
    size = min(BLOCK_TOKENS, max(1, len(tokens) // 64))
    n_blocks = len(tokens) // size
    n_kept = max(1, round(share * n_blocks))
    blocks = np.arange(n_kept) * n_blocks // n_kept
    where = (blocks[:, None] * size + np.arange(size)).ravel()
    return tokens.view(np.ndarray)[where]
