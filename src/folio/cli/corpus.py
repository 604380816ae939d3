"""folio corpus: what is in a text, before anything is trained on it."""

from __future__ import annotations

import shlex
from pathlib import Path

from folio.cli.guides import say_next
from folio.cli.outputs import check_output
from folio.cli.overrides import Repeatable, Words, settings_table, split_words
from folio.config import Table, merge
from folio.console import say, show
from folio.corpus.own import has_page
from folio.storage import json_text


def corpus(
    *sources: Words,
    validation: Repeatable | None = None,
    html: Path | None = None,
    json: bool = False,
) -> None:
    """Show what is in your text: folio corpus [CORPUS ... | RECIPE.toml]

    Reads files, folders, globs and archives as folio train does, and reports where each byte went,
    what was cleaned, which documents are alike, and how much of the validation text occurs in the
    training text. Settings of the corpus are flags: --corpus.cleaning.apply-to all, --corpus.split
    documents, --corpus.duplicates.threshold 0.7.

    Args:
        sources: Text or a recipe, as for folio train.
        validation: An out-of-domain file or folder to hold out, too; repeatable.
        html: The page to write; by default runs/corpus.html.
        json: Print JSON, and write no page unless --html names one.
    """
    from folio.corpus.corpus import read_corpus
    from folio.corpus.page import report_lines, report_page
    from folio.recipe.recipe import lay_over, make_recipe, source_layers
    from folio.run.directory import runs_folder
    from folio.storage import atomic_write

    positional, flags = split_words(sources)
    check_output(html, "--html", has_page)
    given: Table = {"corpus": {"validation": validation}} if validation else {}
    given = merge(given, settings_table(flags))
    config = make_recipe(lay_over(*source_layers(positional), given)).corpus
    report = read_corpus(config).report()
    if json:
        show(json_text(report, indent=2, ensure_ascii=False))
    else:
        show("\n".join(report_lines(report)))
    if html is not None or not json:
        path = html or runs_folder() / "corpus.html"
        with atomic_write(path) as file:
            file.write(report_page(report))
        say(f"{path}")
    if not json:
        names = positional or ([] if "corpus.sources" in dict(flags) else config.sources)
        held_out = [("validation", path) for path in validation or []]
        words = [word for name, value in [*held_out, *flags] for word in (f"--{name}", value)]
        say_next("corpus", CORPUS=shlex.join([*names, *words]))
