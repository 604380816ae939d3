"""Replies to a request in OpenAI's form, as a whole or streamed."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from folio.serving.answering import Answer
from folio.serving.asked import Asked
from folio.serving.engine import Engine, Job, Ticket
from folio.serving.served import Served
from folio.serving.transcript import Piece


class Reply(ABC):
    """Texts 0 ... n_choices - 1 that answer a request."""

    n_choices: int
    n_prompt: int
    """Total number of prompt tokens."""

    def __init__(self, asked: Asked, served: Served, prefix: str, kind: str) -> None:
        """Begin with what stands in each object.

        Args:
            asked: the request.
            served: the model that it names.
            prefix: of the identifier.
            kind: what OpenAI calls the object.
        """
        self.asked, self.served = asked, served
        self.head: dict[str, Any] = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": served.opened.checkpoint.path.name,
        }

    @abstractmethod
    def jobs(self) -> list[Job]:
        """The jobs that make the reply."""

    @abstractmethod
    def pieces(self, ticket: Ticket) -> AsyncIterator[tuple[int, Piece]]:
        """The choices as they grow, each in order."""

    @abstractmethod
    def choice(self, index: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """All pieces of a text as OpenAI has them."""

    @abstractmethod
    def bit(self, index: int, piece: Piece) -> dict[str, Any]:
        """One piece of a text in OpenAI's streaming form."""

    def usage(self, n_drawn: int) -> dict[str, int]:
        """Every token that was drawn, those behind a stop string and the end included."""
        return {
            "prompt_tokens": self.n_prompt,
            "completion_tokens": n_drawn,
            "total_tokens": self.n_prompt + n_drawn,
        }

    async def whole(self, ticket: Ticket) -> dict[str, Any]:
        """The whole reply as one object."""
        pieces: list[list[Piece]] = [[] for _ in range(self.n_choices)]
        async for index, piece in self.pieces(ticket):
            pieces[index].append(piece)
        choices = [self.choice(index, of) for index, of in enumerate(pieces)]
        n_drawn = sum(piece.n_drawn for of in pieces for piece in of)
        return self.head | {"choices": choices, "usage": self.usage(n_drawn)}

    async def chunks(self, ticket: Ticket) -> AsyncGenerator[dict[str, Any], None]:
        """The reply as a stream of objects."""
        n_drawn = 0
        usage: dict[str, Any] = {"usage": None} if self.asked.include_usage else {}
        async for index, piece in self.pieces(ticket):
            n_drawn += piece.n_drawn
            if piece.text or piece.tokens or piece.finish:
                yield self.head | {"choices": [self.bit(index, piece)]} | usage
        if self.asked.include_usage:
            yield self.head | {"choices": [], "usage": self.usage(n_drawn)}

    def answer(self, engine: Engine) -> Answer:
        """Begin to answer.

        Raises:
            RequestError: there is no room.
        """
        ticket = engine.submit(self.jobs())
        engine.counts.prompt_tokens += self.n_prompt
        if self.asked.stream:
            return Answer(engine, ticket, stream=lambda: self.chunks(ticket))
        return Answer(engine, ticket, make=lambda: self.whole(ticket))
