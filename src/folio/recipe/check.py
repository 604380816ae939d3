"""Compares what a run will compute with plain torch before it begins.

Wrong kernels go unnoticed: a model trained with them still learns, but less, or something else. So
one small batch is computed twice: by the step of the run, and by the plain step in float32 on the
CPU. Loss and gradient norm must agree within the precision. The verdict is cached until the model,
the kernels or the machine change.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import nn

import folio
from folio.device import Device, DeviceConfig, one_thread, processor_name
from folio.errors import UserError
from folio.fast.accelerate import is_known, not_accelerated
from folio.model.dropout import Dropout
from folio.recipe.build import make_step, why_plain
from folio.recipe.recipe import Recipe
from folio.storage import cache_folder, write_json
from folio.tokens.stream import Batch
from folio.training.batches import peek
from folio.training.config import OptimizerConfig
from folio.training.fsdp_step import FSDPStep
from folio.training.parts import Training
from folio.training.step import Gradient, PlainStep

N_WINDOWS, N_TOKENS = 4, 128
"""Largest number of windows, and of tokens per window, in the batch that is compared."""

TOLERANCE = {
    "float32": (1e-4, 1e-3),
    "bfloat16": (2e-3, 0.01),
    "float16": (2e-3, 0.01),
    "int8": (2e-3, 0.02),
}
"""Precision -> tolerance of loss and norm, as `agree` takes them: more than ten times the
differences seen with the presets (docs/experiments.md), since weights and texts vary."""
LEARNED = 5.0
"""Factor on the tolerance for weights of another run, but in float32: the differences above were
seen with random weights, and a trained model has logits of tens, of which bfloat16 keeps two
digits. One window of SmolLM2-135M differed by 0.0024 of its loss."""

CHECKED = ("model", "fast", "training")
"""Rooms whose sources are in the key of a verdict."""


def check(
    training: Training, recipe: Recipe, tell: Callable[[str], None] = lambda line: None
) -> None:
    """Compare the step of a run with the plain one, unless the cache has a verdict.

    Args:
        training: the parts of the training.
        recipe: the recipe they were built from.
        tell: receives a line about what is not accelerated.

    Raises:
        UserError: they differ by more than the precision explains.
    """
    device = training.device
    if reason := why_plain(training.model, device):
        dtype = str(device.dtype).removeprefix("torch.")
        tell(f"{reason}, so the plain step trains, in {dtype}: slower, as it is written")
    elif device.is_fast:
        from folio.training.parallel.updates import not_sharded  # loads numba

        slow = not_accelerated(training.model) + not_sharded(recipe.optimizer, training.model)
        if slow:
            tell(f"not accelerated, so that they run as they are written: {', '.join(slow)}")
    if isinstance(training.step, FSDPStep):
        return  # torch's own, of a model that this process may have no room for
    if isinstance(training.step, PlainStep) and _is_reference(device):
        return
    verdict = cache_folder() / "checks" / f"{_key(device, recipe)}.json"
    can_be_kept = is_known(training.model)
    if can_be_kept and verdict.exists():
        return
    batch = Batch(*(rows[:N_WINDOWS, :N_TOKENS] for rows in peek(training)))
    if training.stream.loss_mask is not None:  # without a counted target anything would agree
        batch = batch._replace(targets=np.roll(batch.inputs, -1, axis=1))
    found, expected = compare(training.model, device, recipe, batch)
    if not math.isfinite(expected.loss):
        raise UserError(
            f"By torch alone, the model has a loss of {expected.loss} before its first step: "
            f"something that it computes is not finite. Look at layers of your own, and at the "
            f"settings of the model."
        )
    precise = device.config.precision == "float32"
    scale = LEARNED if recipe.start.run and not precise else 1.0
    if not agree(found, expected, device.config.precision, scale):
        is_fast = device.is_fast or device.is_accelerated
        way_out = (
            "--device.precision float32" if device.config.kind == "cpu" else "--device.kind cpu"
        )
        raise UserError(
            f"{device.torch} in {device.config.precision} computes a loss of {found.loss:.4f} "
            f"and a gradient of norm {found.norm:.4g} where torch alone computes "
            f"{expected.loss:.4f} and {expected.norm:.4g}: it cannot be trusted with this "
            f"model. Give {'--device.fast off' if is_fast else way_out}."
        )
    if not can_be_kept:
        return
    with suppress(UserError):  # the cache cannot be written: compare again next time
        write_json(verdict, {"found": found._asdict(), "expected": expected._asdict()})


def agree(found: Gradient, expected: Gradient, precision: str, scale: float = 1.0) -> bool:
    """Whether two computations of a batch differ by no more than a precision explains, times a
    scale.

    A loss is a difference of logits, whose rounding error does not shrink with the loss, as on a
    text of one letter; so a loss below 1 nat may be off by as much as a loss of 1.
    """
    loss, norm = (scale * share for share in TOLERANCE[precision])
    return (
        abs(found.loss - expected.loss) <= loss * max(abs(expected.loss), 1.0)
        and abs(found.norm - expected.norm) <= norm * abs(expected.norm)
    )  # fmt: skip


def compare(
    model: nn.Module, device: Device, recipe: Recipe, batch: Batch
) -> tuple[Gradient, Gradient]:
    """Compute a batch with the step of a device, and with the plain step in float32 on the CPU.

    Both use copies of the model without dropout, since their masks would differ.
    """
    config = replace(recipe.training, batch_size=len(batch.inputs), micro_batch_size=0)
    optimizer = OptimizerConfig(kind="sgd")  # it has no state, since no weight moves
    recipe = replace(recipe, training=config, optimizer=optimizer)
    with one_thread():
        found = make_step(_without_dropout(model), device, recipe).backward(batch, 0)
        gc.collect()
        plain = PlainStep(_without_dropout(model).cpu(), REFERENCE, config, optimizer)
        return found, plain.backward(batch, 0)


REFERENCE = Device(DeviceConfig(kind="cpu", precision="float32", threads=1, fast="off"), "")


def _is_reference(device: Device) -> bool:
    return (device.config.kind, device.config.precision) == ("cpu", "float32")


def _without_dropout(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model)
    for layer in copied.modules():
        if isinstance(layer, Dropout):
            layer.p = 0.0
    return copied


def _key(device: Device, recipe: Recipe) -> str:
    """Return a key of everything that a verdict depends on."""
    digest = hashlib.sha256()
    root = Path(folio.__file__).parent
    for room in CHECKED:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.read_bytes())
    config = device.config
    kernels = config.fast, import_module("numba").__version__ if device.is_fast else ""
    machine = torch.__version__, processor_name(), config.kind, config.precision, config.threads
    settings = recipe.model, recipe.training.confidence_penalty, *machine, *kernels
    digest.update(repr(settings).encode())
    return digest.hexdigest()[:32]
