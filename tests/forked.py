"""Processes of Python that begin where torch is loaded, which takes seconds: they are forked.

multiprocessing's fork server loads what is needed, once, and changes nothing of it; each process
is forked from it, with environment, folder, streams and arguments of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import reduction
from typing import Any

LOADED = (
    "pytest",  # of which the process is started that asks
    "folio.cli.main",
    "folio.recipe.train",
    "folio.recipe.resume",
    "folio.training.parallel.step",
    "optuna",
)


def shorten_ends(patch: Callable[[object, str, Any], None]) -> None:
    """What a run does at its end takes longer than a small training: it draws, looks back and
    writes. Nor is a test's disk waited for, from which nothing has to outlive the machine.
    """
    from folio.recipe import finish
    from folio.recipe.watcher import Watcher

    patch(finish, "draw_loss", lambda run: None)
    patch(finish, "look_back", lambda opened, *seconds: [])
    patch(Watcher, "sample_tokens", 10)
    patch(os, "fsync", lambda file: None)


class Forked(subprocess.Popen[Any]):
    """`subprocess.Popen` of `python -m MODULE` or `python -c CODE`, whose end is a short one."""

    process: Any

    def _execute_child(self, args: Sequence[object], *given: Any) -> None:
        _, _, _, _, cwd, env, _, _, _, *pipes = given[:15]
        in_child, ours_in, ours_out, out_child, ours_err, err_child = pipes
        child = [own if fd == -1 else fd for own, fd in enumerate((in_child, out_child, err_child))]
        server: Any = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(list(LOADED))
        words = [os.fspath(word) for word in args[1:]]  # type: ignore[call-overload]
        folder, environment = cwd or os.getcwd(), dict(env or os.environ)  # noqa: PTH109
        given_to = words, folder, environment, [Descriptor(fd) for fd in child]
        self.process = server.Process(target=begin, args=given_to)
        self.process.start()
        self.pid = self.process.pid
        self._close_pipe_fds(in_child, ours_in, ours_out, out_child, ours_err, err_child)  # type: ignore[attr-defined]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            self.returncode = self.process.exitcode
        return self.returncode

    def _wait(self, timeout: float | None) -> int | None:
        self.process.join(timeout)
        if self._internal_poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode


class Descriptor:
    """A file descriptor, on its way to the process that is forked."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> Any:
        return received, (reduction.DupFd(self.fd),)  # type: ignore[attr-defined]


def received(copy: Any) -> int:
    return copy.detach()


def begin(
    words: list[str], folder: str, environment: Mapping[str, str], streams: list[int]
) -> None:
    """What a new process of Python would do."""
    for own, fd in enumerate(streams):
        os.dup2(fd, own)
        os.close(fd)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", 1)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    shorten_ends(setattr)
    option, what, *rest = words
    sys.argv = [what if option == "-m" else option, *rest]
    if option == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        assert option == "-c"
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
