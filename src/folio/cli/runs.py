"""folio runs: what has been trained."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from folio.console import duration, show, table
from folio.errors import UserError
from folio.run.directory import find_run, list_runs, runs_folder
from folio.run.summary import facts_of
from folio.storage import json_text


def runs(
    *compared: str, compare: bool = False, json: bool = False, out: Path | None = None
) -> None:
    """List the runs; with --compare A B draw their curves into one picture.

    Args:
        compared: Runs for --compare.
        compare: Draw the validation curves of the runs that are named.
        json: Print JSON.
        out: The picture to write; by default runs/compare.svg.
    """
    if compared and not compare:
        raise UserError(f"folio runs lists all runs; to compare: --compare {shlex.join(compared)}")
    listed = [find_run(name) for name in compared] if compare else list_runs()
    if compare and len(listed) < 2:
        raise UserError("--compare draws at least two runs: folio runs --compare A B")
    facts = [facts_of(run) for run in listed]
    if json:
        show(json_text(facts, indent=2))
    elif not facts:
        show(f"There is no run in {runs_folder()}/. Make one with: folio train")
    else:
        show(_table(facts))
    if compare:
        from folio.run.card import compare_losses

        path = out or runs_folder() / "compare.svg"
        compare_losses(listed, path)
        show(f"\n{path}")


def _table(facts: list[dict[str, Any]]) -> str:
    rows = []
    for fact in facts:
        loss = fact["best_validation_loss"]
        rows.append(
            [
                fact["run"],
                fact["text"][:32] + (f" (from {Path(fact['from']).name})" if fact["from"] else ""),
                f"{fact['parameters']:,}",
                f"{fact['step']}/{fact['max_steps']}",
                duration(fact["seconds"]),
                "-" if loss is None else f"{loss:.4f}",
                fact["state"],
            ]
        )
    return table(["run", "text", "parameters", "steps", "time", "validation", "state"], rows)
