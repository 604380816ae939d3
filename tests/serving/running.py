"""Servers for tests: each listens at a port of this machine that the system chooses."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

from folio.serving.limits import Limits
from folio.serving.served import Served
from folio.serving.server import Server, serve

LONG = 10**6
"""Tokens that no test waits for, of a server that allows so many."""
PATIENCE = 60
"""Seconds until something that should happen counts as hanging."""


@dataclass
class Answer:
    status: int
    headers: HTTPMessage
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def error(self) -> dict[str, Any]:
        error = self.json["error"]
        assert list(error) == ["message", "type", "param", "code"], "OpenAI's form"
        return error


@dataclass
class Running:
    """A server that answers."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        path: str,
        body: Any = None,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; a body that is not bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        data, given = body, dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body).encode()
        if body is not None:
            given.setdefault("Content-Type", "application/json")
        connection.request(method or ("GET" if body is None else "POST"), path, data, given)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer

    def complete(self, prompt: Any = "The ", **fields: Any) -> Any:
        """What /v1/completions answers; it must be no error."""
        answer = self.ask("/v1/completions", {"model": "tiny", "prompt": prompt, **fields})
        assert answer.status == 200, answer.data
        return answer.json

    def send(self, data: bytes) -> socket.socket:
        """A connection over which some bytes were sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.sendall(data)
        return connection

    def metric(self, name: str) -> int:
        lines = self.ask("/metrics").data.decode().splitlines()
        return int(next(line for line in lines if line.startswith(f"folio_{name} ")).split()[1])

    def until_quiet(self) -> None:
        """Until nothing is worked on any more."""
        wait_for(lambda: self.ask("/health").json["active"] == 0)


def wait_for(happened: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def post(body: Any, more: str = "") -> bytes:
    """A request as bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n{more}\r\n"
    )
    return head.encode() + data


def received(connection: socket.socket) -> bytes:
    """Everything until the other side ends."""
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    finally:
        connection.close()
    return data


@contextmanager
def serving(
    served: Mapping[str, Served], limits: Limits | None = None, key: str | None = None
) -> Generator[Running]:
    """A server in a thread."""
    ready = threading.Event()
    found: list[tuple[str, Server]] = []

    def begun(address: str, server: Server) -> None:
        found.append((address, server))
        ready.set()

    thread = threading.Thread(
        target=serve, args=(served,), kwargs={"port": 0, "limits": limits, "key": key}
        | {"begun": begun},
    )  # fmt: skip
    thread.start()
    assert ready.wait(PATIENCE)
    address, server = found[0]
    try:
        yield Running(int(address.rpartition(":")[2]))
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server did not end"


@contextmanager
def folio_serve(*arguments: str, runs: Path, **environment: str) -> Generator[tuple[Any, Running]]:
    """The command, as a process of its own, which is ended by its id if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "folio", "serve", *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        env=os.environ | {"FOLIO_RUNS": str(runs), "PYTHONUNBUFFERED": "1"} | environment,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, line
        yield process, Running(int(line.partition("http://127.0.0.1:")[2].partition("/")[0]))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)
        process.stdout.close()
