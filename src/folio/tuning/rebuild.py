"""Rebuilds a damaged journal from the runs of its trials, which have all losses."""

from __future__ import annotations

import json
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from folio.config import Table, dotted, read_toml
from folio.console import say
from folio.errors import UserError
from folio.run.directory import Run
from folio.run.metrics import best_loss
from folio.storage import link_or_copy, rename
from folio.tuning.journal import cut_torn_line, open_journal
from folio.tuning.study import Study, loss_scale

T = TypeVar("T")


def damaged_line(journal: Path) -> int | None:
    """The number of the first line that is not a JSON object, from 1; None if all are.

    Half a line at the end, left by a kill, is not damage: it is cut off before the next one is
    added.
    """
    if not journal.exists():
        return None
    with journal.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return None
            try:
                whole = isinstance(json.loads(line), dict)
            except ValueError:
                whole = False
            if not whole:
                return number
    return None


def mend_journal(study: Study) -> None:
    """Set a damaged journal aside and rebuild it from the runs of the trials.

    Trials that ended without a checkpoint, such as failed ones, count as failed.
    """
    journal = study.journal_file
    if study.config.storage or damaged_line(journal) is None:
        return
    with study.claiming():
        number = damaged_line(journal)
        if number is None:  # another process was faster
            return
        mended, aside = journal.with_name("journal.mended.log"), _name_aside(journal)
        mended.unlink(missing_ok=True)  # of a command that was killed
        own = optuna.create_study(
            study_name=study.id, storage=open_journal(mended, study.locks_folder())
        )
        n = _take_up_trials(study, own)
        cut_torn_line(mended)
        link_or_copy(journal, aside)
        rename(mended, journal)  # only now: a kill before it leaves the old one to be mended
    say(
        f"warning: {journal}, line {number}, is damaged. It is kept as {aside}, and {n} trials are "
        f"taken up from their runs."
    )


def _name_aside(journal: Path) -> Path:
    """A free name for a damaged journal."""
    ends = chain([""], (f"-{n}" for n in count(2)))
    names = (journal.with_name(f"journal.damaged{end}.log") for end in ends)
    return next(name for name in names if not name.exists())


def _take_up_trials(study: Study, own: optuna.Study) -> int:
    numbers = [
        int(path.name.removeprefix("trial-"))
        for path in (study.path / "trials").glob("trial-*")
        if path.name.removeprefix("trial-").isdecimal()
    ]
    for number in range(max(numbers, default=-1) + 1):
        own.add_trial(_trial_of(study, study.trial_run(number)))
    return max(numbers, default=-1) + 1


def _trial_of(study: Study, run: Run) -> optuna.trial.FrozenTrial:
    lost = {"outcome": "failed", "error": "its run was lost with the journal"}
    failed = optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=lost)
    if not run.exists():
        return failed
    try:
        found = Found(dict(dotted(read_toml(run.recipe_file))))
        study.space.draw(found, study.recipe_table)
        scale = loss_scale(study, run)
    except (UserError, KeyError, ValueError):
        return failed
    ends, evaluations = run.events("end"), run.events("evaluation")
    reason = ends[-1]["reason"] if ends else "interrupted"
    user_attrs: Table = {name: ends[-1].get(name, 0) for name in ("seconds", "tokens") if ends}
    state = TrialState.COMPLETE if evaluations else TrialState.FAIL
    if reason == "non-finite":
        state, user_attrs["outcome"] = TrialState.PRUNED, "diverged"
    elif reason == "interrupted":
        # Or it was pruned: then the next worker reports what the run has, and prunes it again.
        state = TrialState.RUNNING
    return optuna.trial.create_trial(
        state=state,
        params=found.params,
        distributions=found.distributions,
        value=best_loss(evaluations) * scale if state == TrialState.COMPLETE else None,
        intermediate_values={} if state == TrialState.RUNNING else _reports(study, run, scale),
        user_attrs=user_attrs,
    )


def _reports(study: Study, run: Run, scale: float) -> dict[int, float]:
    """Reports as a worker makes them: evaluation (from 1) -> best loss so far."""
    steps = read_toml(run.recipe_file)["training"]["max_steps"]
    return {
        round(study.config.evaluations * event["step"] / steps): scale
        * event["best_validation_loss"]
        for event in run.events("evaluation")
    }


class Found:
    """Returns the values that a run has; see folio.tuning.space.Suggest."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        value = float(self._value(name))
        clipped = min(max(value, low), high)  # a recipe keeps six digits
        return self._note(name, clipped, FloatDistribution(low, high, log=log, step=step))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        value = round(self._value(name))  # a multiple of the width was rounded
        return self._note(name, value, IntDistribution(low, high, log, step))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        value = self._value(name)
        if name.endswith("/d_model"):  # was rounded after the multiplication
            value = min(choices, key=lambda choice: abs(choice - value))
        return self._note(name, value, CategoricalDistribution(choices))

    def _value(self, name: str) -> Any:
        setting = name.removesuffix("/d_model").partition(" of ")[0]
        value = self.settings[setting]
        return value / self.settings["model.d_model"] if name.endswith("/d_model") else value

    def _note(self, name: str, value: T, distribution: BaseDistribution) -> T:
        self.params[name], self.distributions[name] = value, distribution
        return value
