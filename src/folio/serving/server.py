"""`folio serve`: sockets, signals and the order in which things end."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping

import uvicorn

from folio.errors import UserError
from folio.serving.app import App
from folio.serving.connection import limited
from folio.serving.engine import Engine
from folio.serving.gate import Gate, in_url, is_loopback
from folio.serving.limits import Limits
from folio.serving.served import Served

HEAD_BYTES = 32 * 1024
"""Largest head of a request."""


class Server(uvicorn.Server):
    """Ends its texts before its connections, so that no answer is waited for in vain."""

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self.engine = engine

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.engine.stop()
        await super().shutdown(sockets)


def serve(
    served: Mapping[str, Served],
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str | None = None,
    limits: Limits | None = None,
    begun: Callable[[str, Server], None] = lambda address, server: None,
) -> None:
    """Answer until a signal ends it.

    Args:
        served: runs by their names.
        host: where to listen; another one than this machine's own needs a key.
        port: 0 takes a free one.
        key: that a client must have.
        limits: how much one client can take.
        begun: is told the address, when it is listened at, and what answers there.

    Raises:
        UserError: the address cannot be had, or a key is missing or cannot be sent.
    """
    if not is_loopback(host) and not key:
        raise UserError(
            f"At {host} other machines reach this server, so it needs a key: give --api-key or "
            f"set FOLIO_API_KEY, or leave --host out."
        )
    if key and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise UserError(
            "The key must be ASCII without spaces around it, as headers carry it; give another "
            "--api-key or FOLIO_API_KEY."
        )
    limits = limits or Limits()
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # that a client left is no warning
    listening = listen(host, port)
    engine = Engine(served, limits)
    app = App(served, engine, lambda: len(server.server_state.connections))
    config = uvicorn.Config(
        Gate(app.routes(), host, key or None),
        http=limited(limits),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=limits.connections,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_graceful_shutdown=int(max(1, limits.stopping_seconds)),
    )
    server = Server(config, engine)
    begun(f"http://{in_url(host)}:{listening.getsockname()[1]}", server)
    server.run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Open a socket at an address.

    Raises:
        UserError: it cannot be had.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"port must be 1 to 65535, or 0 for a free one, got {port}.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{host}, port {port} cannot be listened at: {reason}. Give another --port; 0 takes a "
            f"free one."
        ) from error
