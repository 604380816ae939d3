"""pace.jsonl: the budget of a run in minutes, and each decision by the clock.

A decision is flushed to disk before the run acts on it, so that a run that is killed at any moment
repeats exactly what it had computed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from folio.errors import UserError
from folio.storage import atomic_write, storage_error
from folio.training.deadline import TimeBudget
from folio.training.pace import StepPlan


def write_pace(path: Path, budget: TimeBudget, plans: Iterable[StepPlan]) -> None:
    """Write a budget and the decisions so far."""
    with atomic_write(path) as file:
        file.write(json.dumps({"budget": asdict(budget)}) + "\n")
        file.writelines(map(_line, plans))


def append_plan(path: Path, plan: StepPlan) -> None:
    """Append a decision; it is on disk when this returns."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(_line(plan))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise storage_error(error, path) from error


def read_pace(path: Path) -> tuple[TimeBudget, list[StepPlan]] | None:
    """Read the budget and the decisions; None if the run has no budget in minutes.

    A truncated last line is a decision that never took effect.
    """
    if not path.exists():
        return None
    try:
        first, *rest = path.read_text(encoding="utf-8").splitlines()
        budget = TimeBudget(**json.loads(first)["budget"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is damaged: its first line must be a budget. Move it away, and the run goes "
            f"on by the steps of its recipe."
        ) from None
    plans: list[StepPlan] = []
    for line in rest:
        try:
            entry = json.loads(line)
            plans.append(StepPlan(entry["step"], entry["last"], entry.get("evaluations")))
        except (ValueError, KeyError, TypeError):
            break
    return budget, plans


def _line(plan: StepPlan) -> str:
    return json.dumps(plan._asdict()) + "\n"
