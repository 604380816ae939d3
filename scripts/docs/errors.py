"""Every message for a mistake of the user, from where it is raised."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from folio.errors import UserError
from scripts.docs.markdown import plain

SOURCE = Path(__file__).parents[2] / "src" / "folio"
VARIABLE = "…"


def section() -> str:
    """The messages, by room."""
    parts = []
    for room, messages in by_room().items():
        parts.append(f"### {room} {{ #{room} }}")
        parts.append("\n".join(f"- {plain(message)}" for message in messages))
    return "\n\n".join(parts)


@cache
def by_room() -> dict[str, list[str]]:
    """Room -> its messages, in the order of the alphabet; what differs each time is an ellipsis."""
    found: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        found.setdefault(room, set()).update(messages(path.read_text(encoding="utf-8")))
    return {room: sorted(texts) for room, texts in found.items() if texts}


def messages(source: str) -> list[str]:
    """Messages of the errors that a file raises, as far as they stand there.

    >>> messages('raise UserError(f"There is no file {path}.")')
    ['There is no file ….']
    """
    calls = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == UserError.__name__
    )
    return [text for call in calls if call.args and len((text := _text(call.args[0])).split()) > 2]


def _text(node: ast.expr) -> str:
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(parts):
            return "".join(map(_text, parts))
        case ast.BinOp(left, ast.Add(), right):
            return _text(left) + _text(right)
        case _:
            return VARIABLE
