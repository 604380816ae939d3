"""folio tune: the best settings for a text, searched."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Mapping
from pathlib import Path

from folio.cli.overrides import Words, check_workers, settings_table, split_words
from folio.config import Table, dotted, read_toml
from folio.console import amount, say, show
from folio.errors import UserError
from folio.run.directory import check_name, runs_folder
from folio.storage import LOCKS, json_text
from folio.training.config import check_budget

DECIDED = ("training.minutes", "training.evaluations", "training.evaluation_interval")
"""Settings that a study decides, so that as flags they would do nothing."""


def tune(
    *corpus: Words,
    trials: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    workers: int = 1,
    space: Path | None = None,
    repeats: int | None = None,
    name: str | None = None,
    storage: str | None = None,
    json: bool = False,
) -> None:
    """Search for the best settings: folio tune [CORPUS ... | RECIPE.toml | STUDY]

    Each trial is an ordinary run with settings drawn by TPE; Hyperband stops those that fall
    behind. Ctrl-C saves; the same command, or the directory of the study, continues it, even in a
    second terminal at the same time. Settings of a recipe are flags, as for folio train.

    Args:
        corpus: Text, a recipe, or a study to continue.
        trials: Number of trials; by default 25.
        epochs: Budget of each trial; the recipe's, or 30.
        minutes: Budget of the whole study instead: converted to epochs by a measurement at its
            start, so that a machine that becomes busier takes longer.
        workers: Number of parallel processes; they share the cores.
        space: The search space, in TOML; by default learning rate and weight decay (with Muon,
            those of the matrices), layers, heads, activation and feed-forward width.
        repeats: Further seeds for the best four at the end, to measure the noise; by default 1.
        name: Name of the study in runs/.
        storage: A database for Optuna instead of a journal, such as sqlite:///study.db.
        json: Print JSON.
    """
    _check(trials, repeats, epochs, minutes, workers, name)
    positional, flags = split_words(corpus)
    search: Table = {"trials": trials, "repeats": repeats, "storage": storage}
    search = {key: value for key, value in search.items() if value is not None}

    from folio.tuning.study import is_study

    if len(positional) == 1 and is_study(Path(positional[0])):
        path, request = Path(positional[0]), None
        given = {"--epochs": epochs, "--minutes": minutes, "--space": space, "--name": name}
        given |= {f"--{key}": value for key, value in search.items() if key != "trials"}
        _refuse_changes(given | {f"--{flag}": value for flag, value in flags})
    else:
        from folio.recipe.recipe import lay_over, source_layers
        from folio.tuning.study import Request

        path = _path(positional, name)
        settings = settings_table(flags)
        _refuse_decided(settings)
        request = Request(
            recipe=lay_over(*source_layers(positional), settings),
            space=None if space is None else read_toml(space),
            epochs=epochs,
            minutes=minutes,
            search=search,
        )
    _require_optuna()

    # Only now, since it loads torch and optuna: mistakes are answered at once.
    from folio.console import stop_requested
    from folio.recipe.watcher import Watcher
    from folio.tuning.making import ensure_study, with_trials
    from folio.tuning.outcome import look
    from folio.tuning.page import summary, write_best, write_page
    from folio.tuning.study import open_study
    from folio.tuning.watching import run_workers

    class Teller(Watcher):
        def tell(self, line: str) -> None:
            say(line)

    if request is None:
        study = with_trials(open_study(path), trials)
    else:
        study = ensure_study(path, request, workers, Teller())
    optuna_study = study.connect()
    n_trials = amount(study.config.trials, "trial")
    say(f"{path}: {n_trials}, {workers} at a time. Ctrl-C stops and saves.")
    with stop_requested() as should_stop:
        run_workers(study, optuna_study, workers, should_stop)
        stopped = should_stop()
    outcome = look(study, optuna_study)
    if outcome.best:
        write_best(study, outcome)
        write_page(study, outcome)
    show(json_text(outcome.record(), indent=2) if json else summary(study, outcome))
    if stopped:
        say(f"interrupted; everything is saved. Go on with: folio tune {shlex.quote(str(path))}")


def _refuse_changes(given: Mapping[str, object]) -> None:
    """Refuse flags that cannot change when a study continues; None means that a flag was
    not given.
    """
    foreign = [flag for flag, value in given.items() if value is not None]
    if foreign:
        raise UserError(
            f"A study goes on with what it began with; only --trials can change, not "
            f"{foreign[0]}. Start another one with another --name."
        )


def _refuse_decided(settings: Table) -> None:
    """Refuse flags of which no trial would take notice."""
    for name, _ in dotted(settings):
        if name in DECIDED:
            raise UserError(
                f"A study has --epochs or --minutes, and decides when trials are evaluated. Leave "
                f"--{name.replace('_', '-')} out."
            )


def _check(
    trials: int | None,
    repeats: int | None,
    epochs: float | None,
    minutes: float | None,
    workers: int,
    name: str | None,
) -> None:
    for flag, count, least in (("trials", trials, 1), ("repeats", repeats, 0)):
        if count is not None and count < least:
            raise UserError(f"--{flag} must be {least} or more, got {count}.")
    if workers > 1 and not LOCKS:
        raise UserError(f"--workers must be 1 where the system has no file locks, got {workers}.")
    check_workers(workers)
    for flag, number in (("epochs", epochs), ("minutes", minutes)):
        if number is not None:
            check_budget(f"--{flag}", number)
    if epochs is not None and minutes is not None:
        raise UserError("--epochs and --minutes are both budgets. Leave one of them out.")
    if name is not None:
        check_name(name)


def _path(positional: list[str], name: str | None) -> Path:
    """runs/tune-<corpus or recipe>, so that the same command finds the same study."""
    if "-" in positional:
        raise UserError("A study reads its text again for each trial; put it into a file.")
    stem = Path(positional[0]).stem if positional else "python-docs"
    return runs_folder() / (name or f"tune-{stem}")


def _require_optuna() -> None:
    if importlib.util.find_spec("optuna") is None:
        raise UserError("folio tune needs Optuna. Install it with: pip install 'foliolm[tune]'")
