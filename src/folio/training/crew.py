"""Workers that do the same kind of work side by side, this process being the first of them.

Processes where they can be forked: threads of one interpreter wait for its lock between any
two operations, which takes up to half of the time of a small model. A forked process has all
that this one had, so a message is a few numbers; rows of weights lie in memory that both see.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import Any, Protocol

import torch
from torch import Tensor

from folio.device import peak_memory
from folio.errors import UserError

Work = Callable[[int, Any], Any]
"""(number of the worker, message) -> answer."""
Task = Sequence[Work]
"""Done one after the other: each of the works begins when all workers are done with the one before
it, whose answer is its message."""
Reply = tuple[Any, Exception | None]
"""The answer, or the error, which is raised where all have been heard."""
PATIENCE = 0.0005
"""Seconds for which a worker looks for a message again and again, before it sleeps. To be woken
takes up to half of that, and a step of a small model waits several times."""
STOPPING = {signal.SIGINT, signal.SIGTERM}


def shared_row(n: int, dtype: torch.dtype) -> Tensor:
    """(n,) zeros on the CPU that forked processes read and write together."""
    memory = mmap.mmap(-1, max(n, 1) * dtype.itemsize)
    return torch.frombuffer(memory, dtype=dtype, count=n)


class Crew(Protocol):
    """Workers at hand."""

    def ask(self, task: int, messages: Sequence[Any]) -> list[Any]:
        """The answers to message i from worker i, for at most as many messages as workers."""
        ...

    def close(self) -> int:
        """Send them home; returns the most bytes of memory that all of them ever held."""
        ...


def make_crew(n: int, tasks: Sequence[Task], prepare: Callable[[], None]) -> Crew:
    """n workers.

    Args:
        n: how many, this process included.
        tasks: what they can be asked for; none may change what another worker reads meanwhile.
        prepare: called once in each of the others.
    """
    # Where there is an accelerator torch forbids gradients in a forked process.
    if sys.platform == "linux" and not torch.cuda.is_available():
        return Processes(n, tasks, prepare)
    return Threads(n, tasks, prepare)


class Processes:
    """Forked ones; they end with this process, however it ends."""

    def __init__(self, n: int, tasks: Sequence[Task], prepare: Callable[[], None]) -> None:
        self.tasks = tasks
        self.others: list[tuple[int, Line]] = []
        for number in range(1, n):
            ours, theirs = Pipe()
            before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
            pid = os.fork()
            if pid == 0:
                try:
                    _serve(theirs, number, tasks, prepare)
                finally:
                    os._exit(0)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
            self.others.append((pid, Line(ours)))

    def ask(self, task: int, messages: Sequence[Any]) -> list[Any]:
        """As a Crew. An error in any of them is raised here, after all have answered."""
        lines = [line for _, line in self.others[: len(messages) - 1]]

        def meet() -> None:
            for line in lines:
                line.receive()
            for line in lines:
                line.send(None)

        try:
            for line, message in zip(lines, messages[1:]):
                line.send((task, message))
            replies = [_work_off(self.tasks[task], 0, messages[0], meet)]
            replies += [line.receive() for line in lines]
        except (EOFError, ConnectionError):
            raise UserError(
                "A process that computed a part of each step was killed, perhaps for want of "
                "memory. Go on with: folio resume. Fewer processes: --device.threads 1."
            ) from None
        return _answers(replies)

    def close(self) -> int:
        """As a Crew."""
        peak = peak_memory(pid for pid, _ in self.others)
        for _, line in self.others:
            line.connection.close()
        for pid, _ in self.others:
            os.waitpid(pid, 0)
        self.others = []
        return peak


def _serve(
    connection: Connection, number: int, tasks: Sequence[Task], prepare: Callable[[], None]
) -> None:
    """Answer until the other end is closed."""
    # The first process decides when to stop; a lock that it holds must not outlive it here.
    for stop in STOPPING:
        signal.signal(stop, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    mine = connection.fileno()
    os.closerange(3, mine)
    os.closerange(mine + 1, os.sysconf("SC_OPEN_MAX"))
    prepare()
    line = Line(connection)

    def meet() -> None:
        line.send(None)
        line.receive()

    while True:
        try:
            task, message = line.receive()
            line.send(_work_off(tasks[task], number, message, meet))
        except (EOFError, ConnectionError):
            return


class Line:
    """One end of the connection between two processes."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.send = connection, connection.send
        self.coming = select.poll()
        self.coming.register(connection, select.POLLIN)
        self.taken_away = 0
        """Times that another program took the core of this one, at the last look."""

    def receive(self) -> Any:
        """The next message, without sleep if it comes soon and no other program wants the core."""
        import resource  # which Windows does not have

        before = self.taken_away
        self.taken_away = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        if self.taken_away == before:
            until = time.perf_counter() + PATIENCE
            while not self.coming.poll(0) and time.perf_counter() < until:
                pass
        return self.connection.recv()


def _work_off(task: Task, number: int, message: Any, meet: Callable[[], None]) -> Reply:
    """A whole task; who failed comes to the meetings too, where the others wait."""
    reply: Reply = message, None
    for i, work in enumerate(task):
        if i:
            meet()
        reply = _attempt(work, number, reply)
    return reply


def _attempt(work: Work, number: int, before: Reply) -> Reply:
    message, error = before
    if error is not None:
        return before
    try:
        return work(number, message), None
    except Exception as error:
        return None, error


def _answers(replies: list[Reply]) -> list[Any]:
    """Of all attempts; the first error is raised."""
    for _, error in replies:
        if error is not None:
            raise error
    return [answer for answer, _ in replies]


class Threads:
    """Of this process."""

    def __init__(self, n: int, tasks: Sequence[Task], prepare: Callable[[], None]) -> None:
        self.tasks = tasks
        self.pool = ThreadPoolExecutor(n, initializer=prepare)

    def ask(self, task: int, messages: Sequence[Any]) -> list[Any]:
        """As a Crew. An error is raised after all have answered, so that none still writes."""
        replies: list[Reply] = [(message, None) for message in messages]
        for work in self.tasks[task]:
            attempt = partial(_attempt, work)
            replies = list(self.pool.map(attempt, range(len(messages)), replies))
        return _answers(replies)

    def close(self) -> int:
        """As a Crew."""
        self.pool.shutdown()
        return peak_memory()
