"""Steps 7 and 9 are ordinary runs: trained once, resumed if interrupted, and looked up
afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from folio.config import Table, dotted, read_toml
from folio.errors import UserError
from folio.ladder.ablation import Change, Row
from folio.recipe.recipe import make_recipe, read_recipe
from folio.recipe.resume import resume_run
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import Run, runs_folder
from folio.run.ngrams import read_ngram_weights, told_loss
from folio.run.summary import text_of
from folio.training.pace_file import read_pace


def ensure_run(
    name: str,
    table: Table,
    watcher: Watcher,
    should_stop: Callable[[], bool] = lambda: False,
    beside: Run | None = None,
) -> tuple[Run, bool]:
    """Return the run with these settings, trained to its end unless it already is.

    Args:
        name: name of the run.
        table: its settings, for `make_recipe`.
        watcher, should_stop: as in `train_recipe`.
        beside: a run that it is compared with.

    Returns:
        The run, and whether it is complete; False after `should_stop`.

    Raises:
        UserError: a run of this name has other settings, or learned from another text than the one
            beside it, since the files had other contents then.
    """
    run = Run(runs_folder() / name)
    is_complete = _ensure(run, table, watcher, should_stop)
    if beside is not None and text_of(run) != text_of(beside):
        raise UserError(
            f"The runs {beside.path} and {run.path} cannot be compared: the text was changed "
            f"between them. Move the one of the old text away, so that it is trained again."
        )
    return run, is_complete


def _ensure(run: Run, table: Table, watcher: Watcher, should_stop: Callable[[], bool]) -> bool:
    if not run.exists():
        result = train_recipe(make_recipe(table), run.name, watcher, should_stop)
        return result.ending != "interrupted"
    there = dict(dotted(_asked(run, table)))
    if different := [name for name, value in dotted(table) if value != there.get(name)]:
        raise UserError(
            f"The run {run.path} exists with another {', '.join(different)}. Move it away, or "
            f"name another folder for runs in FOLIO_RUNS."
        )
    watcher.tell(f"{run.path} exists; remove it to train it again")
    result = resume_run(run, {}, watcher, should_stop)
    return result is None or result.ending != "interrupted"


def _asked(run: Run, table: Table) -> Table:
    """The settings of a run; with the minutes of `table`, which its recipe names in steps, if it
    had these.
    """
    found: Table = read_toml(run.recipe_file)
    minutes = table.get("training", {}).get("minutes", 0.0)
    if (paced := read_pace(run.pace_file)) is not None:
        budget, _ = paced
        if (budget.seconds, budget.from_step) == (60 * minutes, 0):
            found["training"]["minutes"] = minutes
    return found


def row_of(change: Change, runs: Sequence[Run]) -> Row:
    """Collect the results of the runs of a change, one per seed.

    The loss of a run with n-grams is that of model and n-grams together, each half of the held-out
    text by weights from the other half; of a text too short for weights it is the model's.
    """
    ends = [run.events("evaluation")[-1] for run in runs]
    recipe = read_recipe(runs[0])
    beside = [read_ngram_weights(run) for run in runs]
    return Row(
        change,
        recipe.model.n_parameters,
        [
            told_loss(record) if record else event["validation_loss"]
            for record, event in zip(beside, ends, strict=True)
        ],
        [event["seconds"] for event in ends],
        [event["step"] for event in ends],
    )
