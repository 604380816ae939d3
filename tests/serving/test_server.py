"""`folio serve` as a process."""

from __future__ import annotations

import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from folio.cli.main import main
from folio.errors import UserError
from folio.serving.served import Served
from folio.serving.server import serve
from tests.export.making import MODERN, random_run
from tests.serving.running import PATIENCE, Running, folio_serve, post, received, serving, wait_for


def working(running: Running) -> int:
    """Texts that are written, or wait for that."""
    health = running.ask("/health").json
    return health["active"] + health["waiting"]


def test_a_signal_ends_a_server_in_the_middle_of_a_stream_and_tells_it(runs: Path):
    wanted: dict[str, Any] = {"model": "endless", "prompt": "The ", "max_tokens": 4096, "n": 16}
    with folio_serve("endless", runs=runs) as (process, running):
        stream = running.send(post(wanted | {"stream": True}))
        assert stream.recv(12) == b"HTTP/1.1 200"
        plain = running.send(post(wanted))
        wait_for(lambda: working(running) > wanted["n"])  # the second one has been read
        slow = running.send(post(wanted)[:-1])
        idle = running.send(b"")
        process.send_signal(signal.SIGTERM)
        rest = received(stream)
        assert b'"code":"stopping"' in rest and b"[DONE]" not in rest
        assert received(plain).startswith(b"HTTP/1.1 503")
        assert received(slow)[:12] in (b"", b"HTTP/1.1 500") and received(idle) == b""
        assert process.wait(PATIENCE) == -signal.SIGTERM
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port))


def fails(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["serve", *arguments])
    assert end.value.code == 2
    return capfd.readouterr().err


def test_other_machines_need_a_key(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("FOLIO_RUNS", str(runs))
    for host in ("0.0.0.0", "::", "192.168.0.7"):
        assert "--api-key" in fails(capfd, "tiny", "--host", host)


@pytest.mark.parametrize("key", ["schlüssel", " secret", "secret\n", "se\0cret"])
def test_a_key_that_no_header_carries_is_refused(key: str):
    with pytest.raises(UserError, match="must be ASCII without spaces around it") as refused:
        serve({}, port=0, key=key, begun=lambda *_: pytest.fail("it listens"))
    assert key not in str(refused.value)


def test_a_port_that_is_taken_is_an_error_with_a_way_out(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("FOLIO_RUNS", str(runs))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} cannot be listened at" in fails(capfd, "tiny", "--port", port)
    for port in ("70000", "-1"):
        assert "port must be 1 to 65535" in fails(capfd, "tiny", f"--port={port}")
    assert "cannot be listened at" in fails(capfd, "tiny", "--host", "a..b", "--api-key", "k")
    assert "Did you mean 'tiny'" in fails(capfd, "tny")


def test_two_runs_of_one_name_cannot_be_told_apart(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("FOLIO_RUNS", str(runs))
    assert "have the same" in fails(capfd, "tiny", str(runs / "tiny"))


def test_models_are_listed_after_a_training_that_goes_on_replaced_their_checkpoints(tmp_path: Path):
    opened = random_run(tmp_path, **MODERN)
    with serving({"made": Served("made", opened)}) as running:
        before = running.ask("/v1/models").json
        shutil.rmtree(opened.checkpoint.path)
        assert running.ask("/v1/models").json == before
        assert running.ask("/v1/models/made").json == before["data"][0]
