"""Who says what: turns of a conversation as text, a line for each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

CONVERSATION_KEYS = (
    "messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat_messages",
)  # fmt: skip
"""Keys of records whose value is a list of turns."""
_SPEAKER_KEYS = ("role", "from", "speaker", "sender", "author", "name", "user")
_TEXT_KEYS = ("content", "value", "text", "message", "utterance")
_TIME_KEYS = ("date", "timestamp", "created_at", "create_time", "ts")
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
    """What somebody said.

    >>> turn("Anna", "It rains.")
    'Anna: It rains.\\n'
    """
    return f"{speaker}: {text}\n" if speaker else f"{text}\n"


def conversation(turns: Sequence[Any], with_times: bool = False) -> str:
    """A list of messages as text; empty where it is none.

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
            time = _time(message) if with_times else ""
            if text:
                said.append(turn(f"[{time}] {speaker}" if time else speaker, text))
    return "".join(said)


def instruction(record: dict[str, Any]) -> tuple[str, set[str]]:
    """An instruction and its answer as paragraphs, and the keys that they were under."""
    for keys in _INSTRUCTIONS:
        parts = [plain(record.get(key)) for key in keys]
        if parts[0] and parts[-1]:
            return "\n\n".join(filter(None, parts)) + "\n", set(keys)
    return "", set()


def plain(content: Any) -> str:
    """The text of a message, which may come in parts: pictures and calls of tools are none."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(
            part if isinstance(part, str) else plain(part.get("text"))
            for part in content
            if isinstance(part, str | dict)
        )
    return ""


def _time(message: dict[str, Any]) -> str:
    """When it was said, as it is written; seconds since 1970 as date and time in UTC."""
    time = next((message[key] for key in _TIME_KEYS if message.get(key)), "")
    if isinstance(time, str) and not time.replace(".", "", 1).isdecimal():
        return time
    try:
        moment = datetime.fromtimestamp(float(time), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
    return moment.isoformat(" ", "minutes").removesuffix("+00:00")


def _name(speaker: Any) -> str:
    """The name of a speaker, which may be an object with one."""
    if isinstance(speaker, dict):
        names = ("nickname", "real_name", "display_name", "name", "role")
        return next((n for key in names if isinstance(n := speaker.get(key), str) and n), "")
    return speaker if isinstance(speaker, str) else ""
