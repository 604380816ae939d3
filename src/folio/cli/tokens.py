"""folio tokens: text of any size into a store of tokens."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from folio.cli.guides import say_next
from folio.cli.overrides import Words, check_workers, settings_table, split_words
from folio.config import Table, merge
from folio.console import amount, say, show
from folio.errors import UserError
from folio.storage import json_text

TABLES = ("corpus", "tokenizer")
"""Tables of a recipe that a store has a use for."""


def tokens(
    *sources: Words,
    into: Annotated[Path | None, Parameter(name="--into")] = None,
    workers: int = 0,
    part: str = "1/1",
    json: bool = False,
) -> None:
    """Encode text into a store of tokens: folio tokens SOURCES ... --into STORE

    For text that is too large to be read at once: parquet, jsonl, jsonl.gz, jsonl.zst, folders of
    text, and whatever else folio train reads. Train from it with folio train STORE. What a store
    has already is not made again, so a command that was stopped goes on. Settings of the text and
    the vocabulary are flags: --corpus.validation-tokens 5000000, --corpus.duplicates.remove exact,
    --tokenizer.vocab-size 32768.

    Args:
        sources: Files, folders, globs and archives.
        into: The folder of the store.
        workers: Processes that encode at the same time; 0 takes one for each core.
        part: Make only each N-th shard, beginning with the I-th: I/N. The N commands may run at the
            same time, on machines that share the folder; the last one finishes the store.
        json: Print what the store has as JSON.
    """
    from folio.device import cores
    from folio.recipe.recipe import make_recipe
    from folio.store.directory import Store
    from folio.store.making import Part, make_store

    positional, flags = split_words(sources)
    if not positional or into is None:
        raise UserError("Name the text and the store: folio tokens SOURCES --into STORE")
    given: Table = {"corpus": {"sources": positional}}
    settings = settings_table(flags)
    for table in settings:
        if table not in TABLES:
            raise UserError(
                f"A store takes settings of {' and '.join(TABLES)}, got --{table}. Give that to "
                f"the training: folio train {shlex.quote(str(into))} --{table}..."
            )
    check_workers(workers or 1)
    recipe = make_recipe(merge(given, settings))
    store = Store(into)
    made = make_store(
        store, recipe.corpus, recipe.tokenizer, workers or cores(), say, Part.parse(part)
    )
    if json:
        record = made.index or {"made": made.n_made, "found": made.n_found}
        show(json_text(record, indent=2, ensure_ascii=False))
        return
    show(f"{into}: {amount(made.n_made, 'shard')} made, {made.n_found:,} found")
    if made.index is not None:
        counts, documents = made.index["tokens"], made.index["documents"]
        show(
            f"{counts['training']:,} tokens of {documents['training']:,} documents to train on, "
            f"{counts['validation']:,} of {documents['validation']:,} to validate on"
        )
        say_next("tokens", STORE=shlex.quote(str(into)))
