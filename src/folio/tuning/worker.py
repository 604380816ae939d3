"""A worker of a study: takes a job, does it, and takes the next.

    python -m folio.tuning.worker runs/tune-book

It stops when its standard input ends; the command that started it holds that open.

Any number of workers share a study. A trial that the journal calls running while its lock is free
was interrupted: the next free worker resumes it from its checkpoint.
"""

from __future__ import annotations

import math
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState

from folio.config import Table, dotted, read_toml
from folio.console import output, say, stop_requested
from folio.errors import UserError
from folio.recipe.recipe import Recipe
from folio.recipe.resume import resume_run
from folio.recipe.train import train_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import Run
from folio.run.metrics import best_loss
from folio.run.summary import text_of
from folio.storage import StorageError
from folio.training.parts import Evaluation, Training
from folio.training.state import TrainingState
from folio.tuning.rebuild import mend_journal
from folio.tuning.study import REPEATED, Study, loss_scale, open_study, trial_recipe

WAIT_SECONDS = 0.5
SAVING_SECONDS = 300.0
"""What a worker may take to save and end, once the command that started it has ended."""
SETTLED = ("tokenizer.", "corpus.", "device.", "model.vocab_size", "training.micro_batch_size")
"""Settings whose values a run may replace by resolved ones."""
FAILURES = 5
"""If so many trials fail and none succeeds, the fault is not in the trials."""


@dataclass(frozen=True)
class Job:
    """Something to train, and the lock that allows it."""

    run: Run
    recipe: Recipe
    drawn: Table
    """The settings in which this recipe differs from the others of the study; and its seed."""
    held: ExitStack
    trial: Trial | None
    """None for a repeat with another seed."""


def work(study: Study, should_stop: Callable[[], bool]) -> None:
    """Work until the study is finished or `should_stop` returns True.

    Raises:
        UserError: every trial fails, or the text was changed.
    """
    mend_journal(study)
    optuna_study = study.connect()
    given_up: set[str] = set()  # repeats that failed
    while not should_stop():
        job = claim(study, optuna_study, given_up)
        if job == "wait":
            time.sleep(WAIT_SECONDS)
        elif job is None:
            return
        else:
            with job.held:
                if job.trial is not None:
                    run_trial(study, job, job.trial, should_stop)
                elif not _run_repeat(study, job, should_stop):
                    given_up.add(job.run.name)


# ---- what to do next ---------------------------------------------------------------------


def claim(
    study: Study, optuna_study: optuna.Study, given_up: set[str]
) -> Job | Literal["wait"] | None:
    """Choose an interrupted trial, else a new one, else a repeat of one of the best.

    Returns:
        The job; `wait` if it depends on what others are doing, or a draw failed; None at the end.
    """
    with study.claiming():
        trials = optuna_study.get_trials(deepcopy=False)
        _stop_if_all_fail(trials)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for frozen in running:
            if held := study.lock(study.trial_run(frozen.number)):
                now = optuna_study.get_trials(deepcopy=False)[frozen.number]
                if now.state != TrialState.RUNNING:  # its worker told the result just now
                    held.close()
                    continue
                # Optuna has no public way to a trial that another process asked for.
                trial = Trial(optuna_study, frozen._trial_id)
                return _trial_job(study, trial, held)
        if len(trials) < study.config.trials:
            optuna_study.sampler = study.sampler(len(trials))
            trial = optuna_study.ask()
            held = study.lock(study.trial_run(trial.number))
            assert held is not None, "a new trial that somebody else works on"
            return _trial_job(study, trial, held)
        return "wait" if running else _claim_repeat(study, trials, given_up)


def _trial_job(study: Study, trial: Trial, held: ExitStack) -> Job | Literal["wait"]:
    """Draw what a trial does not have yet, and make it a job."""
    trial.study.sampler = study.sampler(trial.number)
    try:
        drawn = study.space.draw(trial, study.recipe_table)
        recipe = trial_recipe(study, drawn)
    except UserError as error:
        with held:
            _tell_failure(trial, error)
        return "wait"
    return Job(study.trial_run(trial.number), recipe, drawn | {"seed": recipe.seed}, held, trial)


def _claim_repeat(
    study: Study, trials: list[FrozenTrial], given_up: set[str]
) -> Job | Literal["wait"] | None:
    busy = False
    for frozen in best_trials(trials, REPEATED):
        drawn = study.space.draw(FixedTrial(frozen.params), study.recipe_table)
        for seed in study.repeat_seeds():
            run = study.repeat_run(frozen.number, seed)
            if run.name in given_up or is_over(run):
                continue
            if held := study.lock(run):
                recipe = trial_recipe(study, drawn, seed)
                return Job(run, recipe, drawn | {"seed": seed}, held, None)
            busy = True
    return "wait" if busy else None


def best_trials(trials: list[FrozenTrial], count: int) -> list[FrozenTrial]:
    """The complete trials with the lowest losses, best first."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: (trial.value, trial.number))[:count]


def is_over(run: Run) -> bool:
    """Whether a run has nothing left to train."""
    ends = run.events("end")
    return bool(ends) and ends[-1]["reason"] != "interrupted"


def _stop_if_all_fail(trials: list[FrozenTrial]) -> None:
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    if len(failed) >= FAILURES and len(failed) == len(trials):
        raise UserError(
            f"All of {len(failed)} trials failed, the last one with: "
            f"{failed[-1].user_attrs.get('error')}"
        )


# ---- a trial -----------------------------------------------------------------------------


class OtherTextError(UserError):
    """The files of a study were changed, so that no further trial can be compared."""


class QuietWatcher(Watcher):
    """Watches a run of a study: its warnings go to the log, it writes no sample, and must learn
    from the text of the others.
    """

    sample_tokens = 0

    def __init__(self, study: Study) -> None:
        self.study = study

    def begin(self, run: Run, training: Training, state: TrainingState) -> None:
        trials = map(self.study.trial_run, range(self.study.config.trials))
        first = next((trial for trial in trials if trial.exists()), run)
        # Their tokens differ where tokenizers are searched.
        if text_of(first)["sources"] != text_of(run)["sources"]:
            raise OtherTextError(
                f"The text of the study {self.study.path} was changed: {run.path} holds another "
                f"one than {first.path}. Put the old text back and remove {run.path}, or give "
                f"another --name."
            )

    def tell(self, line: str) -> None:
        say(line)


class TrialWatcher(QuietWatcher):
    """Reports each evaluation to Optuna, and asks whether to continue."""

    def __init__(self, study: Study, trial: Trial) -> None:
        super().__init__(study)
        self.trial = trial
        frozen = trial.study.get_trials(deepcopy=False)[trial.number]
        self.reported = set(frozen.intermediate_values)
        self.pruned = frozen.user_attrs.get("outcome") == "pruned"

    def begin(self, run: Run, training: Training, state: TrainingState) -> None:
        super().begin(run, training, state)
        self.max_steps = training.config.max_steps
        self.scale = loss_scale(self.study, run)
        n_parameters = sum(parameter.numel() for parameter in training.model.parameters())
        self.trial.set_user_attr("parameters", n_parameters)
        for event in run.events("evaluation"):  # evaluations that a kill kept from the journal
            self._report(event["step"], event["best_validation_loss"])

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        self._report(state.step, state.best_validation_loss)

    def _report(self, step: int, loss: float) -> None:
        """Report the best loss so far, since the best checkpoint is what a run is used for."""
        resource = round(self.study.config.evaluations * step / self.max_steps)
        if resource in self.reported:
            return
        self.reported.add(resource)
        self.trial.report(loss * self.scale, resource)
        if step < self.max_steps and self.trial.should_prune():
            self.trial.set_user_attr("outcome", "pruned")  # stays so, whatever happens next
            self.pruned = True


def run_trial(study: Study, job: Job, trial: Trial, should_stop: Callable[[], bool]) -> None:
    """Train a trial or resume it, and tell the study its result."""
    watcher = TrialWatcher(study, trial)
    try:
        set_aside_foreign_run(job)
        if not watcher.pruned:
            _train(job, watcher, lambda: watcher.pruned or should_stop())
        loss = final_loss(study, job.run)
    except (StorageError, OtherTextError):  # of no trial's making; it stays open to be resumed
        raise
    except Exception as error:  # whatever it is, the other trials may be fine
        traceback.print_exc()
        _tell_failure(trial, error)
        return
    end = (job.run.events("end") or [{"reason": "interrupted"}])[-1]
    for name in ("seconds", "tokens"):
        trial.set_user_attr(name, end.get(name, 0))
    if watcher.pruned:
        trial.study.tell(trial, state=TrialState.PRUNED)
    elif end["reason"] == "non-finite":
        # Not as failed, because the sampler would not learn from that.
        trial.set_user_attr("outcome", "diverged")
        trial.study.tell(trial, state=TrialState.PRUNED)
    elif end["reason"] != "interrupted":  # if so, the trial stays open to be resumed
        trial.study.tell(trial, loss)


def final_loss(study: Study, run: Run) -> float:
    """The best validation loss of a run in the study's unit; infinite before an evaluation, and
    where it diverged.
    """
    if any(end["reason"] == "non-finite" for end in run.events("end")):
        return math.inf
    return best_loss(run.events("evaluation")) * loss_scale(study, run)


def _run_repeat(study: Study, job: Job, should_stop: Callable[[], bool]) -> bool:
    """Train a repeat; False if it failed."""
    try:
        set_aside_foreign_run(job)
        _train(job, QuietWatcher(study), should_stop)
    except (StorageError, OtherTextError):
        raise
    except Exception:
        traceback.print_exc()
        return False
    return True


def _train(job: Job, watcher: Watcher, should_stop: Callable[[], bool]) -> None:
    if job.run.exists():
        resume_run(job.run, {}, watcher, should_stop)
    else:
        train_recipe(job.recipe, job.run.name, watcher, should_stop, job.run.path.parent)


def set_aside_foreign_run(job: Job) -> None:
    """Move away a run with other settings from where a job's run belongs, so that its losses are
    never mistaken for those of the job.
    """
    if not job.run.exists():
        return
    found = read_toml(job.run.recipe_file)
    if not (different := different_settings(job.drawn, found)):
        return
    folder, n = job.run.path, 1
    while (aside := folder.with_name(f"{folder.name}-set-aside-{n}")).exists():
        n += 1
    folder.rename(aside)
    say(
        f"warning: {folder} held a run of other settings ({', '.join(different[:3])} differ). It "
        f"is kept as {aside}; {folder.name} begins anew."
    )


def different_settings(drawn: Table, found: Table) -> list[str]:
    """Dotted names of settings in which a run differs from what was drawn for it.

    >>> different_settings({"model": {"n_layers": 2}}, {"model": {"n_layers": 3, "d_model": 8}})
    ['model.n_layers']

    Settings that a run resolves itself are left out, since its recipe has the resolved values.
    """
    there = dict(dotted(found))
    return [
        name
        for name, value in dotted(drawn)
        if value not in (0, "auto") and not name.startswith(SETTLED) and there.get(name) != value
    ]


def _tell_failure(trial: Trial, error: Exception) -> None:
    trial.set_user_attr("outcome", "failed")
    trial.set_user_attr("error", f"{type(error).__name__}: {error}")
    trial.study.tell(trial, state=TrialState.FAIL)


# ---- the process -------------------------------------------------------------------------


def main() -> None:
    """Work on the study of a directory until standard input ends."""
    gone = threading.Event()
    if _has_ended():  # which a thread could hear too late
        gone.set()
    threading.Thread(target=_wait_for_end, args=(gone,), daemon=True).start()
    with output(), stop_requested() as asked:
        try:
            work(open_study(Path(sys.argv[1])), lambda: asked() or gone.is_set())
        except UserError as error:
            say(f"error: {error}")
            sys.exit(2)


def _has_ended() -> bool:
    """Whether standard input has ended already; False where nobody can tell, as on Windows."""
    with suppress(OSError):
        ready, _, _ = select.select([0], [], [], 0)
        return bool(ready) and not os.read(0, 1024)
    return False


def _wait_for_end(gone: threading.Event) -> None:
    """Wait until the command that started this process ends.

    However early it dies, and on every system, the operating system closes its pipes; the parent's
    process id shows this only on some, and not if it died before the id was read.
    """
    with suppress(OSError):
        while os.read(0, 1024):  # sys.stdin has a lock, which a thread must not hold at exit
            pass
    gone.set()
    time.sleep(SAVING_SECONDS)
    os._exit(1)  # it hangs


if __name__ == "__main__":
    main()
