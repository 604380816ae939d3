"""JSON: exports of chats and lists of records.

Knows Telegram, Discord, Slack, Messenger and Instagram, ChatGPT and Claude.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from folio.corpus.encodings import decode
from folio.corpus.formats.conversations import CONVERSATION_KEYS, conversation, in_order, plain
from folio.corpus.formats.jsonl import (
    Record,
    drop_other_fields,
    read_jsonl,
    strings,
    texts_of_records,
)
from folio.corpus.formats.passage import Notes, Passage
from folio.corpus.turns import is_answered, messages_in
from folio.errors import UserError

_CHAT_MARKS = ("ts", "date", "timestamp", "timestamp_ms", "date_unixtime", "role", "sender")
"""Each message of an export has one of these keys."""
_SAID = ("text", "content")
_SPEAKERS = ("role", "from", "speaker", "sender", "sender_name", "senderName", "user")
_LISTS_OF_CHATS = ("chats", "left_chats")
"""Keys of Telegram's export of everything."""
_SAID_IN_SLACK = ("thread_broadcast", "me_message", "file_share", "file_comment")
_SAID_IN_DISCORD = ("Default", "Reply", "ThreadStarterMessage")
"""Types of messages that people write; the others report who joined, called or pinned."""
FIRST_MESSAGES = 100


def read_json(
    data: bytes,
    notes: Notes,
    text_column: str = "",
    chat_times: bool = False,
    conversations: str = "text",
) -> Iterator[Passage]:
    """Read one document per chat, or per record of a list.

    Raises:
        UserError: not JSON, or no text was recognized in it.
    """
    text = decode(data, None, notes)
    try:
        root = json.loads(text)
    except (ValueError, RecursionError):
        if not _is_json_lines(text):
            raise UserError("it is not JSON") from None
        yield from read_jsonl(iter(text.split("\n")), text_column, notes, conversations)
        return
    talks = conversations == "turns" and is_answered(messages_in(root) or ())
    chats = [] if text_column or talks else list(_chats(root, notes))
    if chats:
        n_bytes = 0
        for number, messages in enumerate(chats, 1):
            said = [message for message in messages if _is_said(message, notes)]
            text = conversation(in_order(said), chat_times)
            n_bytes += len(text.encode("utf-8", "replace"))
            if text:
                yield Passage(text, f"chat {number}", document=True)
        drop_other_fields(root, n_bytes + notes.dropped.total(), notes)
        return
    if isinstance(root, dict):
        lists = [] if talks else [value for value in root.values() if _is_records(value)]
        if len(lists) == 1:
            beside = [value for value in root.values() if value is not lists[0]]
            drop_other_fields(beside, 0, notes)
        root = lists[0] if len(lists) == 1 else [root]
    if not _is_records(root) and not (
        isinstance(root, list) and all(isinstance(r, str) for r in root)
    ):
        raise UserError("it is JSON, but neither a chat nor a list of records")
    sized = (
        Record(
            f"record {i}",
            record,
            len(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace")),
        )
        for i, record in enumerate(root, 1)
    )
    yield from texts_of_records(sized, text_column, notes, conversations)


def _is_json_lines(text: str) -> bool:
    """Whether its first line is a record by itself, as in what is rightly called .jsonl."""
    try:
        return isinstance(json.loads(text.lstrip().partition("\n")[0]), dict)
    except (ValueError, RecursionError):
        return False


def _chats(root: Any, notes: Notes) -> Iterator[list[Any]]:
    if _is_chat(root):
        yield root
    elif isinstance(root, list):
        for chat in root if any(map(_holds_a_chat, root)) else []:
            yield from _chats(chat, notes)
    elif isinstance(root, dict) and isinstance(root.get("mapping"), dict):
        yield _current_branch(root, notes)
    elif isinstance(root, dict):
        for key in CONVERSATION_KEYS:
            if _is_chat(root.get(key)):
                yield root[key]
                return
        for key in _LISTS_OF_CHATS:
            listed = root.get(key)
            if isinstance(listed, dict) and isinstance(listed.get("list"), list):
                for chat in listed["list"]:
                    yield from _chats(chat, notes)


def _holds_a_chat(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("mapping"), dict) or _is_chat(value.get("chat_messages"))


def _current_branch(chat: dict[str, Any], notes: Notes) -> list[dict[str, Any]]:
    """The messages that lead to the one shown last.

    Questions and answers that were edited or regenerated make a tree of messages; those of other
    branches are counted.
    """
    nodes = {key: node for key, node in chat["mapping"].items() if isinstance(node, dict)}
    at = chat.get("current_node") or next(reversed(nodes), None)
    branch: list[dict[str, Any]] = []
    while isinstance(at, str) and at in nodes:
        node = nodes.pop(at)  # popped, so that no cycle is walked twice
        if message := _message_of(node):
            branch.append(message)
        at = node.get("parent")
    for node in nodes.values():
        if message := _message_of(node):
            notes.drop("answers that were replaced", message["content"])
    return branch[::-1]


def _message_of(node: dict[str, Any]) -> dict[str, Any]:
    """Role, text and time of a message that has text; pictures and tool calls have none."""
    message = node.get("message")
    if not isinstance(message, dict) or not isinstance(message.get("content"), dict):
        return {}
    text = plain(message["content"].get("parts"))
    author = message.get("author")
    time = message.get("create_time")
    return {"author": author, "content": text, "create_time": time} if text.strip() else {}


def _is_chat(value: Any) -> bool:
    """Whether a list holds messages; the first ones may be reports of the service."""
    return _is_records(value) and any(map(_is_message, value[:FIRST_MESSAGES]))


def _is_message(record: dict[str, Any]) -> bool:
    """Whether a record says when, what and who; one without a speaker may be an article."""
    is_spoken = any(key in record for key in _SPEAKERS) or isinstance(record.get("author"), dict)
    return is_spoken and all(any(key in record for key in keys) for keys in (_CHAT_MARKS, _SAID))


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(r, dict) for r in value)


def _is_said(message: dict[str, Any], notes: Notes) -> bool:
    """Whether a person said it; reports of the service, such as who joined, are counted."""
    kind, subtype = message.get("type"), message.get("subtype")
    of_discord = isinstance(kind, str) and kind[:1].isupper()
    reported = (
        kind == "service"
        or (subtype is not None and subtype not in _SAID_IN_SLACK)
        or (of_discord and kind not in _SAID_IN_DISCORD)
    )
    if reported:
        notes.drop("what the service reports", " ".join(strings(message)))
    return not reported
