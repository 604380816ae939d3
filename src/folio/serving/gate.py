"""Decides which requests are answered: ASGI middleware before the application.

A browser sends any page's requests to this machine. They are told by Host (a foreign name that was
made to lead here, "DNS rebinding") and by Origin; a form of another page cannot send JSON, and no
header of ours lets a script of another page read an answer. Beyond this machine a key is needed.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from folio.serving.refusals import RequestError

OPEN = ("/", "/health")
"""Answered without a key: a page that holds no text of anybody, and whether the server lives."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Headers of every answer that does not set its own."""


class Gate:
    """Lets a request in, or answers it."""

    def __init__(self, app: ASGIApp, host: str, key: str | None) -> None:
        """Guard an application.

        Args:
            app: what answers.
            host: the address that is listened at.
            key: that a client must have; None lets in whoever is on this machine.
        """
        self.app, self.key = app, key
        self.names = {"localhost", "127.0.0.1", "[::1]", in_url(host)}
        self.any_name = key is not None and is_unspecified(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check and forward one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self.refusal(scope["path"], Headers(scope=scope))
        app = self.app if refusal is None else refusal.response
        await app(scope, receive, with_headers)

    def refusal(self, path: str, headers: Headers) -> RequestError | None:
        """Why a request is not let in; None where it is."""
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._is_ours(host):
            return RequestError(
                403,
                f"The header Host is {host[:80]!r}, which is no name of this server; use "
                f"{', '.join(sorted(self.names))}.",
                code="host_not_allowed",
            )
        if any(origin not in _origins(host) for origin in headers.getlist("origin")):
            return RequestError(
                403,
                f"The header Origin is {headers['origin'][:80]!r}; other pages are not answered.",
                code="origin_not_allowed",
            )
        if path != "/" and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return RequestError(403, "Other pages are not answered.", code="origin_not_allowed")
        if self.key is not None and path not in OPEN and not self._has_key(headers):
            return RequestError(
                401,
                "The key of this server is missing or wrong: Authorization: Bearer KEY.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return None

    def _is_ours(self, host: str) -> bool:
        name, _, port = host.rpartition(":") if _has_port(host) else (host, "", "")
        return (self.any_name or name.lower() in self.names) and (not port or port.isdecimal())

    def _has_key(self, headers: Mapping[str, str]) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        assert self.key is not None
        same = hmac.compare_digest(given.strip().encode(), self.key.encode())
        return kind.lower() == "bearer" and same


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_unspecified(host: str) -> bool:
    """Whether an address stands for all of this machine's."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def in_url(host: str) -> str:
    """An address as it stands in a URL and in the header Host: IPv6 in its shortest form."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower()
    return f"[{address}]" if address.version == 6 else str(address)


def _has_port(host: str) -> bool:
    return host.rfind(":") > host.rfind("]")


def _origins(host: str) -> tuple[str, str]:
    """The origins by which a browser may know this server; behind a tunnel it may be HTTPS."""
    return f"http://{host}", f"https://{host}"
