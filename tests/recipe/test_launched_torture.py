"""`make torture`: processes that train together are killed, stopped and asked to stop.

What has to hold of many processes, and which test shows it:

 1. one curve, whatever their number          training/test_distributed.py  any_number_of_processes
 2. all have the same weights, to the bit     training/test_distributed.py  any_number_of_processes
 3. a killed process costs no byte            below  killed_and_started_again_by_torchrun
 4. begun with 2, gone on with 3 and 1        recipe/test_launched.py  two_processes_stop_together
 5. the order of the text is that of one      training/test_distributed.py  rows_of_all_processes
 6. a signal to one stops all, exit code 75   below  told_to_one; cli/test_watching.py
 7. only the first one writes                 recipe/test_launched.py  only_the_first_process_writes
 8. a mistake is one line, and ends all       below  one_line; recipe/test_launched.py  mistake
 9. one that hangs is named                   below, training/test_distributed.py  that_hangs
10. memory that runs out in one               training/test_distributed.py  memory_that_runs_out
11. a gradient that is not finite in one      training/test_distributed.py  no_finite_gradient
12. a divided optimizer, a divided model      training/test_sharded_optimizer.py, test_fsdp_step.py
13. Muon by the owners of matrices            training/test_sharded_optimizer.py
14. Lightning is the loop                     test_lightning.py
15. accelerators without one                  test_accelerator.py, training/accelerated/
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from folio.run.checkpoint import list_checkpoints
from folio.run.directory import Run, runs_folder
from tests.recipe.test_torture import assert_gone, children_of, last_step

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc of Linux"),
]
STEPS = 300
FLAGS = (
    "--preset modern --model.n-layers 1 --model.n-heads 2 --model.d-model 16 "
    f"--model.context-length 16 --training.batch-size 4 --training.max-steps {STEPS} "
    "--training.evaluation-interval 100 --training.save-interval 25 --training.log-interval 1 "
    "--device.kind cpu --device.threads 1 --device.precision float32"
).split()
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
HANDLED = ["--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1"]


def python(*words: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def launched(n: int, *words: str, **variables: str) -> Generator[list[subprocess.Popen[str]]]:
    """n processes of `folio`, as a scheduler starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n)}
    processes = [
        python("-m", "folio", *words, RANK=str(rank), **place, **variables) for rank in range(n)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_for_step(run: Run, step: int, *processes: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not run.exists() or last_step(run) < step:
        assert time.monotonic() < deadline, "it does not get there"
        assert all(process.poll() is None for process in processes), "one has ended"
        time.sleep(0.02)


def ends_of(processes: list[subprocess.Popen[str]]) -> list[tuple[int, list[str]]]:
    """Exit code and lines of each."""
    lines = [process.communicate(timeout=400)[1].splitlines() for process in processes]
    return [(process.returncode, said) for process, said in zip(processes, lines)]


def rank_one(torchrun: subprocess.Popen[str]) -> int:
    """The process that torchrun started second."""
    ranks = {
        int(line.removeprefix(b"RANK=")): pid
        for pid in children_of(torchrun)
        for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if line.startswith(b"RANK=")
    }
    return ranks[1]


def test_a_run_whose_process_is_killed_and_started_again_by_torchrun_has_the_same_bytes(book: Path):
    with launched(2, "train", str(book), "--name", "whole", *FLAGS) as processes:
        assert [code for code, _ in ends_of(processes)] == [0, 0]
    whole, killed = Run(runs_folder() / "whole"), Run(runs_folder() / "killed")
    words = ["-m", "folio", "train", str(book), "--name", "killed", *FLAGS]
    torchrun = python(*TORCHRUN, "--max-restarts=2", *words)
    for step in (75, 150):
        wait_for_step(killed, step, torchrun)
        os.kill(rank_one(torchrun), signal.SIGKILL)
    (code, lines) = ends_of([torchrun])[0]
    assert code == 0, "\n".join(lines)
    for name in ("model.safetensors", "optimizer.safetensors"):
        files = [run.checkpoint(str(STEPS))[0].path / name for run in (whole, killed)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_that_is_told_to_one_process_stops_all_at_one_step(
    book: Path, number: signal.Signals
):
    run = Run(runs_folder() / "told")
    command = ["train", str(book), "--name", "told", *FLAGS, "--training.max-steps", "100000"]
    with launched(2, *command) as processes:
        wait_for_step(run, 50, *processes)
        processes[1].send_signal(number)
        (first, said), (second, others) = ends_of(processes)
    assert (first, second) == (75, 75), (said, others)
    assert sum("interrupted; everything is saved" in line for line in said) == 1 and not others
    assert [event["step"] for event in run.events("end")] == [last_step(run)]
    with launched(3, "resume", "told", "--training.max-steps", str(last_step(run) + 10)) as again:
        assert [code for code, _ in ends_of(again)] == [0, 0, 0]


def test_torchrun_and_all_processes_may_get_the_signal_of_a_scheduler(book: Path):
    run = Run(runs_folder() / "all")
    words = ["train", str(book), "--name", "all", *FLAGS, "--training.max-steps", "100000"]
    torchrun = python(*TORCHRUN, *HANDLED, "-m", "folio", *words)
    wait_for_step(run, 50, torchrun)
    pids = children_of(torchrun)
    for pid in (*pids, torchrun.pid):  # which sends it on
        os.kill(pid, signal.SIGUSR1)
    torchrun.communicate(timeout=400)
    assert_gone({torchrun.pid, *pids})
    assert [(e["reason"], e["step"]) for e in run.events("end")] == [
        ("interrupted", last_step(run))
    ]
    assert last_step(run) == max(int(p.name[-8:]) for p in list_checkpoints(run.checkpoints_folder))


def test_a_process_that_hangs_is_named_and_nothing_is_left(book: Path):
    run = Run(runs_folder() / "hung")
    command = ["train", str(book), "--name", "hung", *FLAGS, "--training.max-steps", "100000"]
    with launched(2, *command, FOLIO_TIMEOUT="30") as processes:
        wait_for_step(run, 50, *processes)
        processes[1].send_signal(signal.SIGSTOP)
        (first, said) = ends_of(processes[:1])[0]
        pids = {process.pid for process in processes}
    assert first == 2 and said[-1].startswith("error: Process 1 of the 2 that train together")
    assert_gone(pids)


@pytest.mark.parametrize("wrong", [["nofile.txt"], ["python-docs", "--device.kind", "cuda"]])
def test_a_mistake_of_all_processes_is_one_line(wrong: list[str]):
    with launched(2, "train", *wrong, "--training.max-steps", "5") as processes:
        ends = ends_of(processes)
    assert [code for code, _ in ends] == [2, 2], ends
    assert sum(line.startswith("error: ") for _, said in ends for line in said) == 1, ends
    assert not any("Traceback" in line for _, said in ends for line in said)
