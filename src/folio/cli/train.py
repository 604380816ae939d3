"""folio train: text in, a run out."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from cyclopts import Parameter

from folio.cli.overrides import (
    Repeatable,
    Words,
    describe_settings,
    from_a_run,
    settings_table,
    split_words,
)
from folio.config import Table, merge, split_names
from folio.console import show
from folio.errors import UserError
from folio.run.directory import check_name
from folio.training.config import check_budget


def train(
    *corpus: Words,
    minutes: float | None = None,
    name: str | None = None,
    from_run: Annotated[str | None, Parameter(name="--from")] = None,
    keep: float | None = None,
    lora: int | None = None,
    validation: Repeatable | None = None,
    page: bool = False,
    log: Repeatable | None = None,
    settings: bool = False,
    json: bool = False,
) -> None:
    """Train a model on a text: folio train [CORPUS ... | RECIPE.toml] [--TABLE.SETTING VALUE ...]

    CORPUS is any number of files, folders, globs and archives (txt, md, html, pdf, docx, odt,
    epub, csv, jsonl, ipynb, source code ...), - for standard input, or a built-in name:
    python-docs (the default, on every machine) or shakespeare. One file that ends in .toml is a
    recipe. Any setting of a recipe is a flag too: --model.n-layers 6,
    --preset gpt2, --size micro, --device.kind cpu.

    Args:
        corpus: Text, or a recipe.
        minutes: How long to train, in minutes, the whole command included; 5 if no other budget
            is given.
        name: Name of the run in runs/.
        from_run: Begin with the weights and the vocabulary of a run: its best checkpoint, or
            RUN:last or RUN:500; or with a transformers folder or a GGUF file.
        keep: Share of each batch that comes from that run's own text, so that it is not forgotten;
            0.25 by default, 0 uses none of it.
        lora: Freeze the weights of that run, and train low-rank corrections (LoRA) of this rank.
        validation: An out-of-domain file or folder to hold out, too; repeatable.
        log: Show the run in tensorboard, wandb or mlflow, too, each an extra of that name; several
            with commas. All stay on this machine unless their own variables say otherwise.
        page: Keep a page in the run, page.html, that shows the curve and samples while it goes on.
        settings: List every setting with its value for this preset, size and recipe, and stop.
        json: Print how it ended as JSON.
    """
    positional, flags = split_words(corpus)
    given: Table = {}
    if minutes is not None:
        check_budget("--minutes", minutes)
        given = merge(given, {"training": {"minutes": float(minutes)}})
    if validation:
        given = merge(given, {"corpus": {"validation": validation}})
    if from_run is not None:
        given = merge(given, {"start": {"run": from_run}})
    if lora is not None:
        given = merge(given, {"start": {"lora": lora}})
    if page:
        given = merge(given, {"training": {"page": True}})
    if log is not None:
        given = merge(given, {"training": {"log": split_names(log)}})
    if keep is not None:
        given = merge(given, {"start": {"keep": float(keep)}})

    from folio.recipe.recipe import lay_over, make_recipe, source_layers
    from folio.recipe.start import started

    # One layer: of two budgets on one command line neither replaces the other.
    laid = lay_over(*source_layers(positional), merge(given, settings_table(flags)))
    table = started(from_a_run(laid))
    recipe = make_recipe(table)
    if keep and not recipe.start.run:
        raise UserError(f"--keep {keep:g} keeps text of a run to begin with. Name it: --from RUN")
    if settings:
        show(describe_settings(recipe))
        return
    if name is not None:
        check_name(name)

    # Only now, since it loads torch: mistakes are answered at once.
    from folio.cli.watching import TerminalWatcher, leave_with
    from folio.console import stop_requested
    from folio.device import process_seconds
    from folio.recipe.budget import CommandClock
    from folio.recipe.resume import train_or_go_on

    clock = CommandClock(process_seconds())
    with stop_requested() as should_stop, closing(TerminalWatcher()) as watcher:
        result = train_or_go_on(recipe, name, watcher, should_stop, table, clock)
    leave_with(result, json)
