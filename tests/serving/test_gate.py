"""Who may come in."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from folio.serving.gate import Gate, is_loopback


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError


def status(gate: Gate, path: str = "/v1/models", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    refusal = gate.refusal(path, Headers(named))
    return 200 if refusal is None else refusal.status


HERE = Gate(nothing, "127.0.0.1", None)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000"]
)
def test_the_names_of_this_machine_are_let_in(host: str):
    assert status(HERE, host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "localhost:8000:1",
        "localhost:x",
        "::1",
        "192.168.0.7",
        "0.0.0.0",
        "",
    ],
)
def test_a_name_that_was_made_to_lead_here_is_not(host: str):
    assert status(HERE, host=host) == 403


def test_only_a_page_of_this_server_may_ask():
    ours = {"host": "localhost:8000"}
    assert status(HERE, **ours, origin="http://localhost:8000") == 200
    for origin in [
        "http://localhost:3000",
        "http://127.0.0.1:8000",
        "http://evil.example",
        "null",
        "http://localhost:8000.evil.example",
        "",
    ]:
        assert status(HERE, **ours, origin=origin) == 403, origin
    assert status(HERE, **ours, sec_fetch_site="same-origin") == 200
    assert status(HERE, **ours, sec_fetch_site="cross-site") == 403
    assert status(HERE, **ours, sec_fetch_site="same-site") == 403
    assert status(HERE, "/", **ours, sec_fetch_site="cross-site") == 200, "a link to the page"


def test_a_key_opens_and_nothing_else_does():
    gate = Gate(nothing, "192.168.0.7", "secret")
    there = {"host": "192.168.0.7:8000"}
    assert status(gate, **there, authorization="Bearer secret") == 200
    assert status(gate, **there, authorization="bearer  secret") == 200
    for wrong in ["secret", "Bearer", "Bearer secre", "Bearer secrets", "Basic secret", "Bearer é"]:
        assert status(gate, **there, authorization=wrong) == 401, wrong
    assert status(gate, **there) == 401
    assert status(gate, "/health", **there) == status(gate, "/", **there) == 200
    assert status(gate, host="evil.example", authorization="Bearer secret") == 403


def test_an_address_of_ipv6_is_known_however_it_was_written():
    for host in ("2001:DB8::7", "2001:db8:0:0:0:0:0:7"):
        gate = Gate(nothing, host, "secret")
        assert status(gate, "/", host="[2001:db8::7]:8000") == 200, "as clients shorten it"


def test_a_server_at_all_addresses_has_any_name_but_needs_the_key():
    gate = Gate(nothing, "0.0.0.0", "secret")
    assert status(gate, host="my-machine:8000", authorization="Bearer secret") == 200
    assert status(gate, host="my-machine:8000") == 401


def test_without_a_key_a_client_may_send_one():
    assert status(HERE, host="localhost", authorization="Bearer anything") == 200


def test_loopback_is_told_from_what_looks_like_it():
    assert all(map(is_loopback, ["127.0.0.1", "127.8.8.8", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.0.1", "localhost.example", "", "*"]))
