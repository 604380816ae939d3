"""How much memory a step takes on a GPU: what training/step.py holds, by whatever processes divide.

Shapes:  N parameters · C d_model · W attention width · F feed-forward width · V vocabulary
"""

from __future__ import annotations

from folio.model.config import ModelConfig
from folio.recipe.parameter_memory import gathered_bytes, parameter_bytes, update_bytes
from folio.recipe.recipe import Recipe

CONTEXT_BYTES = 1.0e9
"""Assumption: of the driver, the libraries and what the allocator cannot use."""
HALF = 2
"""Bytes of a number in bfloat16 or float16, in which all cards compute."""


def saved_bytes(model: ModelConfig, itemsize: int = HALF) -> float:
    """Bytes per token that the plain step holds at its peak: what all layers save, and the logits.

    A test compares this with what torch saves. Norms are taken to be one operation, as on GPUs.
    """
    c, w, f = model.d_model, model.attention_width, model.feed_forward_width
    kv = model.key_value_heads * model.head_width
    numbers = 4 * c  # two norms, and the products after them
    numbers += w + 2 * kv  # queries, keys, values
    if model.positions == "rope" or model.qk_norm:
        numbers += w + kv  # queries and keys again, turned or normalized
    if kv != w:
        numbers += 2 * w  # keys and values, once for each query head
    numbers += w  # the mixture of values
    numbers += 4 * f if model.activation == "swiglu" else 2 * f
    logits = (itemsize + 3 * 4) * model.vocab_size  # in float32, their log-softmax, its gradient
    return itemsize * (model.n_layers * numbers + 2 * c) + logits


def step_memory(recipe: Recipe, windows_at_once: int, n_processes: int = 1) -> float:
    """Peak bytes of one GPU.

    Args:
        recipe: the shape with its vocabulary, the optimizer, and what processes divide.
        windows_at_once: in a micro-batch.
        n_processes: that train together, each with a GPU.
    """
    model, how = recipe.model, (recipe, HALF, n_processes)
    saved = windows_at_once * model.context_length * saved_bytes(model) + gathered_bytes(*how)
    updating = update_bytes(*how) * model.n_parameters
    return CONTEXT_BYTES + parameter_bytes(*how) * model.n_parameters + max(saved, updating)
