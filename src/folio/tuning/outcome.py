"""What a study found: its trials, the noise between seeds, and which differences are noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from statistics import mean
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from folio.evaluation.uncertainty import seed_noise
from folio.tuning.study import REPEATED, Study
from folio.tuning.worker import best_trials, final_loss, is_over

State = Literal["running", "complete", "pruned", "diverged", "failed"]


@dataclass(frozen=True)
class Row:
    """One trial."""

    number: int
    state: State
    values: dict[str, Any]
    """Drawn values by name."""
    curve: dict[int, float]
    """Evaluation (counted from 1) -> best loss so far, in the study's unit."""
    seconds: float
    tokens: int
    parameters: int
    run: str
    error: str = ""
    losses: list[float] = field(default_factory=list)
    """Final losses of a repeated trial, one per seed, the trial's own first."""

    @property
    def loss(self) -> float:
        """Best loss so far; infinite before the first evaluation."""
        return min(self.curve.values(), default=math.inf)

    @property
    def evaluations(self) -> int:
        """Number of evaluations so far."""
        return max(self.curve, default=0)

    @property
    def mean(self) -> float:
        """Mean loss over its seeds."""
        return mean(self.losses) if self.losses else self.loss


@dataclass(frozen=True)
class Outcome:
    """The state of a whole study."""

    unit: str
    rows: list[Row]
    """All trials, in the order of their numbers."""
    best: list[Row]
    """Complete trials: repeated ones first, by mean loss, then the others by loss, then those of
    which a repeat diverged."""
    noise: float | None
    """Standard deviation between seeds; None if nothing was repeated."""
    n_tied: int
    """How many of the first trials in `best` cannot be told apart from the first."""
    importances: dict[str, float]
    """Share of each setting by name, largest first; empty if there are too few trials."""
    seconds: float
    """Training time summed over all processes, repeats included."""
    share: float
    """Tokens read by the trials, divided by those that each would have read in full."""

    def record(self) -> dict[str, Any]:
        """Return what --json prints."""
        table = asdict(self)
        table["best"] = [row.number for row in self.best]
        for row, entry in zip(self.rows, table["rows"]):
            entry["loss"] = row.loss if row.curve else None
        return table


def read_rows(study: Study, optuna_study: optuna.Study) -> list[Row]:
    """The current trials in the order of their numbers."""
    return [_row(study, trial) for trial in optuna_study.get_trials(deepcopy=False)]


def look(study: Study, optuna_study: optuna.Study) -> Outcome:
    """Summarize a study, finished or not."""
    rows = read_rows(study, optuna_study)
    seconds = sum(row.seconds for row in rows)
    for trial in best_trials(optuna_study.get_trials(deepcopy=False), REPEATED):
        repeats = [study.repeat_run(trial.number, seed) for seed in study.repeat_seeds()]
        done = [run for run in repeats if is_over(run)]
        losses = [rows[trial.number].loss, *(final_loss(study, run) for run in done)]
        rows[trial.number].losses.extend(losses)
        seconds += sum(run.events("end")[-1]["seconds"] for run in done)
    complete = [row for row in rows if row.state == "complete"]
    best = sorted(complete, key=lambda row: (math.isinf(row.mean), len(row.losses) < 2, row.mean))
    noise = seed_noise([row.losses for row in best])
    ended = [row for row in rows if row.tokens]
    in_full = [row.tokens * study.config.evaluations / max(row.evaluations, 1) for row in ended]
    return Outcome(
        unit=study.config.unit,
        rows=rows,
        best=best,
        noise=noise and noise.deviation,
        n_tied=count_tied([row.losses for row in best]),
        importances=_importances(optuna_study, complete),
        seconds=seconds,
        share=sum(row.tokens for row in ended) / sum(in_full) if ended else 1.0,
    )


def count_tied(groups: Sequence[Sequence[float]]) -> int:
    """How many groups of losses, ordered from the best, cannot be told apart from the first.

    >>> count_tied([[2.00, 2.02], [2.01, 2.03], [2.20, 2.22]])
    2
    """
    noise = seed_noise(groups)
    if noise is None:
        return min(len(groups), 1)
    tied = takewhile(lambda group: group and not noise.differ(groups[0], group), groups)
    return sum(1 for _ in tied)


def _row(study: Study, trial: FrozenTrial) -> Row:
    outcome = trial.user_attrs.get("outcome", "")
    states: dict[TrialState, State] = {
        TrialState.COMPLETE: "complete",
        TrialState.FAIL: "failed",
        TrialState.PRUNED: "diverged" if outcome == "diverged" else "pruned",
    }
    return Row(
        number=trial.number,
        state=states.get(trial.state, "running"),
        values=trial.params,
        curve=dict(sorted(trial.intermediate_values.items())),
        seconds=trial.user_attrs.get("seconds", 0.0),
        tokens=trial.user_attrs.get("tokens", 0),
        parameters=trial.user_attrs.get("parameters", 0),
        run=str(study.trial_run(trial.number).path),
        error=trial.user_attrs.get("error", ""),
    )


def _importances(optuna_study: optuna.Study, complete: list[Row]) -> dict[str, float]:
    """PED-ANOVA (https://arxiv.org/abs/2304.10255): which settings set the best trials apart.

    Only trials that ran to their end count, since losses at different stages say little about each
    other.
    """
    varied = {
        name
        for name in {name for row in complete for name in row.values}
        if len({row.values[name] for row in complete if name in row.values}) > 1
    }
    if len(complete) < 4 or not varied:
        return {}
    found = optuna.importance.get_param_importances(optuna_study, params=sorted(varied))
    return {name: float(share) for name, share in found.items()}
