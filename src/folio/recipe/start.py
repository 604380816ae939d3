"""Which run a training begins with, and what it takes over from it. Free of torch.

`origin.py` loads the weights themselves.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folio.config import Table, dotted, from_table, merge, read_toml, require, to_table
from folio.errors import UserError
from folio.model.config import ModelConfig
from folio.run.checkpoint import Checkpoint
from folio.run.directory import Run, find_run, runs_folder
from folio.storage import local
from folio.tokenizers.config import TokenizerConfig

OPEN = ("embedding_dropout", "attention_dropout", "residual_dropout", "initialization_std")
"""Settings of a model that do not change what its weights mean."""


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """Begin with the weights of a run and continue on another text: fine-tuning."""

    run: str = ""
    """The run whose weights, vocabulary and shape are taken: a name or a path for its best
    checkpoint, or RUN:last or RUN:500. If empty, weights are random, and the settings below mean
    nothing."""

    checkpoint: str = "best"
    """best, last or a step. Folio writes the step."""

    sha256: str = ""
    """Hash of those weights. Folio writes it, so that the recipe never begins with others."""

    keep: float = 0.25
    """Share of each batch that comes from the text that the run learned from, so that it is not
    forgotten; 0 uses none of that text."""

    rate_factor: float = 0.3
    """Factor on the default learning rates, if none is given. Full rates learn more of the new text
    and forget more of the old one; smaller ones learn too slowly (docs/experiments.md, "Going on
    with another text"). LoRA wants 3 and more."""

    lora: int = 0
    """Rank of the low-rank corrections (LoRA, https://arxiv.org/abs/2106.09685) that are trained
    while the weights are frozen; 0 trains all weights. Requires AdamW and the plain step."""

    def __post_init__(self) -> None:
        require(self, "start", "0 or more", lambda x: x >= 0, "lora")
        if self.lora and not self.run:
            raise UserError("start.lora corrects the weights of a run. Name it: --from RUN")
        require(self, "start", "0 to below 1", lambda x: 0 <= x < 1, "keep")
        require(self, "start", "above 0", lambda x: x > 0, "rate_factor")

    @property
    def kept(self) -> float:
        """The share of old text in what is read."""
        return self.keep if self.run else 0.0


def started(table: Table) -> Table:
    """Fill in what a training takes over from the run that it begins with.

    Args:
        table: what the user gave; returned unchanged if it names no run.

    Returns:
        The table with the shape, vocabulary and batch size of the run, its absolute path, the step
        of its checkpoint, and the sha256 of its weights. The context may be shorter.

    Raises:
        UserError: there is no such run, its weights are not those that the table names, or a
            setting contradicts it.
    """
    start = table.get("start", {})
    if not isinstance(start, dict) or not start.get("run"):
        return table
    if not table.get("corpus", {}).get("sources"):
        name = shlex.quote(str(start["run"]))
        raise UserError(f"Name the text to go on with: folio train TEXT --from {name}")
    run, checkpoint = _find(start)
    recipe = read_toml(run.recipe_file)
    model = to_table(from_table(ModelConfig, checkpoint.config))
    tokenizer = TokenizerConfig(
        kind="file",
        path=str(run.tokenizer_file.resolve()),
        sequence=recipe.get("tokenizer", {}).get("sequence", "none"),
    )
    fixed: Table = {key: recipe[key] for key in ("preset", "size") if key in recipe}
    rows = model.pop("vocab_size")  # at least: conversations may add some
    wanted = table.get("model", {}).get("vocab_size", rows)
    if isinstance(wanted, int) and wanted >= rows:
        usual_model = {"vocab_size": wanted}
    else:
        usual_model, model["vocab_size"] = {}, rows
    positions = model["context_length"]
    wanted = table.get("model", {}).get("context_length")
    if type(wanted) is int and 0 < wanted < positions:  # it begins with those positions
        model["context_length"] = wanted
    fixed["model"] = {key: value for key, value in model.items() if key not in OPEN}
    fixed["tokenizer"] = to_table(tokenizer)
    for name, given, own in contradictions(table, fixed):
        raise UserError(
            f"{name} is {given}, but the run {run.path} that this training begins with has {own}: "
            f"leave it out, or train from scratch without --from."
        )
    training = recipe.get("training", {})
    batch: Table = {}
    if "batch_size" in training:  # as many tokens a step, in windows as long as the positions
        batch["batch_size"] = training["batch_size"] * positions // model["context_length"]
    usual: Table = {"training": batch, "model": usual_model}
    if start.get("lora"):
        usual |= {"optimizer": {"kind": "adamw"}, "device": {"fast": "off"}}
    found = {"run": str(run.path.resolve()), "checkpoint": str(checkpoint.step)}
    found["sha256"] = checkpoint.weights_sha256
    return merge(usual, fixed, table, {"start": found})


def foreign_files(name: str) -> Path | None:
    """The transformers folder or GGUF file at this path; None if it is a run or nothing of the
    kind.
    """
    path = local(name)
    if any(Run(p).exists() for p in (runs_folder() / name, path)):
        return None
    is_foreign = (path / "config.json").is_file() or (path.suffix == ".gguf" and path.is_file())
    return path if is_foreign else None


def begins_anew(table: Table) -> Table:
    """The settings without what Folio wrote about the run they began with, to begin with
    another.
    """
    start = {k: v for k, v in table["start"].items() if k not in ("checkpoint", "sha256")}
    tokenizer = {k: v for k, v in table.get("tokenizer", {}).items() if k != "path"}
    return table | {"start": start, "tokenizer": tokenizer}


def _find(start: Table) -> tuple[Run, Checkpoint]:
    """Find the run and the checkpoint that a table names."""
    name, which = str(start["run"]), str(start.get("checkpoint", "best"))
    before, colon, after = name.rpartition(":")
    if colon and (after in ("best", "last") or after.isdecimal()):
        name, which = before, after
    wanted = start.get("sha256")
    try:
        run = find_run(str(local(name)))
        checkpoint, complaints = run.checkpoint(which)
    except UserError as error:
        if not wanted:
            raise
        raise UserError(
            f"The weights that this recipe begins with, of step {which} of {name}, are not there "
            f"any more: {error} Name where they are now: --from RUN"
        ) from None
    if complaints:
        raise UserError(f"{complaints[0]} Begin with another one: --from {shlex.quote(name)}:last")
    if wanted and wanted != checkpoint.weights_sha256:
        raise UserError(
            f"The weights of {checkpoint.path} are others than those that this recipe begins with "
            f"(sha256 {checkpoint.weights_sha256[:12]}, not {wanted[:12]}). Take them as they are "
            f"with: --from {shlex.quote(name)}:{which}"
        )
    return run, checkpoint


def contradictions(given: Table, fixed: Table) -> list[tuple[str, Any, Any]]:
    """Dotted name, given value and the run's own value of each setting that contradicts the run.

    >>> contradictions({"seed": 2, "model": {"bias": True}}, {"seed": 1, "model": {"n_layers": 4}})
    [('seed', 2, 1)]
    """
    there = dict(dotted(given))
    return [
        (name, there[name], own)
        for name, own in dotted(fixed)
        if name in there and there[name] != own
    ]
