"""One thread owns the models and does all jobs, one step of each in turn.

A request asks for some jobs (texts that are written, texts that are read) and waits with a
`Ticket` for what becomes of them. Every job ends with an `Ended`, whatever happens: it is done, it
failed, its client left, the server stops.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from folio.console import say
from folio.generation.row import FINISHED, Drawn, Request, Row
from folio.serving.limits import Limits
from folio.serving.refusals import RequestError, broken, busy, stopping
from folio.serving.served import Served
from folio.serving.transcript import Transcript


@dataclass(frozen=True)
class Ended:
    """The last that is heard of a job."""

    error: RequestError | None = None


@dataclass(eq=False)
class Job:
    """Something that a model is asked to do."""

    model: str
    ticket: Ticket = field(init=False)
    number: int = field(init=False)
    """Among the jobs of its ticket."""


@dataclass(eq=False)
class Writing(Job):
    """A job that writes a text; tells `Piece`s."""

    request: Request
    transcript: Transcript


@dataclass(eq=False)
class Reading(Job):
    """Something that is done in steps: tells what each of them yields."""

    begin: Callable[[], Iterator[Any]]


Told = tuple[Job, Any]


class Ticket:
    """What a request waits on, in the event loop."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.left = False
        self.events: asyncio.Queue[Told] = asyncio.Queue()
        for number, job in enumerate(jobs):
            job.ticket, job.number = self, number

    async def heard(self) -> AsyncIterator[Told]:
        """Yield what the jobs tell, until all of them have ended.

        Raises:
            RequestError: one of them failed.
        """
        running = len(self.jobs)
        while running:
            job, event = await self.events.get()
            if not isinstance(event, Ended):
                yield job, event
                continue
            if event.error is not None:
                raise event.error
            running -= 1


@dataclass
class Counts:
    """Counters since the server started."""

    requests: int = 0
    rejected: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    tokens: int = 0


class Lane:
    """The work on one model: rows of a batch, and what is read."""

    def __init__(self, served: Served, capacity: int, counts: Counts) -> None:
        self.served, self.capacity, self.counts = served, capacity, counts
        self.batch = served.opened.batch(capacity)
        self.rows: dict[Row, Writing] = {}
        self.readings: dict[Reading, Iterator[Any]] = {}

    def __len__(self) -> int:
        return len(self.rows) + len(self.readings)

    def add(self, job: Job) -> Iterator[Told]:
        """Start a job."""
        try:
            if isinstance(job, Writing):
                self.rows[self.batch.add(job.request)] = job
            elif isinstance(job, Reading):
                self.readings[job] = job.begin()
        except Exception as error:
            yield job, self._failed(error)

    def step(self) -> Iterator[Told]:
        """Take one step of each job."""
        yield from self._drop_left()
        if self.rows:
            try:
                for row, drawn in self.batch.step():
                    yield from self._take(row, drawn)
            except Exception as error:
                # What a row did to its batch is not known: all of them end, and a new one begins.
                ended = self._failed(error)
                yield from ((job, ended) for job in self.rows.values())
                self.batch, self.rows = self.served.opened.batch(self.capacity), {}
        for job, steps in list(self.readings.items()):
            try:
                yield job, next(steps)
            except StopIteration:
                del self.readings[job]
                yield job, self._completed()
            except Exception as error:
                del self.readings[job]
                yield job, self._failed(error)

    def _take(self, row: Row, drawn: Drawn) -> Iterator[Told]:
        job = self.rows[row]
        self.counts.tokens += drawn.token_id != FINISHED
        yield job, job.transcript.take(drawn)
        if drawn.ended:
            del self.rows[row]
            yield job, self._completed()

    def _drop_left(self) -> Iterator[Told]:
        for row, job in [(row, job) for row, job in self.rows.items() if job.ticket.left]:
            del self.rows[row]
            self.batch.drop(row)
            self.counts.cancelled += 1
            yield job, Ended()
        for job in [job for job in self.readings if job.ticket.left]:
            del self.readings[job]
            self.counts.cancelled += 1
            yield job, Ended()

    def _completed(self) -> Ended:
        self.counts.completed += 1
        return Ended()

    def _failed(self, error: Exception) -> Ended:
        self.counts.failed += 1
        if isinstance(error, RequestError):
            return Ended(error)
        say("".join(traceback.format_exception(error)))
        return Ended(broken())


class Engine:
    """The thread, and the queue before it."""

    def __init__(self, served: Mapping[str, Served], limits: Limits) -> None:
        self.limits = limits
        self.counts = Counts()
        self._lanes = {name: Lane(one, limits.rows, self.counts) for name, one in served.items()}
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="folio-engine", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Number of jobs that have not begun."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Number of jobs that have begun."""
        return len(self._running)

    def submit(self, jobs: Sequence[Job]) -> Ticket:
        """Ask for some jobs, from the event loop.

        Raises:
            RequestError: the queue has no room for them, or the server stops.
        """
        self._loop = asyncio.get_running_loop()
        ticket = Ticket(jobs)
        with self._changed:
            if self._stopped:
                raise stopping()
            if self.n_waiting + self.n_running + len(jobs) > self.limits.rows + self.limits.waiting:
                self.counts.rejected += 1
                raise busy(self.n_waiting)
            self._waiting.extend(jobs)
            self._changed.notify()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Nobody waits for these jobs any more: those that wait go, those that run end with the
        next step.
        """
        with self._changed:
            ticket.left = True
            gone = [job for job in self._waiting if job.ticket is ticket]
            self._waiting = deque(job for job in self._waiting if job.ticket is not ticket)
            self.counts.cancelled += len(gone)
        _hand_out([(job, Ended()) for job in gone])

    def stop(self) -> None:
        """End everything, from the event loop; whoever waits is told at once."""
        with self._changed:
            self._stopped = True
            everything = [*self._waiting, *self._running]
            self._waiting.clear()
            self._changed.notify()
        _hand_out([(job, Ended(stopping())) for job in everything])

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._stopped or self._waiting or self._running):
                    self._changed.wait()
                if self._stopped:
                    return
                begun = []
                while self._waiting and self.n_running < self.limits.rows:
                    begun.append(self._waiting.popleft())
                    self._running.add(begun[-1])
            told = [event for job in begun for event in self._lanes[job.model].add(job)]
            for lane in self._lanes.values():
                told += lane.step()
            with self._changed:
                self._running -= {job for job, event in told if isinstance(event, Ended)}
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(_hand_out, told)
            except RuntimeError:  # the loop has ended, and with it all who waited
                return


def _hand_out(told: Sequence[Told]) -> None:
    for job, event in told:
        job.ticket.events.put_nowait((job, event))
