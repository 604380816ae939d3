"""What `folio serve` holds out: many clients at once, those that leave, and those that mean harm.

    python -m bench.serving RUN --seconds 60 --clients 32

The server is a process of its own. First one client asks for one text after the other, then many
at once, while others leave in the middle, send bodies that do not come, and requests that are
wrong. Then many connections ask for nothing, a client is killed in the middle of a stream, and the
server is ended in the middle of another.
Told are the seconds to a whole answer (p50, p99), tokens a second against one client, every status
that was no 200, and the memory of the server before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from folio.console import table

PROMPT = "The "
HOSTILE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n"
    b"Connection: close\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
    b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 99999999\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000,
)


@dataclass
class Seen:
    """What clients saw."""

    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    others: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the server holds out.")
    parser.add_argument("run", nargs="?")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--connections", type=int, default=1000)
    options = parser.parse_args()
    command = [sys.executable, "-m", "folio", "serve", *filter(None, [options.run]), "--port", "0"]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        print(line, end="")
        port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
        asyncio.run(measure(port, server, line.split()[0], options))
    finally:
        server.kill()


async def measure(
    port: int, server: subprocess.Popen[str], model: str, options: argparse.Namespace
) -> None:
    pid = server.pid
    body = {"model": model, "prompt": PROMPT, "max_tokens": options.tokens}
    await ask(port, body)  # loads what is loaded when it is needed
    before = memory_of(pid)
    alone, together = Seen(), Seen()
    quiet = min(10.0, options.seconds)
    await clients(1, quiet, lambda _: complete(port, body, alone))
    crowd = clients(options.clients, options.seconds, lambda _: complete(port, body, together))
    leaving = clients(4, options.seconds, lambda _: leave(port, body, together))
    slow = clients(4, options.seconds, lambda _: slow_body(port, body, together))
    hostile = clients(4, options.seconds, lambda i: attack(port, i, together))
    await asyncio.gather(crowd, leaving, slow, hostile)
    rows = []
    for name, seen, seconds in (
        ("one client", alone, quiet),
        (f"{options.clients} clients", together, options.seconds),
    ):
        times = sorted(seen.seconds) or [float("nan")]
        p50, p99 = (times[int(share * (len(times) - 1))] for share in (0.5, 0.99))
        speed = seen.tokens / seconds
        rows.append([name, f"{len(times):,}", f"{p50:.3f}", f"{p99:.3f}", f"{speed:,.0f}"])
    print(table(["", "answers", "p50 s", "p99 s", "tokens/s"], rows))
    print("what else happened:", dict(together.others))
    await until_quiet(port)
    print(f"memory: {before:.0f} MB before, {memory_of(pid):.0f} MB after")
    await crowd_of_idle(port, options.connections)
    await killed_client(port, model)
    print(f"memory at the end: {memory_of(pid):.0f} MB; {await metrics(port)}")
    await ended_server(port, model, server)


async def ended_server(port: int, model: str, server: subprocess.Popen[str]) -> None:
    """SIGTERM in the middle of a stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = {"model": model, "prompt": PROMPT, "max_tokens": 4096, "n": 16, "stream": True}
    writer.write(request(body))
    await reader.read(200)
    begin = time.perf_counter()
    server.send_signal(signal.SIGTERM)
    await reader.read()
    told = time.perf_counter() - begin
    await asyncio.to_thread(server.wait, 30)
    print(f"SIGTERM: stream ended {told:.2f} s later, server {time.perf_counter() - begin:.2f} s")
    writer.close()


async def clients(n: int, seconds: float, act: Callable[[int], Awaitable[None]]) -> None:
    """Some clients, each of which acts again and again."""
    end = time.monotonic() + seconds

    async def one(number: int) -> None:
        i = number
        while time.monotonic() < end:
            await act(i)
            i += n

    await asyncio.gather(*(one(number) for number in range(n)))


def request(body: dict[str, Any] | None, path: str = "/v1/completions", more: int = 0) -> bytes:
    """As bytes; `more` bytes of the body are announced and do not come."""
    data = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data) + more}\r\n\r\n"
    ).encode() + data


async def exchange(port: int, data: bytes) -> bytes:
    """Send some bytes, and read until the other side ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await reader.read()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def ask(
    port: int, body: dict[str, Any] | None, path: str = "/v1/completions"
) -> tuple[int, bytes]:
    head, _, data = (await exchange(port, request(body, path))).partition(b"\r\n\r\n")
    return int(head.split()[1]), data


async def complete(port: int, body: dict[str, Any], seen: Seen) -> None:
    begin = time.perf_counter()
    status, data = await ask(port, body)
    if status != 200:
        seen.others[f"status {status}"] += 1
        await asyncio.sleep(1)
        return
    seen.seconds.append(time.perf_counter() - begin)
    seen.tokens += json.loads(data)["usage"]["completion_tokens"]


async def leave(port: int, body: dict[str, Any], seen: Seen) -> None:
    """Go away in the middle of a stream."""
    long = body | {"max_tokens": 4096, "stream": True}
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(long))
    for _ in range(random.randrange(1, 20)):
        if not await reader.read(200):
            break
    writer.transport.abort()
    seen.others["left"] += 1


async def slow_body(port: int, body: dict[str, Any], seen: Seen) -> None:
    """Announce more than is sent."""
    answer = await exchange(port, request(body, more=1))
    seen.others[f"slow body: {answer[9:12].decode() or 'closed'}"] += 1


async def attack(port: int, i: int, seen: Seen) -> None:
    with suppress(OSError):
        answer = await asyncio.wait_for(exchange(port, HOSTILE[i % len(HOSTILE)]), 60)
        seen.others[f"hostile: {answer[9:12].decode() or 'closed'}"] += 1
    await asyncio.sleep(0.05)


async def crowd_of_idle(port: int, n: int) -> None:
    """Connections that ask for nothing."""
    begin = time.perf_counter()
    writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(n)]
    status, _ = await ask(port, None, "/health")
    seconds = time.perf_counter() - begin
    print(f"beside {n:,} connections that ask for nothing /health says {status}, {seconds:.2f} s")
    for writer in writers:
        writer.transport.abort()


async def killed_client(port: int, model: str) -> None:
    """kill -9 in the middle of a stream."""
    script = (
        "import socket, sys\n"
        f"s = socket.create_connection(('127.0.0.1', {port}))\n"
        "s.sendall(sys.stdin.buffer.read())\n"
        "while s.recv(100): print('got', flush=True)"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert client.stdin is not None and client.stdout is not None
    body = {"model": model, "prompt": PROMPT, "max_tokens": 4096, "n": 8, "stream": True}
    client.stdin.write(request(body))
    client.stdin.close()
    client.stdout.readline()
    client.kill()
    client.wait()
    begin = time.perf_counter()
    await until_quiet(port)
    print(f"quiet {time.perf_counter() - begin:.2f} s after kill -9 of a client with 8 texts")


async def until_quiet(port: int) -> None:
    while json.loads((await ask(port, None, "/health"))[1])["active"]:
        await asyncio.sleep(0.02)


async def metrics(port: int) -> str:
    _, data = await ask(port, None, "/metrics")
    lines = [line for line in data.decode().splitlines() if not line.startswith("#")]
    return ", ".join(line.removeprefix("folio_") for line in lines)


def memory_of(pid: int) -> float:
    """Resident, in MB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


if __name__ == "__main__":
    main()
