"""How much memory a training takes on a processor, before it begins.

Counted, since each part follows from a shape: weights, gradients, what the optimizer remembers, and
what the forward pass keeps for the backward pass. What no shape gives was fitted to the peaks of
real runs (docs/experiments.md): the constants below. What the plain step keeps is asked of torch by
a single window, since it depends on how each layer is written.

Shapes:  N weights · B windows at once · T context length · C = d_model · F = d_ff · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch

from folio.device import Device, machine_memory, memory_in_use
from folio.errors import UserError
from folio.evaluation.score import BATCH_TOKENS
from folio.fast.attention import query_blocks
from folio.fast.calls import load, must_compile
from folio.model.block import NORMS_AT
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.model.loss import next_token_loss
from folio.recipe.recipe import Recipe
from folio.training.parallel.capture import MAX_BYTES

LIBRARY_BYTES = 117_000_000
"""Fitted: what torch, picture and sample load once they are at work."""
COPY_BYTES = 38_000_000
"""Fitted: the same of each further process, and pages that it writes although both need them."""
COMPILING_BYTES = 65_000_000
"""Measured: what a process that compiles the kernels keeps of that, once on a machine."""
WORKING_SHARE = 1.25
"""Fitted: a step's memory over what the shapes say, for gradients on their way and freed memory."""
CAPTURED_SHARE = 1.05
"""Measured, 1.03 to 1.05: the same of a captured step, which keeps its arena."""


def peak_memory_bytes(recipe: Recipe, device: Device, in_use: int) -> int:
    """Most bytes that the processes of a run hold together.

    Args:
        recipe: with the size of the vocabulary filled in.
        device: a processor.
        in_use: bytes that the process holds before anything is built: memory_before().
    """
    config = recipe.training
    n_copies = min(device.config.threads, config.batch_size) if device.is_fast else 1
    windows_each = -(-(config.micro_batch_size or config.batch_size) // n_copies)
    itemsize = device.dtype.itemsize
    input_size = 1 if device.config.precision == "int8" else itemsize
    if device.is_fast:
        step = step_bytes(recipe.model, itemsize, windows_each, input_size)
    else:
        step = plain_step_bytes(recipe.model, device.dtype, windows_each)
    reading = evaluation_bytes(recipe.model, itemsize)
    is_captured = device.is_fast and CAPTURED_SHARE * step < MAX_BYTES
    kept = CAPTURED_SHARE * step if is_captured else 0
    at_work = max(WORKING_SHARE * step, kept + reading)
    lasting = LIBRARY_BYTES + COPY_BYTES * (n_copies - 1) + weight_bytes(recipe, device, n_copies)
    compiling = COMPILING_BYTES * n_copies if device.is_fast and must_compile() else 0
    return round(in_use + lasting + compiling + n_copies * at_work)


def weight_bytes(recipe: Recipe, device: Device, n_copies: int) -> int:
    """Of what lasts from step to step: training/parallel/, or training/step.py."""
    n, size = recipe.model.n_parameters, device.dtype.itemsize
    shared = size * n if size < 4 else 0  # the weights in the precision that computes
    if device.config.precision == "int8":
        shared += 2 * n  # and their bytes, by rows and by columns
    each = 2 * size * n  # the gradients of a copy, as autograd hands them over and side by side
    remembered = 8 * n  # of a matrix Muon holds momentum, and moves for a moment
    if recipe.optimizer.kind == "sgd" and not recipe.optimizer.momentum:
        remembered = 4 * n
    if not device.is_fast:  # beside weights and gradients, the weights before the step
        return 12 * n + (each if size < 4 else 0) + remembered
    return 8 * n + shared + n_copies * each + remembered


def step_bytes(model: ModelConfig, size: int, n_windows: int, input_size: int) -> int:
    """Of what one copy keeps for the backward pass, and of its logits.

    Args:
        model: the shape.
        size: bytes of a number.
        n_windows: read at once.
        input_size: bytes of a number that comes into a matrix, as that keeps it: fast/int8.py.
    """
    n_tokens, v = n_windows * model.context_length, model.vocab_size
    logits = 2 * size * v  # and their gradient
    block = attention_bytes(model, size, input_size) + feed_forward_bytes(model, size, input_size)
    return n_tokens * (model.n_layers * block + 2 * size * model.d_model + logits)


def plain_step_bytes(model: ModelConfig, dtype: torch.dtype, n_windows: int) -> int:
    """Of what torch keeps for the backward pass of the plain step, and of its logits.

    Args:
        model: the shape.
        dtype: of what is computed.
        n_windows: read at once.
    """
    one, two = (kept_bytes(replace(model, n_layers=n, vocab_size=64), dtype) for n in (1, 2))
    block = two - one
    logits = 3 * 4 * model.vocab_size * model.context_length  # their logarithms, and two gradients
    return n_windows * (one - block + model.n_layers * block + logits)


@cache
def kept_bytes(model: ModelConfig, dtype: torch.dtype) -> int:
    """Ask torch what it keeps of a window for the backward pass, weights left out."""
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
    del loss  # until here nothing that was kept was freed, so that no address stands for two
    return sum(kept.values())


def evaluation_bytes(model: ModelConfig, size: int) -> int:
    """Of what one copy has in memory at once while it reads without learning."""
    logits = (size + 8) * model.vocab_size  # and in float32, with their logarithms of shares
    block = attention_bytes(model, size, size) + feed_forward_bytes(model, size, size)
    return BATCH_TOKENS * (block + logits)


def attention_bytes(model: ModelConfig, size: int, input_size: int) -> int:
    """Kept by one attention and the residual around it, for each token; on the compiled way."""
    w, t = model.attention_width, model.context_length
    numbers = _norm_numbers(model) + 3 * w  # queries, keys, values
    kv = model.key_value_heads * model.head_width
    if model.qk_norm and model.positions == "rope" and model.normalization == "rmsnorm":
        numbers += w + 2 * kv  # all three before they were normalized and turned
    elif model.qk_norm:
        numbers += w + kv
    # Blocks of queries look at the keys up to their own last one.
    looked_at = sum((last - first) * last for first, last in query_blocks(t))
    weights = model.n_heads * looked_at / t
    inputs = model.d_model + w  # of the first matrices, and the mixture of values
    return round(size * (numbers + weights)) + input_size * inputs


def feed_forward_bytes(model: ModelConfig, size: int, input_size: int) -> int:
    """Kept by one feed-forward layer and the residual around it, for each token."""
    c, f = model.d_model, model.feed_forward_width
    slopes = {"swiglu": 2, "gelu": 1, "gelu_tanh": 1, "relu2": 1, "relu": 0}[model.activation]
    numbers, inputs = _norm_numbers(model) + slopes * f, c + f
    if input_size != size:  # what others need too, in bytes of its own
        inputs += c if model.activation == "swiglu" else 0
        numbers += f if model.activation == "relu" else 0
    return size * numbers + input_size * inputs


def _norm_numbers(model: ModelConfig) -> int:
    """What the norms of a sublayer keep."""
    return model.d_model * sum(NORMS_AT[model.norm_placement])


def windows_that_fit(recipe: Recipe, device: Device, limit: int, in_use: int) -> tuple[Recipe, int]:
    """Halve the windows in memory at once until a training fits, or there is one for each copy.

    Args:
        recipe, device, in_use: as in peak_memory_bytes.
        limit: bytes.

    Returns:
        The recipe with so many windows at once, and the bytes at its peak, 0 on anything but a
        processor. A number that the recipe gives is left alone, and stays 0 where the whole batch
        fits.
    """
    if device.config.kind != "cpu":
        return recipe, 0
    needed = peak_memory_bytes(recipe, device, in_use)
    windows = recipe.training.batch_size
    if not recipe.training.micro_batch_size:
        while needed > limit and windows > device.config.threads:
            windows = -(-windows // 2)
            recipe = replace(recipe, training=replace(recipe.training, micro_batch_size=windows))
            needed = peak_memory_bytes(recipe, device, in_use)
    return recipe, needed


def memory_before() -> int:
    """Bytes that this process holds now, with the kernels loaded; to be asked before anything is
    built, since memory that is given back is not always returned to the system.
    """
    load()
    return memory_in_use()


def memory_limit(recipe: Recipe) -> int:
    """Bytes that the recipe allows, or that the machine has."""
    return round(recipe.device.memory_gigabytes * 1e9) or machine_memory()


def fit_memory(
    recipe: Recipe,
    device: Device,
    in_use: int,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Recipe, int]:
    """Have only so many windows in memory at once as fit.

    The gradients of a batch are added up over as many groups of windows as it takes, so that
    neither the batch nor the loss changes.

    Args:
        recipe: with the size of the vocabulary filled in.
        device: where it is going to be trained.
        in_use: as in peak_memory_bytes.
        tell: takes a line where the batch does not fit as a whole.

    Returns:
        As windows_that_fit.

    Raises:
        UserError: it does not fit.
    """
    limit = memory_limit(recipe)
    fitting, needed = windows_that_fit(recipe, device, limit, in_use)
    windows = fitting.training.micro_batch_size or fitting.training.batch_size
    if needed > limit:
        raise UserError(
            f"This training needs about {needed / 1e9:.1f} GB of memory with {windows} windows at "
            f"once; {limit / 1e9:.1f} GB are allowed. Give a smaller --size or "
            f"--model.context-length, fewer --device.threads, or a higher "
            f"--device.memory-gigabytes."
        )
    if fitting != recipe:
        tell(
            f"memory: {windows} windows at once, whose gradients are added up to the batch of "
            f"{recipe.training.batch_size}"
        )
    return fitting, needed
