"""Limits for connections, where uvicorn has none of its own."""

from __future__ import annotations

import asyncio
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from folio.serving.limits import Limits


def limited(limits: Limits) -> type[H11Protocol]:
    """The class of connections that keep to some limits."""

    class Connection(LimitedConnection):
        pass

    Connection.limits = limits
    return Connection


class LimitedConnection(H11Protocol):
    """Has a time for the head of a request, for a client that does not read, and a place among
    the others.
    """

    limits = Limits()
    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.since = self.loop.time()
        if len(self.connections) > self.limits.connections:
            everyone = cast("set[LimitedConnection]", self.connections)
            idle = [one for one in everyone if one.is_idle]  # this one at least
            min(idle, key=lambda one: one.since).transport.abort()
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        self._wait_for_request()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
        self._wait_for_request()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and self.is_idle:
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _wait_for_reader(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        unread = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(
            self.limits.stalled_seconds, self._end_if_stalled, unread
        )

    def _end_if_stalled(self, unread: int) -> None:
        """Let a client go for which as many bytes wait as before; one that reads slowly may."""
        if not (self.is_idle or self.flow.write_paused):  # its next request is answered already
            return
        waiting = self.transport.get_write_buffer_size()
        if waiting >= unread:
            self.transport.abort()
        elif waiting:
            self._wait_for_reader()
        else:
            self._wait_for_request()

    def _wait_for_request(self) -> None:
        """Start a timer that received bytes do not reset, so that a head cannot trickle in."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(self.limits.idle_seconds, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if not self.is_idle or self.flow.write_paused:
            return
        if self.transport.get_write_buffer_size():  # the end of an answer is still read
            self._wait_for_reader()
        else:
            self.transport.abort()
