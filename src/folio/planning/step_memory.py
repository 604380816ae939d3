"""How much memory a step takes on a GPU: what training/step.py and distributed.py hold.

Shapes:  N parameters · C d_model · W attention width · F feed-forward width · V vocabulary
"""

from __future__ import annotations

from folio.model.config import ModelConfig

CONTEXT_BYTES = 1.0e9
"""Assumption: of the driver, the libraries and what the allocator cannot use."""
WEIGHT_BYTES = 24
"""Per parameter while gradients are computed: weights, gradients and the weights before the step in
float32 (12), two moments (8; Muon has one, and no less at its peak), the rounded weights and their
gradients (4)."""
SHARED_BYTES = 4
"""Per parameter, beside other processes: the buffer of all gradients."""
UPDATE_BYTES = 2
"""Per parameter that an update takes more than the gradients' computation: a root of float32, but
no rounded gradients. By then nothing else is held."""


def saved_bytes(model: ModelConfig, itemsize: int = 2) -> float:
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


def step_memory(model: ModelConfig, windows_at_once: int, is_shared: bool) -> float:
    """Peak bytes of one GPU.

    Args:
        model: the shape, with its vocabulary.
        windows_at_once: in a micro-batch.
        is_shared: whether other processes take part.
    """
    weights = model.n_parameters * (WEIGHT_BYTES + (SHARED_BYTES if is_shared else 0))
    saved = windows_at_once * model.context_length * saved_bytes(model)
    return CONTEXT_BYTES + weights + max(saved, UPDATE_BYTES * model.n_parameters)
