"""Begins with the weights of a run: its model, its text, and its loss before the first step.

A run that begins with another has a checkpoint of step 0, written before the run exists, so it no
longer needs its origin: resuming it finds the weights where all runs have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from folio.config import Table
from folio.device import Device, cores
from folio.errors import UserError
from folio.model.gpt import GPT
from folio.ngrams.gpt import GPTWithNGrams
from folio.recipe.recipe import Recipe
from folio.run.checkpoint import Checkpoint, Tensors, checkpoint_name, open_checkpoint
from folio.run.directory import Run
from folio.run.fine_tuning import write_start
from folio.run.held_out import OLD_TARGETS, OLD_TEXT, HeldOut, evaluate_on
from folio.run.model import Model
from folio.run.opening import open_run
from folio.storage import cache_folder
from folio.tokenizers.base import CHAT_TOKENS, TokenIds, Tokenizer
from folio.tokens.token_file import open_token_file, write_token_file
from folio.training.low_rank import corrected, load_model_tensors
from folio.training.parts import Training
from folio.training.recorder import RunRecorder
from folio.training.state import TrainingState

POSITIONS = "positions.weight"


@dataclass(frozen=True)
class Origin:
    """Holds the run that a training begins with."""

    opened: Model
    """With the context of the new run, so that its losses can be compared with those after it."""
    files: dict[str, Path]
    """Its texts in the new run: `kept`, mixed into training, and `old`, held out."""
    before: HeldOut | None
    """Its loss on its own held-out text; None if it has none."""
    n_ids: int
    """Vocabulary size of the new run."""

    def weights(self, n_rows: int) -> Tensors:
        """The weights with `n_rows` rows of the vocabulary; rows of new ids, and of those it lacks,
        are the mean of all rows that stand for text. Learned positions are cut to the context.
        """
        n_known = self.opened.tokenizer.vocab_size
        tensors = dict(self.opened.checkpoint.model_tensors())
        if POSITIONS in tensors:
            tensors[POSITIONS] = tensors[POSITIONS][: self.opened.model.config.context_length]
        for name in ("token_embedding.weight", "lm_head.weight"):
            if name not in tensors or (self.n_ids == n_known and len(tensors[name]) == n_rows):
                continue
            rows = tensors[name]
            grown = rows[:n_known].mean(0).repeat(n_rows, 1)
            grown[:n_known] = rows[:n_known]
            grown[self.n_ids : len(rows)] = rows[self.n_ids :]  # these only pad
            tensors[name] = grown
        return tensors

    @property
    def families(self) -> Sequence[int]:
        """Family of each text of `old`."""
        return self.opened.run.families("validation")

    def begin(self, run: Run, recipe: Recipe, training: Training) -> None:
        """Load the weights into a training, and write them to its run as the checkpoint of step 0.

        Their loss on the new text is measured by the loop, before the first step.
        """
        load_model_tensors(training.model, self.weights(recipe.model.vocab_size))
        state = TrainingState(evaluated_step=-1, cores=cores())
        RunRecorder(run, training, recipe.model).save(state)
        write_start(run, recipe.start.run, recipe.start.sha256, self.before)


def open_origin(
    recipe: Recipe,
    given: Table | None,
    device: Device,
    tokenizer: Tokenizer,
    tell: Callable[[str], None],
) -> tuple[Recipe, Origin | None]:
    """Open the run that a recipe begins with.

    Args:
        recipe: a recipe that `started` completed.
        given: what the user gave, which shows whether old text was asked for or is the default.
        device: the device that measures its loss.
        tokenizer: the tokenizer of the new run: the same, or with more tokens at its end.
        tell: receives a line about what the run begins with.

    Returns:
        The recipe, which keeps nothing if there is no old text; and None for random weights.

    Raises:
        UserError: the run cannot be opened, or lacks the old text that was asked for.
    """
    start = recipe.start
    if not start.run:
        return recipe, None
    if not start.sha256:
        raise UserError("Only folio train begins with a run: folio train TEXT --from RUN")
    opened = open_run(Run(Path(start.run)), start.checkpoint)
    own, opened = opened.model.config, _shortened(opened, recipe.model.context_length)
    if opened.model.config != own:
        tell(f"windows of {recipe.model.context_length:,} of its {own.context_length:,} positions")
    run = opened.run
    files: dict[str, Path] = {}
    has_text = run.tokens_file("train").exists()
    if not has_text and start.keep:
        if given and given.get("start", {}).get("keep"):
            raise UserError(
                f"The run {run.path} has no training text (tokens/train.bin) of which --keep "
                f"{start.keep:g} could be taken. Give --keep 0."
            )
        recipe = replace(recipe, start=replace(start, keep=0.0))
    if recipe.start.keep:
        files |= _taken_over(opened, "train", "kept", start.sha256, tokenizer)
    before = None
    if run.tokens_file("validation").exists():
        before = evaluate_on(opened, "validation", device, OLD_TARGETS)
    if before is not None:
        files |= _taken_over(opened, "validation", "old", start.sha256, tokenizer)
        before = replace(before, name=OLD_TEXT)
    n_new = tokenizer.vocab_size - opened.tokenizer.vocab_size
    if n_new:
        if start.lora:
            raise UserError(
                f"The vocabulary of {run.path} gets {n_new} tokens of conversations, whose rows "
                f"LoRA would leave as they are. Leave --lora out: all weights learn them."
            )
        tell(
            f"{n_new} tokens are new to the vocabulary of {run.path}, {', '.join(CHAT_TOKENS)}: "
            f"their rows begin as the mean of all others"
        )
    if start.lora:
        tell(f"LoRA of rank {start.lora}: by AdamW and the plain step, not the fast one")
    share = f"{recipe.start.keep:.0%} of each batch is the old text" if files.get("kept") else ""
    tell(
        f"begins with step {opened.checkpoint.step:,} of {run.path}; "
        f"{share or 'no old text is kept'}, rates times {start.rate_factor:g}"
    )
    return recipe, Origin(opened, files, before, tokenizer.vocab_size)


def _shortened(opened: Model, context_length: int) -> Model:
    """Give a model with its first positions alone, and without n-grams."""
    config = replace(opened.model.config, context_length=context_length)
    if config == opened.model.config and not isinstance(opened.model, GPTWithNGrams):
        return opened
    model, weights = GPT(config), opened.model.state_dict()
    if POSITIONS in weights:
        weights[POSITIONS] = weights[POSITIONS][:context_length]
    model.load_state_dict(weights)
    return replace(opened, model=model.eval().requires_grad_(False))


def _taken_over(
    opened: Model, part: str, name: str, sha256: str, tokenizer: Tokenizer
) -> dict[str, Path]:
    """The token file of a part of a run and its mask, for use in another run.

    If tokens were added at the end of the vocabulary, the same ids are rewritten under its
    fingerprint.
    """
    files: dict[str, Path] = {}
    for suffix in ("", ".mask"):
        file = opened.run.tokens_file(part + suffix)
        if not file.exists():
            continue
        if tokenizer.fingerprint != opened.tokenizer.fingerprint:
            ids = open_token_file(file, opened.tokenizer.fingerprint)
            folder = cache_folder() / "tokens" / f"{sha256[:32]}-{tokenizer.fingerprint[:32]}"
            file = folder / file.name
            if not file.exists():
                write_token_file(file, [ids], ids.dtype, tokenizer.fingerprint)
        files[name + suffix] = file
    return files


def weights_to_load(run: Run, checkpoint: Checkpoint, model: nn.Module) -> Tensors:
    """The weights with which a model resumes from a checkpoint of its run, by name.

    With LoRA a checkpoint has merged weights; the frozen weights are then those of step 0, and the
    low-rank corrections come from the optimizer state.
    """
    if corrected(model):
        return open_checkpoint(run.checkpoints_folder / checkpoint_name(0)).model_tensors()
    return checkpoint.model_tensors()


def require_no_origin(run: Run) -> None:
    """Refuse to restart with random weights a run that began with those of another.

    Raises:
        UserError: the run began with another run's weights, and has no usable checkpoint.
    """
    if run.start_file.exists():
        raise UserError(
            f"The run {run.path} began with the weights of another run, and has no usable "
            f"checkpoint left. Start anew with: {run.again}"
        )


def kept_text(file: Path | None, recipe: Recipe, fingerprint: str) -> TokenIds | None:
    """(N,) the old text that is mixed into training; None if none is."""
    if file is None or not recipe.start.kept:
        return None
    return open_token_file(file, fingerprint)
