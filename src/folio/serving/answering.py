"""An answer that watches whether somebody still waits for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from folio.serving.engine import Engine, Ticket
from folio.serving.refusals import RequestError, json_response

DONE = b"data: [DONE]\n\n"


class Answer(Response):
    """Is made while the client waits: one JSON object, or a stream of them.

    Where the client leaves, or the answer ends in any other way, its jobs are left too.
    """

    def __init__(
        self,
        engine: Engine,
        ticket: Ticket,
        make: Callable[[], Awaitable[Any]] | None = None,
        stream: Callable[[], AsyncGenerator[Any, None]] | None = None,
    ) -> None:
        """Take either `make` or `stream`."""
        self.engine, self.ticket = engine, ticket
        self.make, self.stream = make, stream
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as long as there is somebody to answer to."""
        answering = asyncio.create_task(self._answer(scope, receive, send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            self.engine.leave(self.ticket)
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.make is not None:
            await json_response(await self.make())(scope, receive, send)
            return
        assert self.stream is not None
        begun = False
        async with aclosing(self.stream()) as objects:
            try:
                async for content in objects:
                    if not begun:  # until then an error is a status
                        await send(_head())
                        begun = True
                    await send(_event(content))
            except RequestError as refusal:
                if not begun:
                    raise
                await send(_event(refusal.body))
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
        await send({"type": "http.response.body", "body": DONE, "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _head() -> dict[str, Any]:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _event(content: Any) -> dict[str, Any]:
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return {"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True}
