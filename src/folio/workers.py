"""A pool of workers that run the same task in parallel; rank 0 is this process.

Workers are processes if they can be forked: threads of one interpreter wait for the GIL between any
two operations, which takes up to half of the time of a small model. A forked process has everything
that its parent had, so a message is a few numbers; flat buffers of weights are in shared memory.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from folio.console import STOPPING
from folio.errors import UserError
from folio.process import end_with, peak_memory

Phase = Callable[[int, Any], Any]
"""Maps (rank, message) to an answer."""
Task = Sequence[Phase]
"""Phases with a barrier between any two: each begins when all workers have finished the one before
it, whose answer is its message."""
Reply = tuple[Any, Exception | None]
"""The answer, or the error, which is raised once all workers have replied."""
SPIN_SECONDS = 0.0005
"""How long a worker polls for a message before it sleeps. Waking it takes up to half of that, and a
step of a small model waits several times."""
HUNG_SECONDS = 60.0
"""How long a worker may neither answer nor use processor time before it is given up. Even on a busy
machine every process gets some time within a minute."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3): free bytes at the end of the heap that are kept, and size of a piece from which
it comes from the system and goes back there."""
LARGEST_INT = 2**31 - 1
MMAP_THRESHOLD_BYTES = 1 << 25
"""The largest that glibc promises to take."""
CLOSE_SECONDS = 5.0
"""How long a worker may take to exit before it is killed."""
STOP_SIGNALS = set(STOPPING)


GO_ON = "Go on with: folio resume. Fewer processes: --device.threads 1."
"""What can be done where workers of a training fail."""
READ_AGAIN = "Fewer processes: OMP_NUM_THREADS=1 before the command."
"""The same where a text is read."""


class WorkerError(UserError):
    """A worker died or hung; its work is lost, and the pool can no longer be used."""


class HungError(Exception):
    """A worker neither answers nor computes."""


def shared_buffer(n: int, dtype: torch.dtype) -> Tensor:
    """(n,) zeros on the CPU that forked processes share."""
    memory = mmap.mmap(-1, max(n, 1) * dtype.itemsize)
    return torch.frombuffer(memory, dtype=dtype, count=n)


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, where glibc looks after it.

    A training step, or a text that is read, frees nearly all that it took, and glibc gives the end
    of its heap back to the system, so that each step would ask for thousands of pages anew.
    """
    if mallopt := _glibc("mallopt"):
        mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


def return_freed_memory() -> None:
    """Give the system back what `keep_freed_memory` kept, and from now on again what is freed.

    The thresholds are then those that glibc itself comes to where large pieces are freed.
    """
    if mallopt := _glibc("mallopt"):
        mallopt(M_TRIM_THRESHOLD, 2 * MMAP_THRESHOLD_BYTES)
    trim_memory()


def trim_memory() -> None:
    """Give the system back what is free at the moment."""
    if malloc_trim := _glibc("malloc_trim"):
        malloc_trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library that this process runs on; None where that is another one."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)


class WorkerPool(Protocol):
    """Workers that run tasks."""

    def run(self, task: int, messages: Sequence[Any]) -> list[Any]:
        """Have worker i answer message i; there are at most as many messages as workers.

        Raises:
            WorkerError: one of them died or hung.
        """
        ...

    def close(self) -> int:
        """End the workers; returns the peak memory in bytes of all of them together."""
        ...


def forks() -> bool:
    """Whether workers are processes. With an accelerator, torch forbids gradients in a fork."""
    return sys.platform == "linux" and not torch.cuda.is_available()


def make_pool(world_size: int, tasks: Sequence[Task], prepare: Callable[[], None]) -> WorkerPool:
    """Start workers.

    Args:
        world_size: number of workers, this process included.
        tasks: the tasks they can run; none may change what another worker reads at the same time.
        prepare: called once in each other worker.
    """
    return (ProcessPool if forks() else ThreadPool)(world_size, tasks, prepare)


class ProcessPool:
    """Forked processes that end with this one, however it ends."""

    def __init__(
        self,
        world_size: int,
        tasks: Sequence[Task],
        prepare: Callable[[], None],
        way_out: str = GO_ON,
    ) -> None:
        """Start them; arguments as for `make_pool`, and what can be done if one fails, in words."""
        self.tasks, self.way_out = tasks, way_out
        self.others: list[tuple[int, Line]] = []
        # A worker is not stopped before it leaves that to this process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            for rank in range(1, world_size):
                self._fork(rank, prepare)
        except OSError as error:
            self.close()
            raise WorkerError(
                f"{world_size - 1} worker processes could not be started ({error.strerror}). "
                f"{way_out}"
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _fork(self, rank: int, prepare: Callable[[], None]) -> None:
        ours, theirs = Pipe()
        with theirs:
            parent, pid = os.getpid(), os.fork()
            if pid == 0:
                status = 1
                try:
                    _serve(theirs, parent, rank, self.tasks, prepare)
                    status = 0
                except BaseException:
                    os.write(2, traceback.format_exc().encode())
                finally:
                    os._exit(status)
        self.others.append((pid, Line(ours, pid)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, task: int, messages: Sequence[Any]) -> list[Any]:
        """Run a task; an error in any worker is raised here, after all have answered."""
        lines = [line for _, line in self.others[: len(messages) - 1]]

        def barrier() -> None:
            for line in lines:
                line.receive()
            for line in lines:
                line.send(None)

        try:
            for line, message in zip(lines, messages[1:]):
                line.send((task, message))
            replies = [_work_off(self.tasks[task], 0, messages[0], barrier)]
            replies += [line.receive() for line in lines]
        except (EOFError, ConnectionError):
            ends = ", ".join(filter(None, map(_end_of, (pid for pid, _ in self.others))))
            raise WorkerError(f"A worker process {ends or 'ended'}. {self.way_out}") from None
        except HungError as error:
            raise WorkerError(f"{error} {self.way_out}") from None
        return _answers(replies)

    def close(self) -> int:
        """End the workers; one that does not exit is killed."""
        peak = peak_memory(pid for pid, _ in self.others)
        for _, line in self.others:
            line.connection.close()
        until = time.monotonic() + CLOSE_SECONDS
        for pid, _ in self.others:
            while not _has_left(pid):
                if time.monotonic() > until:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.001)
        self.others = []
        return peak


def _end_of(child: int) -> str:
    """How a child ended, in words; empty if it has not."""
    for _ in range(100):  # its connection is closed a little earlier
        with suppress(ChildProcessError):
            if (found := os.waitpid(child, os.WNOHANG)) != (0, 0):
                status = os.waitstatus_to_exitcode(found[1])
                if status == -signal.SIGKILL:
                    return "was killed, perhaps for want of memory"
                if status < 0:
                    return f"crashed ({signal.strsignal(-status)})"
                return f"ended with status {status}"
        time.sleep(0.001)
    return ""


def _has_left(child: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitpid(child, os.WNOHANG) != (0, 0)
    return True  # someone else has waited for it


def _serve(
    connection: Connection,
    parent: int,
    rank: int,
    tasks: Sequence[Task],
    prepare: Callable[[], None],
) -> None:
    """Answer messages until the other end is closed."""
    # Garbage of the parent is not freed here: it would close descriptors that have other files by
    # then, and wait for threads that only the parent has.
    gc.freeze()
    end_with(parent)
    # Rank 0 decides when to stop; a lock that it holds must not outlive it in a fork.
    for stop in STOP_SIGNALS:
        signal.signal(stop, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    own = connection.fileno()
    os.closerange(3, own)
    os.closerange(own + 1, os.sysconf("SC_OPEN_MAX"))
    # A fork keeps none of OpenMP's threads: using more than one would wait for ever.
    torch.set_num_threads(1)
    prepare()
    line = Line(connection)

    def barrier() -> None:
        line.send(None)
        line.receive()

    while True:
        try:
            task, message = line.receive()
            line.send(_work_off(tasks[task], rank, message, barrier))
        except (EOFError, ConnectionError):
            return


class Line:
    """One end of the connection between two processes."""

    def __init__(self, connection: Connection, worker: int | None = None) -> None:
        """
        Args:
            connection: the connection to the other process.
            worker: process id of the other end, which is watched; None for a parent, whose end
                closes the connection.
        """
        self.connection, self.worker, self.send = connection, worker, connection.send
        self.coming = select.poll()
        self.coming.register(connection, select.POLLIN)
        self.preempted = 0
        """How often another program had preempted this one, at the last check."""

    def receive(self) -> Any:
        """Return the next message, without sleeping if it comes soon and no other program wants the
        core.

        Raises:
            HungError: the worker at the other end hangs.
        """
        import resource  # not on Windows

        before = self.preempted
        self.preempted = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        if self.preempted == before:
            until = time.perf_counter() + SPIN_SECONDS
            while not self.coming.poll(0) and time.perf_counter() < until:
                pass
        if self.worker is not None:
            self._watch(self.worker)
        return self.connection.recv()

    def _watch(self, worker: int) -> None:
        """Wait for a message while the worker is still computing."""
        idle, used = 0.0, -1.0
        # In short waits: suspending the machine or a process does not count as waiting.
        while not self.coming.poll(1000):
            idle, before, used = idle + 1.0, used, processor_seconds(worker)
            if used != before:
                idle = 0.0
            if idle >= HUNG_SECONDS:
                raise HungError(
                    f"A worker process has done nothing for {HUNG_SECONDS:.0f} seconds: it hangs "
                    f"or was stopped."
                )


def processor_seconds(process: int) -> float:
    """Processor time that a process has used, including kernel time; 0 if unknown."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    user, system = fields.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _work_off(task: Task, rank: int, message: Any, barrier: Callable[[], None]) -> Reply:
    """Run a whole task; after an error it still comes to the barriers, where the others wait."""
    reply: Reply = message, None
    for i, phase in enumerate(task):
        if i:
            barrier()
        reply = _attempt(phase, rank, reply)
    return reply


def _attempt(phase: Phase, rank: int, before: Reply) -> Reply:
    message, error = before
    if error is not None:
        return before
    try:
        return phase(rank, message), None
    except Exception as error:
        return None, error


def _answers(replies: list[Reply]) -> list[Any]:
    """Return all answers, or raise the first error."""
    for _, error in replies:
        if error is not None:
            raise error
    return [answer for answer, _ in replies]


class ThreadPool:
    """Workers that are threads of this process."""

    def __init__(self, world_size: int, tasks: Sequence[Task], prepare: Callable[[], None]) -> None:
        self.tasks = tasks
        self.pool = ThreadPoolExecutor(world_size, initializer=prepare)

    def run(self, task: int, messages: Sequence[Any]) -> list[Any]:
        """Run a task; an error is raised after all have answered, so that none still writes."""
        replies: list[Reply] = [(message, None) for message in messages]
        for phase in self.tasks[task]:
            attempt = partial(_attempt, phase)
            replies = list(self.pool.map(attempt, range(len(messages)), replies))
        return _answers(replies)

    def close(self) -> int:
        """End the threads; returns the peak memory of this process in bytes."""
        self.pool.shutdown()
        return peak_memory()
