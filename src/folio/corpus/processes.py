"""Python processes that do one piece of work after the other, and may die or hang on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from folio.console import STOPPING

W = TypeVar("W", bound="Process")


OUT_OF_TIME = getattr(signal, "SIGXCPU", 0)
"""What ends a process that has used its processor time; Windows has no such limit."""


class LostError(Exception):
    """Raised where a process ended without an answer; `late` if it was killed for its time."""

    def __init__(self, late: bool) -> None:
        super().__init__("it took too long" if late else "it died")
        self.late = late


@contextmanager
def deaf() -> Generator[int]:
    """Have the processes that start meanwhile never hear of a signal that ends a command.

    A terminal and a scheduler send it to all processes of a command at once. This one decides what
    becomes of the others; a reader that ended would leave its file out of the text.

    Yields:
        The `creationflags` of Popen, by which Windows does the same.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def requests() -> Iterator[dict[str, Any]]:
    """What the process that started this one asks, in that process's turn.

    When it ends, however that comes, so does this one, whatever it is working on: its pipes close.
    """
    lines = SimpleQueue[str]()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield json.loads(lines.get())


class Process:
    """A process of its own that answers each line of JSON with another."""

    def __init__(self, module: str, **environment: str) -> None:
        """Start `python -m module`, with some more variables in its environment."""
        package = str(Path(__file__).parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        with deaf() as flags:
            self.process = subprocess.Popen(
                # -P keeps files of the user, such as a json.py, from being imported.
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment,
                text=True,
                encoding="utf-8",
                creationflags=flags,
            )
        self.ended = False

    def ask(self, request: dict[str, Any], limit_seconds: float | None = None) -> dict[str, Any]:
        """Send a request and wait for its answer, for at most `limit_seconds`.

        Raises:
            LostError: the process died, or was killed since it took longer.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(limit_seconds, stop) if limit_seconds is not None else None
        if timer is not None:
            timer.start()
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            answer = stdout.readline()
        except OSError:
            answer = ""
        finally:
            if timer is not None:
                timer.cancel()
        if answer.endswith("\n"):
            return json.loads(answer)
        self.end()
        raise LostError(late.is_set() or self.process.returncode == -OUT_OF_TIME)

    def stop(self) -> None:
        """End the process at once; who waits for its answer gets a LostError."""
        self.process.kill()

    def end(self) -> None:
        """Close the pipes of the process, and kill it if it stays."""
        self.ended = True
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(OSError):
                stream.close()
        try:
            self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Pool(Generic[W]):
    """Threads that each drive a process of their own, started when it is asked for; one that was
    lost is started anew.
    """

    def __init__(self, n_workers: int, start: Callable[[], W]) -> None:
        self.threads = ThreadPoolExecutor(n_workers)
        self.local = threading.local()
        self.start = start
        self.workers: list[W] = []
        self.stopped = False
        """Whether nobody waits for answers any more."""

    def __enter__(self) -> Pool[W]:
        return self

    def __exit__(self, error: type[BaseException] | None, *rest: Any) -> None:
        if error is not None:  # nobody waits for what is being worked on
            self.stopped = True
            self.threads.shutdown(wait=False, cancel_futures=True)
            for worker in list(self.workers):
                worker.stop()
        self.threads.shutdown(cancel_futures=True)
        for worker in self.workers:
            worker.end()

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call `work(*arguments)` as soon as a thread is free; there it may ask its `worker`."""
        return self.threads.submit(work, *arguments)

    def worker(self) -> W:
        """The process of this thread; a new one if it was lost.

        Raises:
            LostError: it was lost since nobody waits for it any more.
        """
        worker = getattr(self.local, "worker", None)
        if worker is None or worker.ended:
            if self.stopped:
                raise LostError(late=False)
            worker = self.local.worker = self.start()
            self.workers.append(worker)
        return worker
