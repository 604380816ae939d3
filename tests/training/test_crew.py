"""Workers end with the process that made them, and keep nothing of it alive."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from folio.errors import UserError
from folio.training.crew import Processes, Threads, shared_row

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")


def has_ended(pid: int) -> bool:
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def test_workers_are_gone_after_close():
    crew = Processes(3, [[lambda number, message: os.getpid()]], lambda: None)
    pids = crew.ask(0, [0, 1, 2])
    assert pids[0] == os.getpid() and len(set(pids)) == 3
    crew.close()
    assert all(has_ended(pid) for pid in pids[1:])


def test_stopping_is_left_to_the_first_process():
    crew = Processes(2, [[lambda number, message: message]], lambda: None)
    pid, _ = crew.others[0]
    crew.ask(0, [0, 0])  # it serves
    for stop in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, stop)
    assert crew.ask(0, [1, 2]) == [1, 2]
    crew.close()


def test_a_killed_worker_is_one_clear_line():
    crew = Processes(2, [[lambda number, message: message]], lambda: None)
    pid, _ = crew.others[0]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"was killed.*--device.threads 1"):
        crew.ask(0, [1, 2])
    crew.close()


def test_a_killed_first_process_takes_its_workers_and_its_lock_with_it(tmp_path: Path):
    program = """
import fcntl, os, signal, sys
from folio.training.crew import Processes
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
crew = Processes(3, [[lambda number, message: os.getpid()]], lambda: None)
print(*crew.ask(0, [0, 1, 2])[1:], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    lock = tmp_path / "lock"
    done = subprocess.run(
        [sys.executable, "-c", program, lock], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    pids = done.stdout.split()
    assert len(pids) == 2 and all(has_ended(int(pid)) for pid in pids)


@pytest.mark.parametrize("kind", [Processes, Threads])
def test_a_work_begins_when_all_are_done_with_the_one_before(kind):
    row = shared_row(3, torch.float32)

    def write(number: int, message: float) -> float:
        time.sleep(message)
        if message == 0.3:
            raise ZeroDivisionError
        row[number] = number + 1
        return 10 * message

    def read(number: int, message: float) -> tuple[float, float]:
        return message, row.sum().item()

    crew = kind(3, [[write], [write, read]], lambda: None)
    assert crew.ask(1, [0.2, 0.1]) == [(2, 3), (1, 3)], "the third was not asked"
    assert crew.ask(1, [0.0, 0.1, 0.2]) == [(0, 6), (1, 6), (2, 6)]
    for failing in range(3):  # comes to the meeting nevertheless
        with pytest.raises(ZeroDivisionError):
            crew.ask(1, [0.3 if i == failing else 0.0 for i in range(3)])
    assert crew.ask(0, [0.0, 0.1, 0.2]) == [0, 1, 2]
    crew.close()


def test_a_worker_killed_before_a_meeting_is_one_clear_line():
    crew = Processes(2, [[lambda number, _: number and os._exit(1), lambda *_: 0]], lambda: None)
    with pytest.raises(UserError, match="was killed"):
        crew.ask(0, [1, 2])
    crew.close()


def test_threads_raise_an_error_after_all_have_answered():
    finished = threading.Event()

    def work(number: int, message: float) -> None:
        if number == 0:
            raise MemoryError
        time.sleep(message)
        finished.set()

    crew = Threads(2, [[work]], lambda: None)
    with pytest.raises(MemoryError):
        crew.ask(0, [0.0, 0.3])
    assert finished.is_set()  # nothing still writes to what the next request reads
    crew.close()
