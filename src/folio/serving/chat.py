"""POST /v1/chat/completions: an answer in a conversation, where the model learned some."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from folio.errors import UserError
from folio.generation.chat import make_prompt
from folio.generation.row import Request
from folio.generation.sampling import SamplingConfig, draw, exclude
from folio.serving.answering import Answer
from folio.serving.asked import MOST_ALTERNATIVES, Asked, common
from folio.serving.engine import Engine, Job, Ticket, Writing
from folio.serving.fields import Fields, refuse
from folio.serving.limits import Limits
from folio.serving.refusals import RequestError
from folio.serving.served import Served
from folio.serving.transcript import Piece, Token, Transcript
from folio.tokenizers.chat import END

NEUTRAL: dict[str, Any] = {
    "tools": [],
    "tool_choice": "none",
    "functions": [],
    "response_format": {"type": "text"},
}
"""What is not supported, and the value that says nothing."""


@dataclass(frozen=True)
class AskedChat(Asked):
    """A body of /v1/chat/completions."""

    messages: list[dict[str, str]]


def chat_of(body: Fields, limits: Limits) -> AskedChat:
    """Read a body of /v1/chat/completions.

    Raises:
        RequestError: a field is not known, not supported or wrong.
    """
    messages = messages_of(body.take("messages"))
    names = [name for name in ("max_tokens", "max_completion_tokens") if name in body.left]
    if len(names) == 2:
        refuse("max_tokens", "and max_completion_tokens are the same; give one", "both")
    name = names[0] if names else "max_tokens"
    max_tokens = body.whole(name, limits.max_tokens, 1, limits.max_tokens)
    wanted = body.flag("logprobs")
    alternatives = body.whole("top_logprobs", None, 0, MOST_ALTERNATIVES)
    if alternatives is not None and not wanted:
        refuse("top_logprobs", "needs logprobs true", alternatives)
    for name, neutral in NEUTRAL.items():
        body.only(name, neutral)
    asked = common(body, max_tokens, (alternatives or 0) if wanted else None)
    return AskedChat(**asked, messages=messages)


def messages_of(value: Any) -> list[dict[str, str]]:
    """Who says what; a content is a text, or parts that are texts."""
    if type(value) is not list or not value:
        refuse("messages", "must be a list of messages, one or more", value)
    messages = []
    for message in value:
        if type(message) is not dict or set(message) != {"role", "content"}:
            refuse("messages", "must be objects with role and content and nothing else", message)
        role, content = message["role"], message["content"]
        if type(content) is list:
            content = "".join(map(_part, content))
        if type(role) is not str or type(content) is not str:
            refuse("messages", "must have texts as role and content", message)
        messages.append({"role": role, "content": content})
    return messages


def _part(part: Any) -> str:
    if type(part) is not dict or part.get("type") != "text" or type(part.get("text")) is not str:
        refuse("messages", "may have parts of type text in a content, and no others", part)
    return part["text"]


class Conversation:
    """What one request asks for: n answers."""

    def __init__(self, asked: AskedChat, served: Served) -> None:
        """Read the messages.

        Raises:
            RequestError: the model knows no conversations, or these cannot be read.
        """
        self.asked, self.served = asked, served
        self.tokenizer = served.opened.tokenizer
        if not self.tokenizer.has_chat:
            raise RequestError(
                404,
                f"The model {served.name} never learned conversations, so there is no template for "
                f"them. Use /v1/completions, which goes on with any text.",
                param="model",
                code="no_chat_template",
            )
        self.end = self.tokenizer.special_id(END)
        length = served.context_length
        try:
            prompt = make_prompt(self.tokenizer, asked.messages, length, asked.max_tokens)
        except UserError as error:
            raise RequestError(400, str(error), param="messages") from None
        self.token_ids = prompt.token_ids.tolist()
        self.max_tokens = min(asked.max_tokens, length - len(self.token_ids))
        self.head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": "chat.completion.chunk" if asked.stream else "chat.completion",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": served.opened.checkpoint.path.name,
        }
        if prompt.n_left_out:
            self.head["messages_left_out"] = prompt.n_left_out  # the oldest; the context is full

    def jobs(self) -> list[Job]:
        """The answers, in their order."""
        config = self.asked.config()
        jobs: list[Job] = []
        for i in range(self.asked.n):
            request = Request(
                prompt=self.token_ids,
                config=config.of_text(i),
                max_tokens=self.max_tokens,
                stop_token=self.end,
                draw=self._draw(),
            )
            jobs.append(Writing(self.served.name, request, Transcript(self.tokenizer)))
        return jobs

    def _draw(self) -> Any:
        """Draw no special token but the end of the turn."""
        guard = self.served.guard
        choose = draw if guard is None else guard.of_text()
        others = torch.zeros(self.served.opened.model.config.vocab_size, dtype=torch.bool)
        others[[i for i in self.tokenizer.special_tokens.values() if i != self.end]] = True

        def draw_text(logits: Tensor, config: SamplingConfig, generator: torch.Generator) -> Tensor:
            return choose(exclude(logits, others.to(logits.device)), config, generator)

        return draw_text

    def logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        """The newer form: an object for each token."""
        if self.asked.alternatives is None:
            return None
        content = []
        for token in tokens:
            if token.token_id != self.end:
                top = [self._named(*pair) for pair in token.alternatives]
                own = self._named(token.token_id, token.log_probability or 0.0)
                content.append({**own, "top_logprobs": top})
        return {"content": content, "refusal": None}

    def _named(self, token_id: int, log_probability: float) -> dict[str, Any]:
        piece = self.tokenizer.pieces[token_id]
        text = piece.decode("utf-8", errors="replace")
        return {"token": text, "logprob": log_probability, "bytes": list(piece)}

    def usage(self, n_drawn: int) -> dict[str, int]:
        """Every token that was drawn, the end of the turn included."""
        n = len(self.token_ids)
        return {"prompt_tokens": n, "completion_tokens": n_drawn, "total_tokens": n + n_drawn}

    async def whole(self, ticket: Ticket) -> dict[str, Any]:
        """One object with everything."""
        pieces: list[list[Piece]] = [[] for _ in range(self.asked.n)]
        async for job, piece in ticket.heard():
            pieces[job.number].append(piece)
        choices = [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": "".join(piece.text for piece in of),
                    "refusal": None,
                },
                "logprobs": self.logprobs([token for piece in of for token in piece.tokens]),
                "finish_reason": of[-1].finish,
            }
            for index, of in enumerate(pieces)
        ]
        n_drawn = sum(piece.n_drawn for of in pieces for piece in of)
        return self.head | {"choices": choices, "usage": self.usage(n_drawn)}

    async def chunks(self, ticket: Ticket) -> AsyncGenerator[dict[str, Any], None]:
        """The same bit by bit; the first bit of each answer says who speaks."""
        usage: dict[str, Any] = {"usage": None} if self.asked.include_usage else {}
        n_drawn, begun = 0, set[int]()
        async for job, piece in ticket.heard():
            n_drawn += piece.n_drawn
            if not (piece.text or piece.tokens or piece.finish):
                continue
            delta = {} if job.number in begun else {"role": "assistant", "content": ""}
            begun.add(job.number)
            if piece.text:
                delta["content"] = piece.text
            choice = {
                "index": job.number,
                "delta": delta,
                "logprobs": self.logprobs(piece.tokens),
                "finish_reason": piece.finish,
            }
            yield self.head | {"choices": [choice]} | usage
        if self.asked.include_usage:
            yield self.head | {"choices": [], "usage": self.usage(n_drawn)}


def answer_chat(asked: AskedChat, served: Served, engine: Engine) -> Answer:
    """Begin to answer.

    Raises:
        RequestError: the messages cannot be read, or there is no room.
    """
    conversation = Conversation(asked, served)
    ticket = engine.submit(conversation.jobs())
    engine.counts.prompt_tokens += len(conversation.token_ids)
    if asked.stream:
        return Answer(engine, ticket, stream=lambda: conversation.chunks(ticket))
    return Answer(engine, ticket, make=lambda: conversation.whole(ticket))
