"""Computes how much memory a training takes, before it begins; on a GPU, by gpu_memory.py.

Most of it follows from shapes and is counted: weights, gradients, optimizer state, and what the
forward pass saves for the backward pass. The constants below cover the rest, and were fitted to the
peaks of real runs (docs/experiments.md). What the plain step saves depends on how each layer is
written, so torch is asked, with a single window.

Shapes:  N weights · B windows at once · T context length · C = d_model · F = d_ff · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from folio.accelerator import free_memory
from folio.console import amount
from folio.device import Device, machine_memory
from folio.errors import UserError
from folio.evaluation.score import BATCH_TOKENS, CACHED_LOGITS
from folio.fast.attention import query_blocks
from folio.fast.calls import load, must_compile
from folio.model.block import NORMS_AT
from folio.model.config import ModelConfig
from folio.process import memory_in_use
from folio.recipe.gpu_memory import gpu_bytes, kept_bytes
from folio.recipe.parameter_memory import gathered_bytes, parameter_bytes, windows_at_once
from folio.recipe.recipe import Recipe, sharded
from folio.training.distributed import Processes
from folio.training.parallel.capture import MAX_BYTES

LIBRARY_BYTES = 117_000_000
"""Fitted: what torch, picture and sample load once they run."""
COPY_BYTES = 38_000_000
"""Fitted: the same for each further process, and pages that are copied on write."""
COMPILING_BYTES = 65_000_000
"""Measured: what a process that compiles the kernels, once per machine, keeps."""
WORKING_SHARE = 1.25
"""Fitted: ratio of a step's memory to what the shapes say, for temporary gradients and freed
memory."""
CAPTURED_SHARE = 1.05
"""Measured, 1.03 to 1.05: the same for a captured step, which keeps its arena."""

_held_at_first = 0
"""Bytes that this process held before its first training; 0 before that."""


def peak_memory_bytes(recipe: Recipe, device: Device, in_use: int, n_processes: int = 1) -> int:
    """Peak memory in bytes of a run: of a process with all of its workers.

    Args:
        recipe: a recipe that has model.vocab_size.
        device: the device; of a GPU it is its own memory.
        in_use: bytes that the process holds before anything is built: memory_before().
        n_processes: that train together, each with a device.
    """
    if device.config.kind != "cpu":
        return gpu_bytes(recipe, device, n_processes)
    windows = windows_at_once(recipe, n_processes)
    n_copies = min(device.config.threads, recipe.training.batch_size) if device.is_fast else 1
    windows_each = -(-windows // n_copies)
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
    weights = weight_bytes(recipe, device, n_copies, n_processes)
    lasting = LIBRARY_BYTES + COPY_BYTES * (n_copies - 1) + weights
    compiling = COMPILING_BYTES * n_copies if device.is_fast and must_compile() else 0
    return round(in_use + lasting + compiling + n_copies * at_work)


def weight_bytes(recipe: Recipe, device: Device, n_copies: int, n_processes: int = 1) -> int:
    """Bytes that persist from step to step: training/parallel/, or training/step.py.

    Of several processes it is the first, which with `full` has the whole model for checkpoints.
    """
    n, size = recipe.model.n_parameters, device.dtype.itemsize
    shared = size * n if size < 4 else 0  # compute weights
    if device.config.precision == "int8":
        shared += 2 * n  # and their int8 values, by rows and by columns
    each = 2 * size * n  # gradients of a worker, as autograd returns them and in the flat buffer
    side_by_side = 4 * n if n_processes > 1 else 0  # all of them, which are added up
    remembered = 8 * n  # Muon holds the momentum of a matrix, and briefly its update
    if recipe.optimizer.kind == "sgd" and not recipe.optimizer.momentum:
        remembered = 4 * n
    if recipe.training.save_in_background == "on":
        remembered = 2 * remembered + 4 * n
    if n_processes > 1 and recipe.training.sharding != "none":
        whole = 4 * n if recipe.training.sharding == "full" else 0
        held = parameter_bytes(recipe, size, n_processes) * n
        return round(held + gathered_bytes(recipe, size, n_processes) + whole)
    if not device.is_fast:  # beside weights and gradients, the weights before the step
        return 12 * n + (each if size < 4 else 0) + remembered + side_by_side
    return 8 * n + shared + n_copies * each + remembered + side_by_side


def step_bytes(model: ModelConfig, size: int, n_windows: int, input_size: int) -> int:
    """Bytes that one worker saves for the backward pass, and its logits.

    Args:
        model: the shape.
        size: bytes per number.
        n_windows: windows at once.
        input_size: bytes per number of a matmul's input, as it is saved: fast/int8.py.
    """
    n_tokens, v = n_windows * model.context_length, model.vocab_size
    logits = 2 * size * v  # and their gradient
    block = attention_bytes(model, size, input_size) + feed_forward_bytes(model, size, input_size)
    return n_tokens * (model.n_layers * block + 2 * size * model.d_model + logits)


def plain_step_bytes(model: ModelConfig, dtype: torch.dtype, n_windows: int) -> int:
    """Bytes that torch saves for the backward pass of the plain step, and the logits.

    Args:
        model: the shape.
        dtype: the compute dtype.
        n_windows: windows at once.
    """
    one, two = (kept_bytes(replace(model, n_layers=n, vocab_size=64), dtype) for n in (1, 2))
    block = two - one
    logits = 3 * 4 * model.vocab_size * model.context_length  # their log-softmax, and two gradients
    return n_windows * (one - block + model.n_layers * block + logits)


def evaluation_bytes(model: ModelConfig, size: int) -> int:
    """Peak bytes of one worker while it evaluates."""
    v = model.vocab_size
    in_float32 = 2 * 4 * min(CACHED_LOGITS, BATCH_TOKENS * v)  # with their log-softmax
    block = attention_bytes(model, size, size) + feed_forward_bytes(model, size, size)
    return BATCH_TOKENS * (block + size * v) + in_float32


def attention_bytes(model: ModelConfig, size: int, input_size: int) -> int:
    """Saved bytes per token of one attention sublayer with its residual; on the compiled path."""
    w, t = model.attention_width, model.context_length
    numbers = _norm_numbers(model) + 3 * w  # queries, keys, values
    kv = model.key_value_heads * model.head_width
    if model.qk_norm and model.positions == "rope" and model.normalization == "rmsnorm":
        numbers += w + 2 * kv  # all three before normalization and rotation
    elif model.qk_norm:
        numbers += w + kv
    # Blocks of queries attend to the keys up to their own last one.
    looked_at = sum((last - first) * last for first, last in query_blocks(t))
    weights = model.n_heads * looked_at / t
    inputs = model.d_model + w  # of the first matmuls, and the mixture of values
    return round(size * (numbers + weights)) + input_size * inputs


def feed_forward_bytes(model: ModelConfig, size: int, input_size: int) -> int:
    """Saved bytes per token of one feed-forward sublayer with its residual."""
    c, f = model.d_model, model.feed_forward_width
    slopes = {"swiglu": 2, "gelu": 1, "gelu_tanh": 1, "relu2": 1, "relu": 0}[model.activation]
    numbers, inputs = _norm_numbers(model) + slopes * f, c + f
    if input_size != size:  # inputs that others need too, quantized separately
        inputs += c if model.activation == "swiglu" else 0
        numbers += f if model.activation == "relu" else 0
    return size * numbers + input_size * inputs


def _norm_numbers(model: ModelConfig) -> int:
    """How many numbers per token the norm of a sublayer saves."""
    return model.d_model * sum(NORMS_AT[model.norm_placement])


def windows_that_fit(
    recipe: Recipe, device: Device, limit: int, in_use: int, n_processes: int = 1
) -> tuple[Recipe, int]:
    """Halve the micro-batch until a training fits, or each worker has one window.

    Args:
        recipe, device, in_use, n_processes: as in peak_memory_bytes.
        limit: bytes.

    Returns:
        The recipe with its micro-batch size, and its peak in bytes. A size that the recipe names is
        kept, and stays 0 if the whole batch fits.
    """
    needed = peak_memory_bytes(recipe, device, in_use, n_processes)
    windows = windows_at_once(recipe, n_processes)
    if not recipe.training.micro_batch_size:
        fewest = device.config.threads if device.config.kind == "cpu" else 1
        while needed > limit and windows > fewest:
            windows = -(-windows // 2)
            recipe = replace(recipe, training=replace(recipe.training, micro_batch_size=windows))
            needed = peak_memory_bytes(recipe, device, in_use, n_processes)
    return recipe, needed


def memory_before() -> int:
    """Bytes that this process holds now, with the kernels loaded; without what an earlier training
    in it has loaded, which LIBRARY_BYTES counts.

    Call it before anything is built, since freed memory is not always returned to the system.
    """
    global _held_at_first
    load()
    held = memory_in_use()
    _held_at_first = _held_at_first or held
    return max(held - LIBRARY_BYTES, min(held, _held_at_first))


def memory_limit(recipe: Recipe, device: Device, n_here: int = 1) -> int:
    """Bytes that the recipe allows a process, or else that the machine has for each of `n_here`, or
    that its GPU has free.
    """
    if allowed := round(recipe.device.memory_gigabytes * 1e9):
        return allowed
    on_processor = device.config.kind == "cpu"
    return machine_memory() // n_here if on_processor else free_memory(device.torch)


def fits(recipe: Recipe, device: Device, in_use: int, group: Processes | None = None) -> bool:
    """Whether a training fits into memory as it is; arguments as of fit_memory."""
    n_processes, n_here = _processes(group)
    limit = memory_limit(recipe, device, n_here)
    return peak_memory_bytes(recipe, device, in_use, n_processes) <= limit


def fit_memory(
    recipe: Recipe,
    device: Device,
    in_use: int,
    tell: Callable[[str], None] = lambda line: None,
    group: Processes | None = None,
) -> tuple[Recipe, int]:
    """Choose the largest micro-batch that fits into memory.

    Gradients of a batch are accumulated over as many micro-batches as it takes, so that neither the
    batch nor the loss changes.

    Args:
        recipe: a recipe that has model.vocab_size.
        device: the device it will be trained on.
        in_use: as in peak_memory_bytes.
        tell: receives a line if the whole batch does not fit.
        group: of the processes that train together, if there are several.

    Returns:
        As windows_that_fit.

    Raises:
        UserError: it does not fit.
    """
    n_processes, n_here = _processes(group)
    limit = memory_limit(recipe, device, n_here)
    fitting, needed = windows_that_fit(recipe, device, limit, in_use, n_processes)
    windows = amount(windows_at_once(fitting, n_processes), "window")
    if needed > limit:
        threads = "fewer --device.threads, " if device.config.kind == "cpu" else ""
        less = "--training.micro-batch-size, " if recipe.training.micro_batch_size > 1 else ""
        raise UserError(
            f"This training needs about {needed / 1e9:.1f} GB of memory with {windows} at "
            f"once; {limit / 1e9:.1f} GB are allowed. Give "
            f"{_less_by_sharding(recipe, device, limit, in_use, n_processes)}a smaller "
            f"{less}--size or --model.context-length, {threads}or a higher "
            f"--device.memory-gigabytes."
        )
    if fitting != recipe:
        shared = f", of which each process has {-(-recipe.training.batch_size // n_processes)}"
        tell(
            f"memory: {windows} at once, whose gradients are added up to the batch of "
            f"{recipe.training.batch_size}{shared if n_processes > 1 else ''}"
        )
    return fitting, needed


def _processes(group: Processes | None) -> tuple[int, int]:
    """How many processes train together, and how many of them on this machine."""
    return (group.world_size, group.n_here) if group is not None else (1, 1)


def _less_by_sharding(
    recipe: Recipe, device: Device, limit: int, in_use: int, n_processes: int
) -> str:
    """The first training.sharding with which a training of several processes would fit, as part of
    a sentence; empty without one.
    """
    if n_processes == 1:
        return ""
    plain = replace(device, config=replace(device.config, fast="off"))
    for sharding, choice in sharded(replace(recipe, device=plain.config)).items():
        needed = windows_that_fit(choice, plain, limit, in_use, n_processes)[1]
        if sharding != "none" and needed <= limit:
            return f"--training.sharding {sharding} ({needed / 1e9:.1f} GB), "
    return ""
