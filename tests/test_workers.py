"""Workers end with the process that made them, and keep nothing of it alive."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from folio import console, workers
from folio.errors import UserError
from folio.workers import READ_AGAIN, ProcessPool, ThreadPool, WorkerError, shared_buffer
from tests.forked import Forked

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
    pool = ProcessPool(3, [[lambda number, message: os.getpid()]], lambda: None)
    pids = pool.run(0, [0, 1, 2])
    assert pids[0] == os.getpid() and len(set(pids)) == 3
    pool.close()
    assert all(has_ended(pid) for pid in pids[1:])


class Dying:
    """Notes in which process it is freed, once garbage is looked for."""

    noted: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        self.noted.append(os.getpid())


def test_a_worker_frees_no_garbage_of_its_parent():
    """That may own a descriptor whose number the worker uses by then, or wait for a thread."""

    def look(number: int, message: object) -> list[int]:
        if number:
            gc.collect()
        return [pid for pid in Dying.noted if pid == os.getpid()]

    gc.disable()
    try:
        Dying()
        with ProcessPool(2, [[look]], lambda: None) as pool:
            assert pool.run(0, [None, None])[1] == []
    finally:
        gc.enable()
    gc.collect()
    assert os.getpid() in Dying.noted


def test_stopping_is_left_to_the_first_process():
    pool = ProcessPool(2, [[lambda number, message: message]], lambda: None)
    pid, _ = pool.others[0]
    pool.run(0, [0, 0])  # it serves
    for stop in console.STOPPING:
        os.kill(pid, stop)
    assert pool.run(0, [1, 2]) == [1, 2]
    pool.close()


def test_where_not_all_workers_can_be_started_none_is_left(monkeypatch: pytest.MonkeyPatch):
    fork, started = os.fork, list[int]()

    def no_second() -> int:
        if started:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(fork())
        return started[0]

    monkeypatch.setattr(os, "fork", no_second)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    with pytest.raises(UserError, match=r"could not be started \(Resource.*--device.threads 1"):
        ProcessPool(3, [[lambda number, message: message]], lambda: None)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before
    assert has_ended(started[0])


def test_a_killed_worker_is_one_clear_line():
    pool = ProcessPool(2, [[lambda number, message: message]], lambda: None)
    pid, _ = pool.others[0]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"was killed.*--device.threads 1"):
        pool.run(0, [1, 2])
    pool.close()


@pytest.mark.xdist_group("forked")
def test_a_killed_first_process_takes_its_workers_and_its_lock_with_it(tmp_path: Path):
    program = """
import fcntl, os, signal, sys
from folio.workers import ProcessPool
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
pool = ProcessPool(3, [[lambda number, message: os.getpid()]], lambda: None)
print(*pool.run(0, [0, 1, 2])[1:], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    lock = tmp_path / "lock"
    process = Forked([sys.executable, "-c", program, lock], stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    pids = out.split()
    assert len(pids) == 2 and all(has_ended(int(pid)) for pid in pids)


@pytest.mark.parametrize("kind", [ProcessPool, ThreadPool])
def test_a_work_begins_when_all_are_done_with_the_one_before(
    kind: type[ProcessPool] | type[ThreadPool],
):
    row = shared_buffer(3, torch.float32)

    def write(number: int, message: float) -> float:
        time.sleep(message)
        if message == 0.3:
            raise ZeroDivisionError
        row[number] = number + 1
        return 10 * message

    def read(number: int, message: float) -> tuple[float, float]:
        return message, row.sum().item()

    pool = kind(3, [[write], [write, read]], lambda: None)
    assert pool.run(1, [0.2, 0.1]) == [(2, 3), (1, 3)], "the third was not asked"
    assert pool.run(1, [0.0, 0.1, 0.2]) == [(0, 6), (1, 6), (2, 6)]
    for failing in range(3):  # comes to the meeting nevertheless
        with pytest.raises(ZeroDivisionError):
            pool.run(1, [0.3 if i == failing else 0.0 for i in range(3)])
    assert pool.run(0, [0.0, 0.1, 0.2]) == [0, 1, 2]
    pool.close()


def test_a_worker_killed_before_a_meeting_is_one_clear_line():
    pool = ProcessPool(2, [[lambda number, _: number and os._exit(1), lambda *_: 0]], lambda: None)
    with pytest.raises(UserError, match="ended with status 1"):
        pool.run(0, [1, 2])
    pool.close()


def test_threads_raise_an_error_after_all_have_answered():
    finished = threading.Event()

    def work(number: int, message: float) -> None:
        if number == 0:
            raise MemoryError
        time.sleep(message)
        finished.set()

    pool = ThreadPool(2, [[work]], lambda: None)
    with pytest.raises(MemoryError):
        pool.run(0, [0.0, 0.3])
    assert finished.is_set()  # nothing still writes to what the next request reads
    pool.close()


def die(rank: int, message: int) -> None:
    if rank and message:
        os.kill(os.getpid(), message)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (signal.SIGKILL, "worker process was killed, perhaps for want of memory. Go on"),
        (signal.SIGBUS, "worker process crashed (Bus error). Go on"),
    ],
)
def test_how_a_worker_ended_is_told(how: int, told: str):
    pool = ProcessPool(3, [[die]], lambda: None)
    with pytest.raises(WorkerError, match=re.escape(told)):
        pool.run(0, [0, 0, how])
    pool.close()


def test_what_can_be_done_is_what_the_command_can_do():
    pool = ProcessPool(2, [[die]], lambda: None, READ_AGAIN)
    with pytest.raises(WorkerError, match=r"memory\. Fewer processes: OMP_NUM_THREADS=1 before"):
        pool.run(0, [0, signal.SIGKILL])
    pool.close()


def test_an_error_outside_of_a_task_is_shown(capfd: pytest.CaptureFixture[str]):
    def prepare() -> None:
        raise OSError("no room")

    pool = ProcessPool(2, [[die]], prepare)
    with pytest.raises(WorkerError, match="A worker process ended with status 1"):
        pool.run(0, [0, 0])
    assert "OSError: no room" in capfd.readouterr().err
    pool.close()


def test_a_stopped_worker_is_given_up_in_one_clear_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "HUNG_SECONDS", 1.0)
    pool = ProcessPool(2, [[lambda rank, message: message]], lambda: None)
    pid, _ = pool.others[0]
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(WorkerError, match="has done nothing for 1 seconds"):
        pool.run(0, [1, 2])
    monkeypatch.setattr(workers, "CLOSE_SECONDS", 0.2)
    pool.close()
    assert has_ended(pid)


def test_a_worker_that_computes_for_long_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "HUNG_SECONDS", 1.0)

    def compute(rank: int, seconds: float) -> int:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
        return rank

    pool = ProcessPool(2, [[compute]], lambda: None)
    assert pool.run(0, [0.0, 1.6]) == [0, 1]
    pool.close()


@pytest.mark.xdist_group("forked")
def test_a_stopped_worker_does_not_survive_its_parent():
    program = """
import os, signal
from folio.workers import ProcessPool
pool = ProcessPool(2, [[lambda rank, message: os.getpid()]], lambda: None)
pid = pool.run(0, [0, 1])[1]
os.kill(pid, signal.SIGSTOP)
print(pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = Forked([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert has_ended(int(process.communicate()[0]))


def test_a_forked_worker_has_one_thread_however_many_there_are():
    threads = torch.get_num_threads()
    torch.set_num_threads(4)  # as a device.threads above the windows of a batch would
    try:
        pool = ProcessPool(2, [[lambda rank, _: torch.get_num_threads()]], lambda: None)
        assert pool.run(0, [0, 0])[1] == 1
        pool.close()
    finally:
        torch.set_num_threads(threads)
