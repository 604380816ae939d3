"""`make torture`: a training that is killed fifty times ends as if it never was."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from folio.run.directory import Run, runs_folder

N_KILLS = 50
STEPS = 600
FLAGS = (
    "--preset modern --model.n-layers 2 --model.n-heads 2 --model.d-model 32",
    "--model.context-length 16 --model.residual-dropout 0.1 --training.batch-size 8",
    f"--training.max-steps {STEPS} --training.evaluation-interval 40 --training.save-interval 7",
    "--corpus.validation-fraction 0.02 --training.log-interval 1",
    "--device.kind cpu --device.threads 1 --device.precision float32",
)


def folio(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "folio", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err


def last_step(run: Run) -> int:
    pointer = run.path / "last.json"
    return json.loads(pointer.read_text())["step"] if pointer.exists() else 0


@pytest.mark.torture
def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_bytes(book: Path):
    flags = " ".join(FLAGS).split()
    finish(folio("train", str(book), "--name", "whole", *flags))
    whole, killed = Run(runs_folder() / "whole"), Run(runs_folder() / "killed")

    draw = random.Random(1)
    process = folio("train", str(book), "--name", "killed", *flags)
    kills = 0
    while kills < N_KILLS:
        begin = last_step(killed) if killed.exists() else 0
        # Let it load, then kill it at a random moment of a few checkpoints' time.
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if killed.exists() and last_step(killed) > begin:
                break
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.15))
        process.kill()
        process.communicate()
        kills += 1
        if not killed.exists():
            process = folio("train", str(book), "--name", "killed", *flags)
        else:
            process = folio("resume", "killed")
    finish(process)

    for name in ("model.safetensors", "optimizer.safetensors"):
        files = [run.checkpoint(str(STEPS))[0].path / name for run in (whole, killed)]
        assert files[0].read_bytes() == files[1].read_bytes()
    steps = [event["step"] for event in killed.events("step")]
    assert steps == sorted(set(steps))
    losses = [[(e["step"], e["loss"]) for e in run.events("step")] for run in (whole, killed)]
    assert losses[0] == losses[1]
