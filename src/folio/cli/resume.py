"""folio resume: continue a run where it stopped."""

from __future__ import annotations

from contextlib import closing

from folio.cli.overrides import Repeatable, Words, settings_table, split_words
from folio.config import merge, split_names
from folio.errors import UserError
from folio.training.config import check_budget


def resume(
    *run: Words,
    minutes: float | None = None,
    log: Repeatable | None = None,
    json: bool = False,
) -> None:
    """Continue a run, or train it longer: folio resume [RUN] [--TABLE.SETTING VALUE ...]

    The settings of training and device can change; all others stay as they were.

    Args:
        run: A name or a path; by default the newest run.
        minutes: Train this many minutes longer.
        log: Show the run in tensorboard, wandb or mlflow from here on, what was before included;
            by default where it was shown before.
        json: Print how it ended as JSON.
    """
    positional, flags = split_words(run)
    if len(positional) > 1:
        raise UserError(f"One run at a time: {len(positional)} were given.")
    table = settings_table(flags)
    if minutes is not None:
        check_budget("--minutes", minutes)
        table = merge(table, {"training": {"minutes": float(minutes)}})
    if log is not None:
        table = merge(table, {"training": {"log": split_names(log)}})

    from folio.run.directory import find_run

    found = find_run(positional[0] if positional else None)

    from folio.cli.watching import TerminalWatcher, leave_with
    from folio.console import stop_requested
    from folio.device import process_seconds
    from folio.recipe.budget import CommandClock
    from folio.recipe.resume import resume_run

    clock = CommandClock(process_seconds())
    watcher = TerminalWatcher(tell_device=True)
    with stop_requested() as should_stop, closing(watcher):
        result = resume_run(found, table, watcher, should_stop, clock)
    leave_with(result, json, found)
