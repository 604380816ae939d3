"""Conversations as text, with marks that no text can contain for who speaks and where a turn ends.

    MARK[user] Why? END MARK[assistant] Rain. END

The marks are noncharacters, which Unicode reserves for internal use (The Unicode Standard, section
23.7); readers remove them from what is said. So a conversation is cut, compared, split and counted
like any other text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from folio.corpus.document import Part
from folio.corpus.formats.conversations import plain

Role = Literal["user", "assistant"]
MARK: dict[Role, str] = {"user": "\ufdd0", "assistant": "\ufdd1"}
END = "\ufdd2"
MARKS = (*MARK.values(), END)
SPEAKERS: dict[str, Role] = {
    "system": "user",
    "developer": "user",
    "user": "user",
    "assistant": "assistant",
}
"""Role of a message -> who speaks. A system message is part of the user's first turn: a token of
its own would stay untrained wherever no conversation has one."""
_MARK = re.compile(f"([{''.join(MARKS)}])")
_ROLE_OF: dict[str, Role] = {mark: role for role, mark in MARK.items()}


class Turn(NamedTuple):
    """What one side said before the other spoke."""

    role: Role
    text: str


class Conversation(list[Turn]):
    """All turns of a conversation, in order."""


def turns_of(messages: Iterable[tuple[str, str]]) -> Conversation:
    """Merge messages into turns: everything before an answer is one turn of the user.

    Args:
        messages: role (a key of SPEAKERS) and text of each.

    >>> turns_of([("system", "Be brief."), ("user", "Why?"), ("assistant", "Rain.")])
    [Turn(role='user', text='Be brief.\\n\\nWhy?'), Turn(role='assistant', text='Rain.')]
    """
    turns = Conversation()
    for role, text in messages:
        speaker = SPEAKERS[role]
        if speaker == "user" and turns and turns[-1].role == "user":
            turns[-1] = Turn("user", f"{turns[-1].text}\n\n{text}")
        else:
            turns.append(Turn(speaker, text))
    return turns


def messages_in(record: Any) -> list[tuple[str, str]] | None:
    """Role and text of each message of a record; None if it is not a conversation.

    A conversation has `messages`, or `prompt` and `completion`, as texts or as messages. Roles may
    be others than those of SPEAKERS, and nobody may answer.
    """
    if not isinstance(record, dict):
        return None
    table: Mapping[str, Any] = record
    said = table.get("messages")
    if said is None and "prompt" in table and "completion" in table:
        prompt, completion = table["prompt"], table["completion"]
        if isinstance(prompt, str) and isinstance(completion, str):
            return [("user", prompt), ("assistant", completion)]
        if isinstance(prompt, list) and isinstance(completion, list):
            said = [*prompt, *completion]
    if not isinstance(said, list) or not said:
        return None
    messages: list[tuple[str, str]] = []
    for message in said:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return None
        messages.append((message["role"].lower(), plain(message.get("content"))))
    return messages


def is_answered(messages: Iterable[tuple[str, str]]) -> bool:
    """Whether an assistant speaks in some messages."""
    return any(role == "assistant" for role, _ in messages)


def marked(turns: Sequence[Turn]) -> str:
    """Write turns as the text of a document; marks inside what is said are removed."""
    return "".join(f"{MARK[turn.role]}{_MARK.sub('', turn.text)}{END}" for turn in turns)


def turns_in(text: str) -> Conversation:
    """Invert `marked`.

    >>> turns_in(marked([Turn("user", "Why?"), Turn("assistant", "")]))
    [Turn(role='user', text='Why?'), Turn(role='assistant', text='')]
    """
    pieces = _MARK.split(text)  # "", mark, text, END, "", mark, text, END, ""
    places = range(1, len(pieces) - 1, 4)
    return Conversation(Turn(_ROLE_OF[pieces[i]], pieces[i + 1]) for i in places)


def content_of(part: Part) -> Iterable[str] | Conversation:
    """The text of a part in pieces, or its turns if it is a conversation."""
    if part.document.is_conversation:
        return turns_in("".join(part.pieces()))
    return part.pieces()


def spoken(parts: Iterable[Part]) -> Iterator[Iterable[str]]:
    """The texts that a vocabulary is learned from, in pieces: one per turn, without marks."""
    for part in parts:
        content = content_of(part)
        if isinstance(content, Conversation):
            yield from ([turn.text] for turn in content)
        else:
            yield content


def have_conversations(parts: Iterable[Part]) -> bool:
    """Whether any of these parts is a conversation."""
    return any(part.document.is_conversation for part in parts)
