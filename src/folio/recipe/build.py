"""A recipe and its tokens -> the parts of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from folio.device import Device, choose_device
from folio.errors import UserError
from folio.evaluation.uncertainty import text_blocks
from folio.fast.written_for import is_as_written
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.recipe.recipe import Recipe
from folio.tokenizers.base import TokenIds, Tokenizer
from folio.tokens.goldfish import TOKENS_BEFORE
from folio.tokens.loss_mask import LossMask
from folio.tokens.mixture import Mixture
from folio.tokens.stream import TokenStream
from folio.training import gradients, objective, step
from folio.training.accelerated.step import AcceleratedStep
from folio.training.distributed import Processes
from folio.training.fsdp_step import FSDPStep
from folio.training.low_rank import add_low_rank
from folio.training.pace import Pace
from folio.training.parts import Training
from folio.training.sharded_optimizer import Replicated, ShardedOptimizer
from folio.training.step import PlainStep, Step


def choose_for(recipe: Recipe) -> Device:
    """Choose the device for a recipe, by timing matmuls as large as those of its model."""
    model = recipe.model
    windows = recipe.training.micro_batch_size or recipe.training.batch_size
    config = recipe.device
    if recipe.training.sharding != "none" and config.fast == "auto":
        config = replace(config, fast="off")
    return choose_device(config, min(windows * model.context_length, 4096), model.d_model)


def fit_vocabulary(recipe: Recipe, n_ids: int) -> Recipe:
    """Set model.vocab_size; a run to begin with may get new rows for chat tokens.

    Raises:
        UserError: fewer rows than the tokenizer has ids.
    """
    rows = recipe.model.vocab_size or n_ids
    if rows < n_ids and recipe.start.run:
        rows = n_ids
    if rows < n_ids:
        raise UserError(
            f"model.vocab_size must be at least {n_ids}, the ids of the tokenizer, got {rows}. "
            f"Leave it out, or give 0, for that size."
        )
    return replace(recipe, model=replace(recipe.model, vocab_size=rows))


def build(
    recipe: Recipe,
    device: Device,
    training: TokenIds,
    validation: TokenIds,
    validation_cluster: NDArray[np.integer] | None = None,
    kept: TokenIds | None = None,
    masks: Mapping[str, LossMask] | None = None,
    group: Processes | None = None,
) -> Training:
    """Build the parts of a training; equal recipes give equal weights.

    Args:
        recipe: what to train.
        device: the device to train on.
        training, validation: token ids.
        validation_cluster: as in Training.
        kept: token ids of an old text, which is `start.keep` of each batch.
        masks: loss masks of `train`, `validation` and `kept`, if not all of their tokens count.
        group: of the processes that train together, if there are several.

    Raises:
        UserError: a text is shorter than one window.
    """
    if len(validation) < 2:
        raise UserError(
            f"The validation text has {len(validation)} tokens, too few for a loss. "
            f"Give more text, or a larger --corpus.validation-fraction."
        )
    generator = torch.Generator().manual_seed(recipe.seed)
    if group is not None and recipe.training.sharding == "full":  # no card may have room for it
        model = _divided(recipe.model, generator, group)
    else:
        model = GPT(recipe.model, generator)
        if recipe.start.lora:
            add_low_rank(model, recipe.start.lora, generator)
        model.to(device.torch)
    torch.manual_seed(recipe.seed)  # dropout on an accelerator draws from the global state
    masks = masks or {}
    stream = make_stream(recipe, training, masks.get("train"))
    if kept is not None:
        if len(kept) <= recipe.model.context_length:
            raise UserError(
                f"The old text has {len(kept)} tokens, fewer than one window of "
                f"{recipe.model.context_length} and the token after it. Give --keep 0."
            )
        old = make_stream(recipe, kept, masks.get("kept"))
        stream = Mixture(stream, old, recipe.start.kept)
    return Training(
        model=model,
        step=make_step(model, device, recipe, group),
        stream=stream,
        validation=validation,
        context_length=recipe.model.context_length,
        device=device,
        config=recipe.training,
        optimizer_config=recipe.optimizer,
        schedule=recipe.schedule,
        pace=Pace.of(recipe.schedule.pace, recipe.training.max_steps),
        validation_cluster=validation_cluster,
        validation_mask=masks.get("validation"),
    )


def _divided(config: ModelConfig, generator: torch.Generator, group: Processes) -> GPT:
    """The whole model in the first process; in the others one without values, which take theirs
    from the first (fsdp_step.py).
    """
    if group.rank == 0:
        return GPT(config, generator)
    with torch.device("meta"):
        return GPT(config)


def make_stream(recipe: Recipe, tokens: TokenIds, loss_mask: LossMask | None = None) -> TokenStream:
    """Build the stream of (N,) token ids in the order that a recipe says; `loss_mask` as in
    TokenStream.
    """
    before = recipe.training.goldfish_before or TOKENS_BEFORE  # settle.py writes that of a run
    return TokenStream(
        tokens,
        window=recipe.model.context_length,
        seed=recipe.seed,
        config=recipe.stream,
        lanes=recipe.training.batch_size,
        goldfish=(recipe.training.goldfish, before),
        loss_mask=loss_mask,
    )


def make_step(
    model: nn.Module, device: Device, recipe: Recipe, group: Processes | None = None
) -> Step:
    """Build the training step: on a CPU the parallel one on all cores, on a GPU the accelerated
    one, unless `device.fast` is off or `why_plain` says why not. Where several processes divide
    more than the windows, it is this process's part.

    Raises:
        UserError: the plain step was changed, and the processes divide the model.
    """
    config, optimizer = recipe.training, recipe.optimizer
    if group is not None and config.sharding == "full":
        if changed := changed_file(step, gradients):
            raise UserError(
                f"training.sharding = full trains by training/fsdp_step.py, but {changed} was "
                f"changed, which would not run. Give --training.sharding optimizer, or undo that."
            )
        return FSDPStep(model, device, config, optimizer, group, recipe.seed)
    if group is not None and config.sharding == "optimizer":
        divided = ShardedOptimizer(optimizer, model, group, Replicated(group))
        return PlainStep(model, device, config, optimizer, divided)
    if why_plain(model, device):
        return PlainStep(model, device, config, optimizer)
    if device.is_fast:
        from folio.training.parallel.step import ParallelStep  # loads numba

        return ParallelStep(model, device, config, optimizer, recipe.seed)
    if device.is_accelerated:
        is_compiled = recipe.device.compile == "on" and device.config.kind == "cuda"
        return AcceleratedStep(model, device, config, optimizer, is_compiled)
    return PlainStep(model, device, config, optimizer)


def why_plain(model: nn.Module, device: Device) -> str:
    """Say why the plain step trains on a device that has a faster one; empty if it does not."""
    if not (device.is_fast or device.is_accelerated):
        return ""
    if changed := changed_file(step, gradients, objective):
        return f"{changed} was changed"
    frozen = (name for name, p in model.named_parameters() if not p.requires_grad)
    if device.is_fast and (name := next(frozen, None)):
        return f"{name} is frozen"
    return ""


def changed_file(*modules: ModuleType) -> str:
    """Name the first of some modules that is not what its faster twin was written for."""
    changed = (x.__name__ for x in modules if not is_as_written(x))
    return next((f"{name.replace('.', '/')}.py" for name in changed), "")


def clusters_of(
    validation: TokenIds, tokenizer: Tokenizer, families: Sequence[int]
) -> NDArray[np.int32]:
    """(N,) the cluster of similar texts of each validation token, numbered from 0.

    Args:
        validation: (N,) token ids.
        tokenizer: the tokenizer that made them.
        families: family of each text; if empty, each is its own.
    """
    blocks = text_blocks(validation, tokenizer.end_of_document, families)
    return np.unique(blocks, return_inverse=True)[1].astype(np.int32)
