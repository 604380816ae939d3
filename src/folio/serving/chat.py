"""POST /v1/chat/completions: an answer in a conversation, where the model learned some."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from folio.errors import UserError
from folio.generation.chat import answer_request, make_prompt
from folio.generation.sampling import draw
from folio.serving.asked import MOST_ALTERNATIVES, Asked, common
from folio.serving.engine import Job, Ticket, Writing
from folio.serving.fields import Fields, refuse
from folio.serving.limits import Limits
from folio.serving.refusals import RequestError
from folio.serving.reply import Reply
from folio.serving.served import Served
from folio.serving.transcript import Piece, Token, Transcript
from folio.tokenizers.chat import END

NEUTRAL: dict[str, Any] = {
    "tools": [],
    "tool_choice": "none",
    "functions": [],
    "response_format": {"type": "text"},
}
"""Fields that are not supported, with the value that changes nothing."""


@dataclass(frozen=True)
class AskedChat(Asked):
    """The body of a request to /v1/chat/completions."""

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
    """The messages of a conversation; a content is a text, or text parts."""
    if type(value) is not list or not value:
        refuse("messages", "must be a list of messages, one or more", value)
    messages = []
    for message in value:
        if type(message) is not dict or set(message) != {"role", "content"}:
            found = (
                f"one with {', '.join(message) or 'neither'}" if type(message) is dict else message
            )
            refuse("messages", "must be objects with role and content and nothing else", found)
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


class Conversation(Reply):
    """The n answers to one request."""

    def __init__(self, asked: AskedChat, served: Served) -> None:
        """Read the messages.

        Raises:
            RequestError: the model knows no conversations, or these cannot be read.
        """
        kind = "chat.completion.chunk" if asked.stream else "chat.completion"
        super().__init__(asked, served, "chatcmpl", kind)
        self.asked: AskedChat = asked
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
        self.n_choices, self.n_prompt = asked.n, len(self.token_ids)
        self.begun: set[int] = set()
        if prompt.n_left_out:
            self.head["messages_left_out"] = prompt.n_left_out  # the oldest; the context is full

    def jobs(self) -> list[Job]:
        config, guard = self.asked.config(), self.served.guard
        jobs: list[Job] = []
        for i in range(self.asked.n):
            choose = draw if guard is None else guard.of_text()
            request = answer_request(
                self.tokenizer, self.token_ids, config.of_text(i), self.max_tokens, choose
            )
            jobs.append(Writing(self.served.name, request, Transcript(self.tokenizer)))
        return jobs

    async def pieces(self, ticket: Ticket) -> AsyncIterator[tuple[int, Piece]]:
        async for job, piece in ticket.heard():
            yield job.number, piece

    def choice(self, index: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        content = "".join(piece.text for piece in pieces)
        return {
            "index": index,
            "message": {"role": "assistant", "content": content, "refusal": None},
            "logprobs": self.logprobs([token for piece in pieces for token in piece.tokens]),
            "finish_reason": pieces[-1].finish,
        }

    def bit(self, index: int, piece: Piece) -> dict[str, Any]:
        """The first bit of each answer says who speaks."""
        delta = {} if index in self.begun else {"role": "assistant", "content": ""}
        self.begun.add(index)
        if piece.text:
            delta["content"] = piece.text
        return {
            "index": index,
            "delta": delta,
            "logprobs": self.logprobs(piece.tokens),
            "finish_reason": piece.finish,
        }

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
