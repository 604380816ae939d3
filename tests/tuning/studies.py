"""Small studies, and how they are stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from folio.config import read_toml
from folio.tuning import worker
from folio.tuning.study import Study

if TYPE_CHECKING:
    from optuna.trial import Trial, TrialState

MakeStudy = Callable[..., Study]
"""A space and settings of the search -> a study."""

RECIPE = {
    "preset": "gpt2",
    "model": {"n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 16},
    "training": {"batch_size": 4, "max_steps": 27},
    "corpus": {"validation_fraction": 0.02},
    "device": {"kind": "cpu", "precision": "float32", "threads": 1},
}
SPACE = {"optimizer": {"learning_rate": {"low": 1e-5, "high": 0.1, "log": True}}}


def stop_after(steps: int) -> Callable[[], bool]:
    """A question that is answered yes from the so-manieth time on."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > steps

    return should_stop


def never() -> bool:
    return False


def states(study: Study) -> list[TrialState]:
    return [trial.state for trial in study.connect().get_trials()]


def begin(study: Study) -> worker.Job:
    """Claim a trial, as a worker does that is then killed: its lock is free afterwards."""
    job = worker.claim(study, study.connect(), set())
    assert isinstance(job, worker.Job) and job.trial is not None
    return job


def trial_of(job: worker.Job) -> Trial:
    assert job.trial is not None
    return job.trial


def rates_of_runs(study: Study, n: int) -> list[float]:
    recipes = [read_toml(study.trial_run(number).recipe_file) for number in range(n)]
    return [recipe["optimizer"]["learning_rate"] for recipe in recipes]
