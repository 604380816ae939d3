"""What may not come in, hold others up, or bring the server down."""

from __future__ import annotations

import json
import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest

from folio.serving.connection import LimitedConnection
from folio.serving.limits import Limits
from folio.serving.served import Served
from tests.serving.running import LONG, Running, post, received, serving, wait_for

SMALL = Limits(
    body_seconds=0.5,
    idle_seconds=0.5,
    stalled_seconds=0.5,
    connections=20,
    max_tokens=LONG,
    rows=2,
    waiting=2,
)


@pytest.fixture(scope="module")
def small(served: dict[str, Served]):
    """A server whose limits are reached soon."""
    with serving(served, SMALL) as running:
        yield running


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "tiny", "prompt": "The ", "seed": 1, **fields}).encode()


def large(stream: bool) -> bytes:
    """A request that is answered by 9 MB."""
    wanted = {"model": "bytes", "prompt": "é " * 80_000, "echo": True, "max_tokens": 0, "n": 16}
    return post(json.dumps(wanted | {"stream": stream}, ensure_ascii=False).encode())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Content-Encoding": "gzip"}, 415),
    ],
)
def test_tricks_of_other_pages_are_refused(server: Running, headers: dict[str, str], status: int):
    before = server.metric("tokens_total")
    answer = server.ask("/v1/completions", body(), headers=headers)
    assert answer.status == status and answer.error["message"]
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert server.metric("tokens_total") == before


@pytest.mark.parametrize(
    "kind", ['application/json; charset="UTF-8"', "Application/JSON;profile=x; charset=utf8"]
)
def test_json_may_be_named_with_parameters(server: Running, kind: str):
    assert server.ask("/v1/completions", body(), headers={"Content-Type": kind}).status == 200


def test_a_preflight_gets_no_leave(server: Running):
    for headers in ({"Origin": "http://evil.example"}, {"Origin": server.url}):
        answer = server.ask(
            "/v1/completions",
            method="OPTIONS",
            headers=headers | {"Access-Control-Request-Method": "POST"},
        )
        assert answer.status in (403, 405)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe{}",
        b'{"model": "tiny", "prompt": "\\ud800"}',
        b'{"model": "tiny", "prompt": "x", "prompt": "y"}',
        b'{"model": "tiny", "prompt": "x", "temperature": NaN}',
        b'{"model": "tiny", "prompt": "x", "temperature": 1e999}',
        b'{"model": "tiny", "prompt": "x", "seed": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b'{"model": "tiny", "prompt": [' + b"[" * 500 + b"]" * 500 + b"]}",
    ],
    ids=range(14),
)
def test_a_body_that_is_no_request_is_an_error_of_its_sender(server: Running, data: bytes):
    answer = server.ask("/v1/completions", data)
    assert answer.status == 400 and answer.error["type"] == "invalid_request_error"


def test_a_body_that_is_too_long_is_not_read(server: Running):
    assert server.ask("/v1/completions", body(prompt="x" * 300_000)).status == 413
    chunked = (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    connection = server.send(
        chunked + b"".join(b"10000\r\n" + b" " * 65536 + b"\r\n" for _ in "12345")
    )
    assert received(connection).startswith(b"HTTP/1.1 413")
    announced = b"Content-Length: 99999999999999999999\r\n\r\n"
    head = post(b"").replace(b"Content-Length: 0\r\n\r\n", announced)
    with server.send(head) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_what_is_no_http_is_answered_and_closed(server: Running):
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        b"GET / HTTP/x\r\n\r\n",
        b"\0" * 100,
    ):
        assert received(server.send(data))[:12] in (b"HTTP/1.1 400", b"")
    no_host = received(server.send(b"GET /health HTTP/1.1\r\n\r\n"))
    assert no_host.startswith(b"HTTP/1.1 400")
    assert received(server.send(b"GET /health HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 403")
    two = b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert received(server.send(two)).startswith(b"HTTP/1.1 400")
    long_head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000
    assert received(server.send(long_head))[:12] in (b"HTTP/1.1 400", b"")


def test_an_upgrade_and_a_foreign_address_lead_nowhere(server: Running):
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert server.ask("/", headers=upgrade).status == 200
    assert server.ask("http://evil.example/v1/models").status in (403, 404)
    for path in ("/../../etc/passwd", "//etc/passwd", "/v1/models/../..", "/%2e%2e/", "/nothing"):
        answer = server.ask(path)
        assert answer.status == 404 and answer.error["type"] == "invalid_request_error"
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "GET"):
        answer = server.ask("/v1/completions", method=method)
        assert answer.status == 405 and answer.error["message"]


def test_every_answer_forbids_what_a_page_could_do_with_it(server: Running):
    for path in ("/", "/health", "/v1/models", "/nothing"):
        headers = server.ask(path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Server"] is None


def test_a_body_that_does_not_come_is_not_waited_for(small: Running):
    whole = post(body())
    slow = received(small.send(whole[:-1]))
    assert slow.startswith(b"HTTP/1.1 408") and b"0.5 seconds" in slow


def test_a_head_that_does_not_come_is_not_waited_for(small: Running):
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connections = [small.send(data) for data in (b"", whole[:10], whole[:-2], whole)]
    *nothing, answered = map(received, connections)
    assert nothing == [b"", b"", b""]
    assert b'"status":"ok"' in answered, "nor the next one"


def test_a_head_that_trickles_in_is_not_waited_for(small: Running):
    connection = small.send(b"GET /health HTTP/1.1\r\nX: ")
    connection.settimeout(0.05)
    ended = False

    def trickle() -> bool:
        nonlocal ended
        try:
            connection.sendall(b"x")
            ended = connection.recv(1) == b""
        except TimeoutError:
            pass
        except OSError:
            ended = True
        return ended

    wait_for(trickle)
    connection.close()


def test_a_thousand_connections_that_ask_for_nothing_keep_nobody_out(small: Running):
    idle = [small.send(b"GET /hea") for _ in range(3 * SMALL.connections)]
    assert small.ask("/health").json["status"] == "ok"
    for connection in idle:
        connection.close()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_does_not_read_is_let_go(small: Running, stream: bool):
    wait_for(lambda: small.metric("connections") == 1)
    connection = small.send(large(stream))
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert small.metric("connections") == 2
    wait_for(lambda: small.metric("connections") == 1)
    connection.close()


def test_a_client_that_reads_slowly_gets_the_whole_answer(served: dict[str, Served]):
    with serving(served, Limits(idle_seconds=0.1)) as running:
        connection = running.send(large(stream=False))
        data = connection.recv(1000)
        time.sleep(1)  # longer than the next request is waited for
        data += received(connection)
    head, _, content = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert f"content-length: {len(content)}".encode() in head


def test_a_client_is_let_go_when_it_read_nothing_between_two_looks():
    class Transport:
        waiting, aborted = iter([9, 5, 5, 5]), False

        def get_write_buffer_size(self) -> int:
            return next(self.waiting)

        def abort(self) -> None:
            self.aborted = True

    connection: Any = LimitedConnection.__new__(LimitedConnection)
    connection.transport, connection.cycle = Transport(), None

    def call_later(seconds: float, look: Any, size: int) -> SimpleNamespace:
        return SimpleNamespace(look=lambda: look(size), cancel=lambda: None)

    connection.loop = SimpleNamespace(call_later=call_later)
    connection._wait_for_reader()
    for ended in (False, True):
        connection._stalled.look()
        assert connection.transport.aborted == ended


def test_whoever_finds_the_queue_full_is_told_to_come_again(small: Running, lasting: int):
    long = {"model": "endless", "prompt": "The ", "max_tokens": LONG}
    streams = [small.send(post(long)) for _ in range(4)]
    wait_for(lambda: small.ask("/health").json == {"status": "ok", "active": 2, "waiting": 2})
    answer = small.ask("/v1/completions", body())
    assert answer.status == 503 and answer.headers["Retry-After"] == "1"
    assert answer.error["type"] == "server_error"
    streams[3].close()  # one that waits leaves, and makes room
    wait_for(lambda: small.ask("/health").json["waiting"] == 1)
    for stream in streams[:3]:
        stream.close()
    assert small.complete(max_tokens=2, seed=lasting)["usage"]["completion_tokens"] == 2
    small.until_quiet()


def test_a_pipelined_request_is_answered_after_the_first(server: Running):
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    data = received(server.send(head + b"\r\n" + head + b"Connection: close\r\n\r\n"))
    assert data.count(b"HTTP/1.1 200") == 2


def test_a_half_of_a_client_is_a_client_that_left(server: Running):
    connection = server.send(post(body(model="endless", max_tokens=LONG)))
    wait_for(lambda: server.ask("/health").json["active"] == 1)
    connection.shutdown(socket.SHUT_WR)
    server.until_quiet()
    connection.close()


def test_a_key_is_needed_where_there_is_one(served: dict[str, Served]):
    with serving(served, key="secret") as running:
        assert running.ask("/v1/models").status == 401
        assert running.ask("/v1/completions", body()).status == 401
        key = {"Authorization": "Bearer secret"}
        assert running.ask("/v1/models", headers=key).status == 200
        assert running.ask("/health").status == running.ask("/").status == 200
