"""`make torture`: a study whose processes are killed again and again loses and repeats nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="folio tune needs Optuna: pip install foliolm[tune]")

from optuna.trial import TrialState

from folio.run.directory import runs_folder
from folio.tuning.study import is_study, open_study

N_KILLS = 12
TRIALS = 8
FLAGS = (
    f"--trials {TRIALS} --workers 2 --repeats 0 --preset gpt2 --model.n-layers 1",
    "--model.d-model 32 --model.context-length 16 --training.batch-size 8",
    "--training.max-steps 1500 --corpus.validation-fraction 0.02",
    "--device.kind cpu --device.precision float32 --device.threads 1",
)


@pytest.mark.torture
def test_a_study_that_is_killed_and_renamed_at_any_moment_has_each_trial_once(book: Path):
    path = runs_folder() / "study-0"
    flags = [str(book), *" ".join(FLAGS).split()]
    draw = random.Random(1)
    finished: dict[int, tuple[TrialState, float | None, str]] = {}
    kills = 0
    while kills < N_KILLS:
        # A session of its own, so that command and workers are killed at the same moment.
        command = [sys.executable, "-m", "folio", "tune", *flags, "--name", path.name]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait_for_work(path, process)
        time.sleep(draw.uniform(0, 1.5))
        if process.poll() is not None:
            break  # it was faster than the kills
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        check(path, finished)
        if path.exists():  # under whatever name, it is the same study
            path = path.rename(path.with_name(f"study-{kills}"))
            check(path, finished)
    assert kills >= N_KILLS // 2
    command = [sys.executable, "-m", "folio", "tune", *flags, "--name", path.name]
    process = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.returncode == 0, process.stderr
    check(path, finished)
    assert sorted(finished) == list(range(TRIALS))
    for number in range(TRIALS):
        steps = [event["step"] for event in open_study(path).trial_run(number).events("evaluation")]
        assert steps == sorted(set(steps))


def check(path: Path, finished: dict[int, tuple[TrialState, float | None, str]]) -> None:
    """What was finished at an earlier kill is so still, value, metrics and all."""
    if not is_study(path) or not open_study(path).journal_file.exists():
        return
    study = open_study(path)
    trials = study.connect().get_trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert len(trials) <= TRIALS
    for trial in trials:
        if trial.state.is_finished():
            metrics = study.trial_run(trial.number).metrics_file.read_text(encoding="utf-8")
            now = (trial.state, trial.value, metrics)
            assert finished.setdefault(trial.number, now) == now


def wait_for_work(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Until a checkpoint is written that was not there before, or the study ends."""
    begin = time.time()
    deadline = begin + 120
    while process.poll() is None and time.time() < deadline:
        pointers = path.glob("trials/*/last.json")
        if any(json.loads(p.read_text())["step"] and p.stat().st_mtime > begin for p in pointers):
            return
        time.sleep(0.02)
