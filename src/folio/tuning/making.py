"""Makes a new study from the user's request, or opens the existing one."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

from folio.config import Table, dotted, from_table, merge, to_table
from folio.device import cores
from folio.errors import UserError
from folio.recipe.build import build
from folio.recipe.recipe import BUDGETS, Recipe, lay_over, make_recipe
from folio.recipe.settle import settle
from folio.recipe.speed import measure
from folio.recipe.watcher import Watcher
from folio.storage import new_folder, visible
from folio.tokenizers.base import TokenIds
from folio.training.config import budget_steps
from folio.tuning.journal import open_database
from folio.tuning.rebuild import mend_journal
from folio.tuning.space import DEFAULT_SPACE, parse_space
from folio.tuning.study import (
    REPEATED,
    Request,
    Study,
    StudyConfig,
    is_study,
    locks_in,
    new_id,
    open_study,
)

EPOCHS = 30.0
EVALUATIONS = (9, 30)
"""Fewest and most evaluations of a full trial; there is one per epoch within these limits."""
HYPERBAND_SHARE = 0.5
"""Average cost of a trial relative to a full one: 0.40 with three brackets (docs/experiments.md);
assumption: somewhat more with fewer."""


def ensure_study(path: Path, request: Request, n_workers: int, watcher: Watcher) -> Study:
    """Open the study of a directory, or make it.

    Args:
        path: the directory.
        request: what the user asked for.
        n_workers: processes that will share this machine.
        watcher: is told what is being done.

    Raises:
        UserError: a different study is there, or nothing can be trained.
    """
    if not is_study(path):
        locks = locks_in(path)
        if path.exists() and not (path.is_dir() and visible(path) <= {locks.name}):
            raise UserError(f"{path} is there and is not a study. Give another --name.")
        # A second command waits, as making one takes a while.
        with new_folder(path, locks / "making", "study", partial(is_study, path), wait=True):
            if not is_study(path):  # or another command has made it while this one waited
                study = _make(path, request, n_workers, watcher)
                study.save()
                return study
    study, wanted = open_study(path), request.given()
    if request.space is None and study.given.get("space") == DEFAULT_SPACE:
        wanted["space"] = DEFAULT_SPACE  # that of all optimizers, when the study was made
    if different := differences(wanted, study.given):
        raise UserError(
            f"The study {path} exists with another {', '.join(different[:3])}. Give another "
            f"--name, or go on with that one: folio tune {shlex.quote(str(path))}"
        )
    return with_trials(study, request.search.get("trials"))


def with_trials(study: Study, trials: int | None) -> Study:
    """Prepare a study to continue: with another number of trials, and a readable journal."""
    mend_journal(study)
    if trials is None or trials == study.config.trials:
        return study
    study = replace(study, config=replace(study.config, trials=trials))
    study.save()
    return study


def differences(wanted: Table, found: Table) -> list[str]:
    """Dotted names of the entries in which two tables differ.

    >>> differences({"epochs": 3, "recipe": {"seed": 1}}, {"epochs": 3, "recipe": {}})
    ['recipe.seed']
    """
    one, other = dict(dotted(wanted)), dict(dotted(found))
    return sorted(name for name in one | other if one.get(name) != other.get(name))


def _make(path: Path, request: Request, n_workers: int, watcher: Watcher) -> Study:
    """Fix what all trials share (the text, the device and, unless it is searched, the tokenizer),
    and freeze the budget.
    """
    given = request.given()
    parse_space(given["space"])
    config = from_table(StudyConfig, request.search)
    table = with_epochs(request.recipe, request.epochs)
    recipe = make_recipe(table)
    if config.storage:
        open_database(config.storage)  # if it cannot be opened, fail now
    if not recipe.device.threads:
        threads = max(1, cores() // n_workers)
        recipe = replace(recipe, device=replace(recipe.device, threads=threads))
    settled = settle(recipe, watcher)
    recipe, prepared, device = settled.recipe, settled.prepared, settled.device
    texts = prepared.training(), prepared.validation()
    build(recipe, device, *texts)  # if it cannot be built, fail now

    shared: Table = {"device": to_table(recipe.device), "corpus": to_table(recipe.corpus)}
    if "tokenizer" in given["space"]:
        config = replace(config, unit="bits per byte")
    else:
        shared["tokenizer"] = to_table(recipe.tokenizer)
        shared["model"] = {"vocab_size": recipe.model.vocab_size}
    table = merge(table, shared)
    if request.minutes is not None:
        speed = measure(recipe, device, *texts)
        n_full = config.trials * HYPERBAND_SHARE + REPEATED * config.repeats
        evaluating = EVALUATIONS[1] * speed.evaluation_seconds
        steps = (request.minutes * 60 * n_workers / n_full - evaluating) / speed.step_seconds
        tokens = steps * recipe.training.batch_size * recipe.model.context_length
        epochs = float(f"{tokens / (len(texts[0]) - 1):.3g}")  # few of a large text
        if steps < 1:
            raise UserError(
                f"{request.minutes:g} minutes are too few for {config.trials} trials on this "
                f"machine. Give fewer --trials, more minutes, or --epochs."
            )
        table = with_epochs(table, epochs)
        watcher.tell(f"{request.minutes:g} minutes are {epochs:g} epochs for each full trial")
    least, most = EVALUATIONS
    wanted = round(epochs_of(make_recipe(table), texts[0]))
    config = replace(config, evaluations=min(max(wanted, least), most))
    return Study(path, config, given["space"], table, given, new_id(path))


def with_epochs(table: Table, epochs: float | None) -> Table:
    """A recipe with this budget in epochs; with None, its own budget, unless that is in minutes."""
    training = table.get("training", {})
    own = any(training.get(name) for name in BUDGETS if name != "minutes")
    if epochs is None and own:
        return table
    return lay_over(table, {"training": {"max_epochs": float(epochs or EPOCHS)}})


def epochs_of(recipe: Recipe, training_ids: TokenIds) -> float:
    """The budget of a recipe in epochs."""
    n_targets, length = len(training_ids) - 1, recipe.model.context_length
    steps = budget_steps(recipe.training, length, n_targets)
    return steps * recipe.training.batch_size * length / n_targets
