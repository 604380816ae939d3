"""Turns of a conversation as text, one line each."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

CONVERSATION_KEYS = (
    "messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat_messages",
)  # fmt: skip
"""Keys of records whose value is a list of turns."""
_SPEAKER_KEYS = (
    "role", "from", "speaker", "sender", "sender_name", "senderName", "author", "name",
    "user_profile", "user",
)  # fmt: skip
_TEXT_KEYS = ("content", "value", "text", "message", "utterance")
_TIME_KEYS = ("date", "timestamp", "timestamp_ms", "created_at", "create_time", "ts")
_MILLISECONDS = 1e11
"""Times from here on are in milliseconds; in seconds it would be the year 5138."""
_LINK = re.compile(r"<(?:([@#!])|[a-z]+:)[^<>|]*\|?([^<>|]*)>")
_INSTRUCTIONS = (
    ("instruction", "input", "output"),
    ("instruction", "context", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "chosen"),
    ("question", "answer"),
    ("query", "response"),
    ("input", "output"),
    ("problem", "solution"),
)
"""Keys of instruction pairs; the middle one of three may be absent or empty."""


def turn(speaker: str, text: str) -> str:
    """Format one turn.

    >>> turn("Anna", "It rains.")
    'Anna: It rains.\\n'
    """
    return f"{speaker}: {text}\n" if speaker else f"{text}\n"


def conversation(turns: Sequence[Any], with_times: bool = False) -> str:
    """A list of messages as text; empty if the list is not one of messages.

    >>> conversation([{"role": "user", "content": "Why?"}, {"from": "gpt", "value": "Rain."}])
    'user: Why?\\ngpt: Rain.\\n'
    """
    said = []
    for message in turns:
        if isinstance(message, str):
            said.append(turn("", message))
        elif isinstance(message, dict):
            text = next((t for key in _TEXT_KEYS if (t := plain(message.get(key)))), "")
            speaker = next((s for key in _SPEAKER_KEYS if (s := _name(message.get(key)))), "")
            if "sender_name" in message:
                text, speaker = _unescaped(text), _unescaped(speaker)
            elif "ts" in message:
                text = html.unescape(_LINK.sub(_shown, text))
            time = _time(message) if with_times else ""
            if text:
                said.append(turn(f"[{time}] {speaker}" if time else speaker, text))
    return "".join(said)


def in_order(messages: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Messages with the oldest first; some services export the newest first."""
    times = [str(time) for m in messages for key in _TIME_KEYS if (time := m.get(key))]
    newest_first = len(times) > 1 and len(times[0]) == len(times[-1]) and times[0] > times[-1]
    return messages[::-1] if newest_first else messages


def instruction(record: dict[str, Any]) -> tuple[str, set[str]]:
    """An instruction and its answer as paragraphs, and the keys they came from."""
    for keys in _INSTRUCTIONS:
        parts = [plain(record.get(key)) for key in keys]
        if parts[0] and parts[-1]:
            return "\n\n".join(filter(None, parts)) + "\n", set(keys)
    return "", set()


def plain(content: Any) -> str:
    """The text of a message, which may have several parts; pictures and tool calls are skipped."""
    if isinstance(content, str):
        return content
    if isinstance(content, int | float) and not isinstance(content, bool):
        return str(content)
    if isinstance(content, dict):
        return plain(content.get("text"))
    if isinstance(content, list):
        return "".join(plain(part) for part in content if isinstance(part, str | dict))
    return ""


def _time(message: dict[str, Any]) -> str:
    """The time of a message as it is written; seconds or milliseconds since 1970 become date and
    time in UTC.
    """
    time = next((message[key] for key in _TIME_KEYS if message.get(key)), "")
    if isinstance(time, str) and not time.replace(".", "", 1).isdecimal():
        return time
    try:
        seconds = float(time)
        moment = datetime.fromtimestamp(seconds / (1000 if seconds > _MILLISECONDS else 1), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
    return moment.isoformat(" ", "minutes").removesuffix("+00:00")


def _unescaped(text: str) -> str:
    """Repair text of Messenger and Instagram, which export each byte of UTF-8 as a character.

    >>> _unescaped("Gr\u00c3\u00bc\u00c3\u009fe")
    'Grüße'
    """
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _shown(link: re.Match[str]) -> str:
    """What Slack displays for a link, a channel or a name: `<https://a.org|the page>`."""
    sign, label = link[1] or "", link[2]
    return sign + label if label else link[0][1:-1]


def _name(speaker: Any) -> str:
    """The name of a speaker, which may be an object that has one."""
    if isinstance(speaker, dict):
        names = ("nickname", "real_name", "display_name", "name", "role")
        return next((n for key in names if isinstance(n := speaker.get(key), str) and n), "")
    return speaker if isinstance(speaker, str) else ""
