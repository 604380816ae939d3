"""A Tika server for the duration of a reading: one that is running, or one started from a jar."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from folio.corpus.extraction import missing_library
from folio.corpus.formats.known import TIKA
from folio.errors import UserError
from folio.process import end_with

START_SECONDS = 60.0


@contextmanager
def tika_server(where: str) -> Iterator[str]:
    """The address of a server; a context manager that stops it if it started it.

    Args:
        where: its address, or the path of a tika-server jar; empty if none is wanted.

    Raises:
        UserError: no server there, no such jar, no java, or no package `tika`.
    """
    if not where:
        yield ""
        return
    if missing := missing_library(TIKA):
        raise UserError(f"corpus.engine is 'tika': {missing}.")
    if where.startswith(("http://", "https://")):
        if not _answers(where):
            raise UserError(
                f"There is no Tika server at {where}. Start one with: java -jar "
                f"tika-server-standard-3.2.3.jar (from https://tika.apache.org/download.html), or "
                f"give its address or that jar as --corpus.tika."
            )
        yield where.rstrip("/")
        return
    jar = Path(where).expanduser()
    if not jar.is_file():
        raise UserError(
            f"corpus.tika must be an address such as http://localhost:9998 or a tika-server jar, "
            f"got '{where}'. Get one from https://tika.apache.org/download.html."
        )
    java = shutil.which("java")
    if java is None:
        raise UserError(f"{jar} needs Java to run, and there is none. Install it.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [java, "-jar", str(jar), "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in a terminal would end it in the middle of a file
        preexec_fn=partial(end_with, os.getpid()) if sys.platform == "linux" else None,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        begin = time.monotonic()
        while not _answers(address):
            if process.poll() is not None or time.monotonic() - begin > START_SECONDS:
                raise UserError(f"{jar} did not start as a Tika server. Is it a tika-server jar?")
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/version", timeout=5) as response:
            return b"Tika" in response.read(200)
    except (OSError, ValueError):
        return False
