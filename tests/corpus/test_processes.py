"""Processes that do one piece of work after the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from folio.console import STOPPING
from folio.corpus.processes import LostError, Pool, Process, deaf

ANSWERS = """
import sys
for line in sys.stdin:
    print("{}", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_what_a_terminal_or_a_scheduler_sends_to_all_processes_ends_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "answers.py").write_text(ANSWERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    process = Process("answers")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    for number in STOPPING:
        os.kill(process.process.pid, number)
    assert process.ask({}) == {}
    process.end()


def test_windows_keeps_ctrl_c_from_a_reader_by_a_flag(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(signal, "pthread_sigmask", raising=False)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    with deaf() as flags:
        assert flags == 512


HANGS = """
from folio.corpus.processes import requests
for request in requests():
    print("{}", flush=True)
    while True:
        pass
"""


def test_a_reader_ends_with_the_process_that_asks_it_whatever_it_works_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "hangs.py").write_text(HANGS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = Process("hangs")
    assert process.ask({}) == {}
    for stream in (process.process.stdin, process.process.stdout):  # as the system does at a kill
        assert stream is not None
        stream.close()
    assert process.process.wait(timeout=60) == 0


def test_after_an_interrupt_nobody_waits_for_what_readers_work_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "silent.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = threading.Event()

    def ask() -> None:
        process = pool.worker()
        began.set()
        try:
            process.ask({})
        except LostError:  # as by an accident, after which another one is asked
            pool.worker().ask({})

    pool = Pool(1, lambda: Process("silent"))
    job = pool.submit(ask)
    assert began.wait(60)
    pool.__exit__(KeyboardInterrupt)
    assert isinstance(job.exception(), LostError) and len(pool.workers) == 1
