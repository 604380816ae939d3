"""Computes how much memory a training takes on a GPU, before it begins.

What persists is counted in bytes a parameter, and what the forward pass saves for the backward pass
in bytes a token: torch is asked, on the processor, with a short window of two blocks. None of it
was compared with a GPU: a step that does not fit halves its windows in any case (training/step.py).

Shapes:  N weights · B windows at once · T context length · C = d_model · P padded vocabulary
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch

from folio.device import Device
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.model.loss import next_token_loss
from folio.recipe.parameter_memory import gathered_bytes, parameter_bytes, windows_at_once
from folio.recipe.recipe import Recipe
from folio.training.accelerated.head import MULTIPLE, NUMBERS

SHORT = 64
"""Tokens of the window that is asked about: what attention saves on a GPU grows with no square of
them."""
SPARE = 1.1
"""Assumption: ratio of what is taken to what is counted, as the allocator rounds and fragments."""


def gpu_bytes(recipe: Recipe, device: Device, n_processes: int = 1) -> int:
    """Peak memory in bytes of a run on a GPU, or of each of several.

    Args:
        recipe: a recipe that has model.vocab_size.
        device: the GPU.
        n_processes: that train together, each with a GPU.
    """
    model, size = recipe.model, device.dtype.itemsize
    n_tokens = windows_at_once(recipe, n_processes) * model.context_length
    step = n_tokens * token_bytes(model, device) + head_bytes(model, device, n_tokens)
    step += gathered_bytes(recipe, size, n_processes)
    weights = parameter_bytes(recipe, size, n_processes) + passing_bytes(device)
    return round(SPARE * (weights * model.n_parameters + step))


def passing_bytes(device: Device) -> int:
    """Bytes a parameter that the accelerated step takes beside those of the plain one: gradients
    side by side in the precision of the device, and in float32 those that are put there.
    """
    size = device.dtype.itemsize
    return device.is_accelerated * (size if size < 4 else 2 * size)


def token_bytes(model: ModelConfig, device: Device) -> int:
    """Bytes a token that the blocks save for the backward pass, with both ends."""
    # Attention needs no memory for its weights there, with dropout neither.
    short = replace(model, context_length=SHORT, vocab_size=MULTIPLE, attention_dropout=0.0)
    one, two = (kept_bytes(replace(short, n_layers=n), torch.float32) for n in (1, 2))
    in_float32 = (one + (model.n_layers - 1) * (two - one)) / SHORT
    return round(in_float32 * device.dtype.itemsize / 4)


def head_bytes(model: ModelConfig, device: Device, n_tokens: int) -> int:
    """Bytes of logits, their log-softmax and gradients: of a chunk, if the step is accelerated."""
    size, padded = device.dtype.itemsize, -(-model.vocab_size // MULTIPLE) * MULTIPLE
    if not device.is_accelerated:
        return n_tokens * model.vocab_size * (size + 12)
    numbers = min(n_tokens * padded, NUMBERS)
    weight = (4 + 2 * size) * padded * model.d_model  # its gradient, a chunk's, and one rounded
    return numbers * (2 * size + 8) + weight + 2 * size * n_tokens * model.d_model


@cache
def kept_bytes(model: ModelConfig, dtype: torch.dtype) -> int:
    """Measure what torch saves of one window for the backward pass, without the weights."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.random.fork_rng(devices=[]):
        gpt = GPT(model).to(dtype)
        token_ids = torch.zeros(1, model.context_length, dtype=torch.int64)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = next_token_loss(gpt(token_ids), token_ids, "sum")
    for tensor in (*gpt.parameters(), *gpt.buffers()):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    del loss  # until here nothing saved was freed, so that no address was used twice
    return sum(kept.values())
