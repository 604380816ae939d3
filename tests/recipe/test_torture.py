"""`make torture`: killed, stopped, without disk or terminal, a training ends as if it never was."""

from __future__ import annotations

import json
import math
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from folio.run.directory import Run, runs_folder

N_KILLS = 50
N_HURTS = 12
STEPS = 600
FLAGS = (
    "--preset modern --model.n-layers 2 --model.n-heads 2 --model.d-model 32",
    "--model.context-length 16 --model.residual-dropout 0.1 --training.batch-size 8",
    f"--training.max-steps {STEPS} --training.evaluation-interval 40 --training.save-interval 7",
    "--corpus.validation-fraction 0.02 --training.log-interval 1",
    "--device.kind cpu --device.threads 1 --device.precision float32",
)


def folio(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "folio", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
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


# ---- workers -----------------------------------------------------------------------------


def children_of(process: subprocess.Popen[str]) -> list[int]:
    try:
        return [
            int(child)
            for task in Path(f"/proc/{process.pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []


def assert_gone(pids: set[int]) -> None:
    """Processes that are still there after some seconds are left behind; a zombie is not."""
    deadline, left = time.monotonic() + 10, list(pids)
    while time.monotonic() < deadline:
        left = [pid for pid in pids if state_of(pid) not in ("", "Z")]
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError(f"left running: {left}")


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@pytest.mark.torture
@pytest.mark.skipif(sys.platform != "linux", reason="workers are processes on Linux")
def test_fifty_kills_and_stops_of_workers_and_parents_lose_nothing_and_leave_nothing(
    book: Path, capfd: pytest.CaptureFixture[str]
):
    flags = " ".join(FLAGS).replace("--device.threads 1", "--device.threads 3").split()
    finish(folio("train", str(book), "--name", "whole", *flags))
    whole, hurt = Run(runs_folder() / "whole"), Run(runs_folder() / "hurt")
    draw, seen = random.Random(2), set()
    counts = dict.fromkeys(("parent killed", "worker killed", "worker stopped, parent killed"), 0)
    process = folio("train", str(book), "--name", "hurt", *flags)
    hits = lines = 0
    while hits < N_KILLS:
        begin = last_step(hurt) if hurt.exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if hurt.exists() and last_step(hurt) > begin and children_of(process):
                break
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.15))
        workers = children_of(process)
        seen |= {process.pid, *workers}
        what = draw.choice(list(counts)) if workers else "parent killed"
        if what == "worker killed":
            os.kill(draw.choice(workers), signal.SIGKILL)
        else:
            if what != "parent killed":
                os.kill(draw.choice(workers), signal.SIGSTOP)
            process.kill()
        _, err = process.communicate(timeout=60)
        if what == "worker killed" and process.returncode != 0:
            assert process.returncode == 2 and "Traceback" not in err, err
            assert "was killed" in err, err
            lines += 1
        assert_gone(seen)
        counts[what] += 1
        hits += 1
        command = ["resume", "hurt"] if hurt.exists() else ["train", str(book), *flags]
        process = folio(*command, *([] if hurt.exists() else ["--name", "hurt"]))
    finish(process)
    for name in ("model.safetensors", "optimizer.safetensors"):
        files = [run.checkpoint(str(STEPS))[0].path / name for run in (whole, hurt)]
        assert files[0].read_bytes() == files[1].read_bytes()
    with capfd.disabled():
        print(f"\n{hits} times: {counts}; {lines} ended with a line; {len(seen)} processes, 0 left")


# ---- disks and terminals -----------------------------------------------------------------


@pytest.mark.torture
@pytest.mark.skipif(sys.platform == "win32", reason="limits of files and terminals are POSIX's")
def test_full_disks_lost_terminals_and_pauses_lose_nothing(
    book: Path, capfd: pytest.CaptureFixture[str]
):
    flags = " ".join(FLAGS).split()
    finish(folio("train", str(book), "--name", "whole", *flags))
    whole, hurt = Run(runs_folder() / "whole"), Run(runs_folder() / "hurt")
    draw = random.Random(3)
    ways = (until_the_disk_is_full, until_the_terminal_is_closed, with_a_pause)
    counts = dict.fromkeys((way.__name__ for way in ways), 0)
    for number in range(N_HURTS):
        train = ["train", str(book), "--name", "hurt", *flags]
        way = ways[number % len(ways)]
        way(
            [sys.executable, "-m", "folio", *(["resume", "hurt"] if hurt.exists() else train)], draw
        )
        counts[way.__name__] += 1
    assert hurt.exists() and last_step(hurt) < STEPS, "there must be something left to do"
    finish(folio("resume", "hurt"))
    for name in ("model.safetensors", "optimizer.safetensors"):
        files = [run.checkpoint(str(STEPS))[0].path / name for run in (whole, hurt)]
        assert files[0].read_bytes() == files[1].read_bytes()
    losses = [[(e["step"], e["loss"]) for e in run.events("step")] for run in (whole, hurt)]
    assert losses[0] == losses[1]
    with capfd.disabled():
        print(f"\n{counts}")


def until_the_disk_is_full(command: list[str], draw: random.Random) -> None:
    """No file may become longer than a few checkpoints' worth of a run's numbers."""
    import resource

    most = draw.randrange(2_000, 60_000)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=limit
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "Traceback" not in err and "too large" in err.splitlines()[-1], err


def until_the_terminal_is_closed(command: list[str], draw: random.Random) -> None:
    """A window that is closed after a moment: the kernel hangs up whoever was started in it."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    shown, until = b"", math.inf
    while time.monotonic() < until:
        if shown and until == math.inf:
            until = time.monotonic() + draw.uniform(0, 3)
        readable, _, _ = select.select([terminal], [], [], 0.05)
        if readable:
            shown += os.read(terminal, 65536)
    os.close(terminal)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert not os.WIFSIGNALED(status), (status, shown)
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"went on without its terminal: {shown.decode()}")


def with_a_pause(command: list[str], draw: random.Random) -> None:
    """Ctrl-Z and fg, then killed."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(draw.uniform(2, 4))
    process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    process.send_signal(signal.SIGCONT)
    time.sleep(draw.uniform(0, 0.5))
    process.kill()
    process.wait()


@pytest.mark.torture
def test_of_two_commands_of_one_name_one_makes_the_run_and_the_other_is_told(book: Path):
    flags = " ".join(FLAGS).replace(str(STEPS), "40").split()
    for attempt in range(5):
        name = f"same-{attempt}"
        both = [folio("train", str(book), "--name", name, *flags) for _ in range(2)]
        ends = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
        assert sorted(code for _, code in ends) == [0, 2], ends
        (told,) = (err for err, code in ends if code == 2)
        assert "exists already" in told or "is being written by" in told
        assert last_step(Run(runs_folder() / name)) == 40
