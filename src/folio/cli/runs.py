"""folio runs: what has been trained."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from folio.cli.outputs import check_output
from folio.console import duration, say, show, table
from folio.corpus.own import has_page, has_picture
from folio.errors import UserError
from folio.run.directory import Run, find_run, labels_of, list_runs, runs_folder
from folio.run.summary import facts_of
from folio.storage import json_text

HEADER = ["run", "text", "parameters", "steps", "time", "validation", "state"]


def runs(
    *compared: str,
    compare: bool = False,
    page: bool = False,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """List the runs, or compare some: folio runs [--compare A B ...]

    --compare draws their curves, and says whether the models differ.

    Args:
        compared: Runs for --compare.
        compare: Draw the validation curves of the runs that are named, and compare the models on
            the text that they hold out, where it is the same.
        page: With --compare, also write an offline page, runs/compare.html.
        json: Print JSON.
        out: The picture to write; by default runs/compare.svg.
    """
    if (compared or page) and not compare:
        named = shlex.join(compared) or "A B"
        raise UserError(f"folio runs lists all runs; to compare: --compare {named}")
    picture = out or runs_folder() / "compare.svg"
    check_output(out, "--out", has_picture)
    if out and page:
        check_output(_page_beside(picture), "--page", has_page)
    listed = [find_run(name) for name in compared] if compare else list_runs()
    if compare and len(listed) < 2:
        raise UserError("--compare draws at least two runs: folio runs --compare A B")
    if compare:
        _compare(listed, page, json, picture)
        return
    facts = list[dict[str, Any]]()
    for run in listed:
        try:
            facts.append(facts_of(run, run.events()))
        except UserError as error:  # one that is damaged does not hide the others
            say(f"warning: {run.path} is left out: {error}")
    if json:
        show(json_text(facts, indent=2))
    elif not facts:
        show(f"There is no run in {runs_folder()}/. Make one with: folio train")
    else:
        show(table(HEADER, rows_of(facts)))


def _compare(compared: list[Run], page: bool, json: bool, picture: Path) -> None:
    """Show the curves and the differences of some runs."""
    from folio.blocks import draw_blocks
    from folio.run.comparison import (
        differences,
        draw_comparison,
        validation_series,
        write_comparison,
    )
    from folio.run.seeds import group_by_recipe, over_seeds

    events = [run.events() for run in compared]
    facts = [
        facts_of(run, of) | {"run": label}
        for run, of, label in zip(compared, events, labels_of(compared))
    ]
    series = validation_series(compared, events)
    if series:
        draw_comparison(series, picture)
    found = differences(compared, say)
    for fact, difference in zip(facts[1:], found):
        fact["difference"] = difference.record()
    groups = group_by_recipe(compared, facts)
    for fact in facts:
        group = next((g for g in groups if fact["run"] in g.names), None)
        fact["same_recipe"] = group and group.names
    sentences = [difference.sentence for difference in found] + over_seeds(groups)
    path = _page_beside(picture)
    if page:
        write_comparison(path, series, (HEADER, rows_of(facts)), sentences)
    if json:
        show(json_text(facts, indent=2))
        return
    show(table(HEADER, rows_of(facts)))
    if series:
        width = shutil.get_terminal_size().columns
        show("\nvalidation loss by step (nats per token)\n")
        show(draw_blocks(series, width, encoding=sys.stdout.encoding))
    show("\n" + "\n".join(f"{sentence}." for sentence in sentences))
    written = [str(picture)] * bool(series) + [str(path)] * page
    show("\n" + ("\n".join(written) or "None of them was evaluated."))


def _page_beside(picture: Path) -> Path:
    return picture.with_name("compare.html")


def rows_of(facts: list[dict[str, Any]]) -> list[list[str]]:
    """The cells of a table, one row for each run."""
    rows = []
    for fact in facts:
        loss, beside = fact["best_validation_loss"], fact["loss_with_ngrams"]
        rows.append(
            [
                fact["run"],
                fact["text"][:32] + (f" (from {Path(fact['from']).name})" if fact["from"] else ""),
                f"{fact['parameters']:,}",
                f"{fact['step']}/{fact['max_steps']}",
                duration(fact["seconds"]),
                ("-" if loss is None else f"{loss:.4f}")
                + (f" ({beside:.4f} with n-grams)" if beside else ""),
                fact["state"],
            ]
        )
    return rows
