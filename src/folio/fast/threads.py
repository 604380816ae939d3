"""Threads that begin a step within a fraction of a microsecond, because they do not sleep.

Between two steps they look for the next one in compiled code, without the interpreter's lock; after
a millisecond or two without one they fall asleep.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 1 << 16
"""Looks until a thread falls asleep, each of some 20 to 40 nanoseconds."""

TRY_AGAIN_SECONDS = 0.5
"""How long the slower number of threads is not tried again."""

TRIAL_STEPS = 4
"""Steps per trial, of which the fastest counts: in the first one threads wake up."""

Follow = Callable[[int, int, int], int]
"""Called with a rank, the number of steps started so far, and patience; returns the number started
by then."""


class SpinningThreads:
    """The threads of a decoder besides the one that calls it. A forked process gets new ones."""

    def __init__(self, owner: object, n_threads: int) -> None:
        """
        Args:
            owner: with whose end the threads end.
            n_threads: with the caller's.
        """
        self.n_threads = n_threads
        self._owner = weakref.ref(owner)
        self._process, self._signal = -1, _Signal()

    @contextmanager
    def awake(self, follow: Follow, started: int) -> Iterator[None]:
        """Keep all threads looking for a step, which is started inside.

        Args:
            follow: computes each step that is started; does not refer to the owner.
            started: steps before.
        """
        if self._process != os.getpid():
            self._process, self._signal = os.getpid(), _Signal()
            weakref.finalize(self._owner(), self._signal.end)
            for rank in range(1, self.n_threads):
                arguments = rank, follow, started, self._signal
                threading.Thread(target=_run, args=arguments, daemon=True).start()
        self._signal.expect_step()
        try:
            yield
        finally:
            self._signal.expected = False

    def wait_until_asleep(self) -> None:
        """Wait until no thread looks for a step any more; for tests."""
        while self._signal.n_asleep < self.n_threads - 1:
            time.sleep(0.001)


class _Signal:
    """Wakes threads up."""

    def __init__(self) -> None:
        self.expected, self.ended, self.n_asleep = False, False, 0
        self.condition = threading.Condition()

    def expect_step(self) -> None:
        """No thread falls asleep from now on; those that sleep wake up."""
        with self.condition:
            self.expected = True
            if self.n_asleep:
                self.condition.notify_all()

    def end(self) -> None:
        """End all threads."""
        with self.condition:
            self.ended = True
            self.condition.notify_all()

    def wait(self) -> None:
        """Sleep until a step is expected."""
        with self.condition:
            while not (self.expected or self.ended):
                self.n_asleep += 1
                self.condition.wait()
                self.n_asleep -= 1


def _run(rank: int, follow: Follow, started: int, signal: _Signal) -> None:
    while not signal.ended:
        started = follow(rank, started, PATIENCE)
        signal.wait()


class FasterThreads:
    """Uses one thread or all, whichever was faster lately. The logits do not depend on it.

    Threads wait for the slowest at every matrix. Beside another program that keeps the
    processor busy (a training run) that is a time slice each: all threads made 4 tokens per
    second where one made 130.
    """

    def __init__(self, most: int, least: int = 1) -> None:
        self.numbers = most, least
        self.trials: dict[int, Trial] = {}

    @contextmanager
    def timed(self, n_tokens: int) -> Iterator[int]:
        """Give the number of threads for a step, and learn from its time.

        Args:
            n_tokens: of the step; what was learned holds for those of about as many.
        """
        kind = n_tokens.bit_length()
        trial = self.trials.setdefault(kind, Trial(*self.numbers))
        chosen, start = trial.choose(), time.perf_counter()
        yield chosen
        end = time.perf_counter()
        trial.learn(chosen, end - start, end)


class Trial:
    """Recent times of all threads and of one, in seconds; 0 means not tried."""

    def __init__(self, most: int, least: int) -> None:
        self.seconds = {most: 0.0, least: 0.0}
        self.tried: list[float] = []
        self.try_again_at = 0.0

    def choose(self) -> int:
        """The faster number of threads, or one that is to be tried."""
        return min(self.seconds, key=self.seconds.__getitem__)

    def learn(self, chosen: int, seconds: float, now: float) -> None:
        """Record the time of a step."""
        before = self.seconds[chosen]
        if before:
            self.seconds[chosen] = (3 * before + seconds) / 4
        else:
            self.tried.append(seconds)
            others = max(self.seconds.values())
            if len(self.tried) < TRIAL_STEPS and not 0 < 2 * others < seconds:
                return
            self.seconds[chosen], self.tried = min(self.tried), []
        if all(self.seconds.values()) and now > self.try_again_at:
            if self.try_again_at:
                self.seconds[max(self.seconds, key=self.seconds.__getitem__)] = 0.0
            self.try_again_at = now + TRY_AGAIN_SECONDS
