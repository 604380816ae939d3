"""Open a run to use its model."""

from __future__ import annotations

from torch import Tensor

from folio.config import from_table
from folio.device import Device
from folio.errors import UserError
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.run.checkpoint import Checkpoint, list_checkpoints
from folio.run.directory import Run
from folio.run.model import Model
from folio.run.own_code import require_same_code
from folio.tokenizers import load

ATTEMPTS = 20
"""To read a checkpoint while a training writes others."""


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
    checkpoint, tensors, complaints = _read_checkpoint(run, which)
    tokenizer = load(run.tokenizer_file)
    model_config = from_table(ModelConfig, checkpoint.config)
    expected = run.corpus()["tokens"]["tokenizer"]
    if tokenizer.fingerprint != expected or tokenizer.vocab_size > model_config.vocab_size:
        raise UserError(
            f"{run.tokenizer_file} ({tokenizer.vocab_size} ids, {tokenizer.fingerprint[:12]}) is "
            f"not the tokenizer that the model was trained with ({expected[:12]}, at most "
            f"{model_config.vocab_size} ids). Put the run's own tokenizer.json back."
        )
    model = GPT(model_config)
    complaints += require_same_code(model, checkpoint)
    model.load_state_dict(_with_tied_head(tensors, model_config))
    model.eval().requires_grad_(False)
    if device is not None:
        model.to(device.torch)
    return Model(run, checkpoint, model, tokenizer, complaints)


def _read_checkpoint(run: Run, which: str) -> tuple[Checkpoint, dict[str, Tensor], list[str]]:
    """A checkpoint with its weights. A training that goes on deletes old ones between any two of
    our looks; whatever was wrong then is asked again, as long as others are there than before.
    """
    for _ in range(ATTEMPTS):
        before = list_checkpoints(run.checkpoints_folder)
        try:
            checkpoint, complaints = run.checkpoint(which)
            tensors = checkpoint.model_tensors()
        except (UserError, OSError):
            if list_checkpoints(run.checkpoints_folder) == before:
                raise
            continue
        if not complaints or list_checkpoints(run.checkpoints_folder) == before:
            return checkpoint, tensors, complaints
    raise UserError(
        f"The run {run.path} writes checkpoints faster than they can be read. Give one with "
        f"--checkpoint, or keep more of them: --training.keep-checkpoints 5."
    )


def _with_tied_head(tensors: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    if config.tied_head:
        tensors["lm_head.weight"] = tensors["token_embedding.weight"]
    return tensors
