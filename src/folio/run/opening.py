"""Open a run: to use its model, or only to write with it, for which torch need not be loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from folio.config import from_table
from folio.device import cores
from folio.errors import UserError
from folio.fast.arrays import ModelArrays
from folio.fast.decoder import Decoder
from folio.fast.machine_code import can_be_had
from folio.fast.packing import Precision
from folio.fast.written_for import model_is_as_written
from folio.generation.reader import Reader
from folio.generation.with_ngrams import ReaderWithNGrams
from folio.model.config import ModelConfig
from folio.run.checkpoint import Checkpoint, list_checkpoints
from folio.run.directory import Run
from folio.run.ngrams import read_ngrams
from folio.run.writer import CompiledWriter, Writer
from folio.tokenizers import Tokenizer, load

if TYPE_CHECKING:
    from folio.device import Device
    from folio.run.model import Model

ATTEMPTS = 20
"""Attempts to read a checkpoint while a training writes others."""

Weights = TypeVar("Weights")


def open_run(run: Run, which: str = "best", device: Device | None = None) -> Model:
    """Load a checkpoint of a run, in evaluation mode.

    Args:
        run: the run directory.
        which: `best`, `last` or a step.
        device: where to; the CPU by default.

    Raises:
        UserError: no usable checkpoint, a tokenizer that does not fit the model, or a layer that is
            another than the one that was trained.
    """
    from folio.model.gpt import GPT
    from folio.ngrams.gpt import GPTWithNGrams
    from folio.run.model import Model
    from folio.run.own_code import require_same_code

    checkpoint, tensors, complaints = _read(run, which, Checkpoint.model_tensors)
    config = from_table(ModelConfig, checkpoint.config)
    tokenizer = _tokenizer(run, config)
    counted = read_ngrams(run)
    model = GPT(config) if counted is None else GPTWithNGrams(config, *counted)
    complaints += require_same_code(model, checkpoint)
    model.load_state_dict(_with_tied_head(tensors, config))
    model.eval().requires_grad_(False)
    if device is not None:
        model.to(device.torch)
    return Model(run, checkpoint, model, tokenizer, complaints)


def open_to_write(
    run: Run, which: str = "best", weights: Precision = "float32", device: Device | None = None
) -> Writer:
    """Load a checkpoint to write with: by the compiled decoder alone where it computes the same as
    the model, and as `open_run` elsewhere, which also says what is wrong.

    Args:
        run, which: as in `open_run`.
        weights: in which the decoder reads the matrices.
        device: where it writes; None is a processor.

    Raises:
        UserError: as `open_run`.
    """
    if device is not None:
        return replace(open_run(run, which, device), weights=weights)
    checkpoint, arrays, complaints = _read(run, which, Checkpoint.model_arrays)
    config = from_table(ModelConfig, checkpoint.config)
    fits = sum(x.size for x in arrays.values()) == config.n_parameters
    fits = fits and all(x.dtype == np.float32 for x in arrays.values())
    is_ours = model_is_as_written() and not any((checkpoint.own_code or {}).values())
    if not (fits and is_ours and can_be_had(weights)):
        return replace(open_run(run, which), weights=weights)
    tokenizer = _tokenizer(run, config)
    model = ModelArrays(config, _with_tied_head(arrays, config))
    reader: Reader = Decoder(model, weights, cores())
    if (counted := read_ngrams(run)) is not None:
        ngrams, to_write, _ = counted
        reader = ReaderWithNGrams(reader, ngrams, to_write)
    return CompiledWriter(run, checkpoint, config, reader, tokenizer, complaints)


def _tokenizer(run: Run, config: ModelConfig) -> Tokenizer:
    """The tokenizer of a run, which must be that of its model."""
    tokenizer = load(run.tokenizer_file)
    expected = run.corpus()["tokens"]["tokenizer"]
    if tokenizer.fingerprint != expected or tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{run.tokenizer_file} ({tokenizer.vocab_size} ids, {tokenizer.fingerprint[:12]}) is "
            f"not the tokenizer that the model was trained with ({expected[:12]}, at most "
            f"{config.vocab_size} ids). Put the run's own tokenizer.json back."
        )
    return tokenizer


def _read(
    run: Run, which: str, read: Callable[[Checkpoint], Weights]
) -> tuple[Checkpoint, Weights, list[str]]:
    """Read a checkpoint and its weights. A running training may delete old checkpoints at any
    moment, so a failure is retried as long as the list of checkpoints changes.
    """
    for _ in range(ATTEMPTS):
        before = list_checkpoints(run.checkpoints_folder)
        try:
            checkpoint, complaints = run.checkpoint(which)
            weights = read(checkpoint)
        except (UserError, OSError):
            if list_checkpoints(run.checkpoints_folder) == before:
                raise
            continue
        if not complaints or list_checkpoints(run.checkpoints_folder) == before:
            return checkpoint, weights, complaints
    raise UserError(
        f"The run {run.path} writes checkpoints faster than they can be read. Give one with "
        f"--checkpoint, or keep more of them: --training.keep-checkpoints 5."
    )


def _with_tied_head(weights: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    if config.tied_head:
        weights["lm_head.weight"] = weights["token_embedding.weight"]
    return weights
