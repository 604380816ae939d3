"""Processes that do one piece of work after the other."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from folio.console import SCHEDULERS
from folio.corpus.processes import Process

ANSWERS = """
import sys
for line in sys.stdin:
    print("{}", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_what_a_scheduler_sends_to_all_processes_of_a_job_ends_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "answers.py").write_text(ANSWERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    process = Process("answers")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    for number in SCHEDULERS:
        os.kill(process.process.pid, number)
    assert process.ask({}) == {}
    process.end()
