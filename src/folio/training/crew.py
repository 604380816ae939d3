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
PATIENCE = 0.002
"""Seconds for which a worker looks for a message again and again, before it sleeps. To be woken
takes a tenth of that, and some steps of a small model are not ten times as long."""
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
        self.others: list[tuple[int, Connection]] = []
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
            self.others.append((pid, ours))

    def ask(self, task: int, messages: Sequence[Any]) -> list[Any]:
        """As a Crew. An error in any of them is raised here, after all have answered."""
        busy = [connection for _, connection in self.others[: len(messages) - 1]]

        def meet() -> None:
            for connection in busy:
                _receive(connection)
            for connection in busy:
                connection.send(None)

        try:
            for connection, message in zip(busy, messages[1:]):
                connection.send((task, message))
            replies = [_work_off(self.tasks[task], 0, messages[0], meet)]
            replies += [_receive(connection) for connection in busy]
        except (EOFError, ConnectionError):
            raise UserError(
                "A process that computed a part of each step was killed, perhaps for want of "
                "memory. Go on with: folio resume. Fewer processes: --device.threads 1."
            ) from None
        return _answers(replies)

    def close(self) -> int:
        """As a Crew."""
        peak = peak_memory(pid for pid, _ in self.others)
        for _, connection in self.others:
            connection.close()
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

    def meet() -> None:
        connection.send(None)
        _receive(connection)

    while True:
        try:
            task, message = _receive(connection)
            connection.send(_work_off(tasks[task], number, message, meet))
        except (EOFError, ConnectionError):
            return


def _receive(connection: Connection) -> Any:
    """The next message, at once if it comes soon."""
    waiting, begin = select.poll(), time.perf_counter()
    waiting.register(connection, select.POLLIN)
    while not waiting.poll(0) and time.perf_counter() < begin + PATIENCE:
        pass
    return connection.recv()


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
