"""How much memory a training takes on a processor, before it begins.

Counted, since each part follows from a shape: weights, gradients, what the optimizer remembers, and
what the forward pass keeps for the backward pass. What no shape gives was fitted to the peaks of
real runs (docs/experiments.md): the two constants below.

Shapes:  N weights · B windows at once · T context length · C = d_model · F = d_ff · V vocabulary
"""

from __future__ import annotations

from dataclasses import replace

from folio.device import Device, machine_memory, memory_in_use
from folio.errors import UserError
from folio.model.attention import QUERIES
from folio.model.block import NORMS_AT
from folio.model.config import ModelConfig
from folio.recipe.recipe import Recipe

LIBRARY_BYTES = 105_000_000
"""Fitted: what torch, the picture and the sample load after the text is prepared."""
WORKING_SHARE = 1.25
"""Fitted: a step's memory over what the shapes say, since results live beside their inputs."""


def peak_memory_bytes(recipe: Recipe, device: Device, windows_at_once: int, in_use: int) -> int:
    """Most bytes that the process holds during a run.

    Args:
        recipe: with the size of the vocabulary filled in.
        device: where; on anything but a processor this says nothing.
        windows_at_once: B, of all copies of the model together.
        in_use: bytes that the process holds before anything is built.
    """
    n_copies = min(device.config.threads, recipe.training.batch_size)
    windows_each = -(-windows_at_once // n_copies)
    step = n_copies * step_bytes(recipe.model, device.dtype.itemsize, windows_each)
    writer = (
        8 * recipe.model.n_parameters
    )  # the model of the final sample, and what it is read from
    lasting = in_use + LIBRARY_BYTES + weight_bytes(recipe, device, n_copies) + writer
    return round(lasting + WORKING_SHARE * step)


def weight_bytes(recipe: Recipe, device: Device, n_copies: int) -> int:
    """Of what lasts from step to step: training/weights.py, replicas.py, updates.py, muon.py."""
    n, model, size = recipe.model.n_parameters, recipe.model, device.dtype.itemsize
    n_embedding = model.vocab_size * model.d_model * (1 if model.tied_head else 2)
    shared = size * n if size < 4 else 0  # the weights in the precision that computes
    each = size * n  # the gradients of a copy
    match recipe.optimizer.kind:
        case "adamw":
            remembered = 8 * n
        case "muon":  # momentum, update and a sum of both for the matrices, AdamW for the rest
            remembered = (8 + size) * (n - n_embedding) + 8 * n_embedding
        case "sgd":
            remembered = 8 * n if recipe.optimizer.momentum else 4 * n
    return 8 * n + shared + n_copies * each + remembered


def step_bytes(model: ModelConfig, size: int, n_windows: int) -> int:
    """Of what one copy keeps for the backward pass, and of its logits.

    Args:
        model: the shape.
        size: bytes of a number.
        n_windows: read at once.
    """
    n_tokens, v = n_windows * model.context_length, model.vocab_size
    # The logits; in float32 their logarithms of shares, and two gradients of those.
    logits = size * v + 12 * v
    embedded = model.d_model * (size + (2 if model.embedding_dropout else 0))
    block = attention_bytes(model, size) + feed_forward_bytes(model, size)
    return n_tokens * (embedded + model.n_layers * block + 2 * size * model.d_model + logits)


def attention_bytes(model: ModelConfig, size: int) -> int:
    """Kept by one attention and the residual around it, for each token."""
    c, t = model.d_model, model.context_length
    numbers = _norm_numbers(model) + 4 * c  # queries, keys, values, their mixture
    if model.qk_norm:
        numbers += c + model.key_value_heads * model.head_dim
    # Blocks of queries look at the keys up to their own last one.
    looked_at = sum(
        (min(first + QUERIES, t) - first) * min(first + QUERIES, t)
        for first in range(0, t, QUERIES)
    )
    weights = model.n_heads * looked_at / t
    dropped = weights * (size + 2) if model.attention_dropout else 0
    return round(size * (numbers + weights) + dropped + _residual_bytes(model))


def feed_forward_bytes(model: ModelConfig, size: int) -> int:
    """Kept by one feed-forward layer and the residual around it, for each token."""
    wide = {"swiglu": 4, "gelu": 2, "relu2": 2, "relu": 1}[model.activation]
    numbers = _norm_numbers(model) + wide * model.feed_forward_width
    return size * numbers + _residual_bytes(model)


def _norm_numbers(model: ModelConfig) -> int:
    """What the first matrices of a sublayer keep as their input, and each of its norms."""
    return model.d_model * (1 + sum(NORMS_AT[model.norm_placement]))


def _residual_bytes(model: ModelConfig) -> int:
    """A mask of two bytes a number, where there is dropout."""
    return 2 * model.d_model if model.residual_dropout else 0


def windows_that_fit(recipe: Recipe, device: Device, limit: int, in_use: int) -> tuple[int, int]:
    """Halve the windows in memory at once until a training fits, or there is one for each copy.

    Args:
        recipe, device, in_use: as in peak_memory_bytes.
        limit: bytes.

    Returns:
        Those windows, and the bytes at the peak. A number that the recipe gives is left alone.
    """
    given = recipe.training.micro_batch_size
    windows = given or recipe.training.batch_size
    needed = peak_memory_bytes(recipe, device, windows, in_use)
    while needed > limit and windows > device.config.threads and not given:
        windows = -(-windows // 2)
        needed = peak_memory_bytes(recipe, device, windows, in_use)
    return windows, needed


def memory_limit(recipe: Recipe) -> int:
    """Bytes that the recipe allows, or that the machine has."""
    return round(recipe.device.memory_gigabytes * 1e9) or machine_memory()


def fit_memory(recipe: Recipe, device: Device) -> tuple[Recipe, int]:
    """Have only so many windows in memory at once as fit; of a processor.

    The gradients of a batch are added up over as many groups of windows as it takes, so that
    neither the batch nor the loss changes.

    Returns:
        The recipe with `training.micro_batch_size` above 0, and the predicted peak in bytes.

    Raises:
        UserError: it does not fit.
    """
    if device.config.kind != "cpu":
        return recipe, 0
    limit = memory_limit(recipe)
    windows, needed = windows_that_fit(recipe, device, limit, memory_in_use())
    if needed > limit:
        raise UserError(
            f"This training needs about {needed / 1e9:.1f} GB of memory with {windows} windows at "
            f"once; {limit / 1e9:.1f} GB are allowed. Give a smaller --size or "
            f"--model.context-length, fewer --device.threads, or a higher "
            f"--device.memory-gigabytes."
        )
    training = replace(recipe.training, micro_batch_size=windows)
    return replace(recipe, training=training), needed
