"""A run on the disk -> the parts of its training."""

from __future__ import annotations

from folio.device import Device
from folio.recipe.build import build, clusters_of
from folio.recipe.origin import kept_text
from folio.recipe.recipe import Recipe
from folio.run.directory import Run
from folio.tokenizers import load
from folio.tokens.loss_mask import open_loss_masks
from folio.tokens.token_file import open_token_file
from folio.training.distributed import Processes
from folio.training.parts import Training

MASKED = ("train", "validation", "kept")
"""Texts of which not all tokens may count."""


def reopen(run: Run, recipe: Recipe, device: Device, group: Processes | None = None) -> Training:
    """Build what a run trains, from its own files.

    Args:
        run: with its tokens.
        recipe: its own, or the same with another budget.
        device: where it goes on.
        group: of the processes that train together, if there are several.
    """
    tokenizer = load(run.tokenizer_file)
    fingerprint = tokenizer.fingerprint
    train, validation = (
        open_token_file(run.tokens_file(part), fingerprint) for part in ("train", "validation")
    )
    clusters = clusters_of(validation, tokenizer, run.families("validation"))
    kept = kept_text(run.tokens_file("kept"), recipe, fingerprint)
    files = {part: run.tokens_file(f"{part}.mask") for part in MASKED}
    masks = open_loss_masks(files, fingerprint)
    return build(recipe, device, train, validation, clusters, kept, masks, group)
