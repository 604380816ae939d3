"""The fields of a JSON body. Each is taken once with what it may be; whatever nobody takes is
refused, so that nothing is accepted and ignored.
"""

from __future__ import annotations

import asyncio
import json
from email.message import Message
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from folio.serving.limits import Limits
from folio.serving.refusals import RequestError

_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}


class Fields:
    """The fields of a request."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.left = dict(body)

    def take(self, name: str, default: Any = None) -> Any:
        """Take a field of any type."""
        return self.left.pop(name, default)

    def whole(self, name: str, default: Any, low: int, high: int) -> Any:
        """Take a whole number in low ... high."""
        value = self.take(name, default)
        if value is not default and (type(value) is not int or not low <= value <= high):
            refuse(name, f"must be a whole number, {low} to {high}", value)
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """Take a number in low ... high."""
        value = self.take(name, default)
        if type(value) not in (int, float) or not low <= value <= high:
            refuse(name, f"must be a number, {low:g} to {high:g}", value)
        return float(value)

    def flag(self, name: str) -> bool:
        """False where it is not given."""
        value = self.take(name, False)
        if type(value) is not bool:
            refuse(name, "must be true or false", value)
        return value

    def text(self, name: str, default: str | None = None) -> str | None:
        """Take a string."""
        value = self.take(name, default)
        if value is not None and type(value) is not str:
            refuse(name, "must be a text", value)
        return value

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """Take a string or a list of strings, none of them empty."""
        value = self.take(name, [])
        texts = [value] if type(value) is str else value
        if type(texts) is not list or not all(type(text) is str and text for text in texts):
            found = (
                "an empty one" if value == "" or (type(value) is list and "" in value) else value
            )
            refuse(name, "must be a text or a list of texts, none of them empty", found)
        if len(texts) > most:
            refuse(name, f"must be {most} texts at most", f"{len(texts)} texts")
        return tuple(texts)

    def only(self, name: str, neutral: Any) -> None:
        """Take an unsupported field, which may only have its neutral value."""
        value = self.take(name, neutral)
        if value != neutral or type(value) is bool:
            raise RequestError(
                400,
                f"{name} is not supported; leave it out.",
                param=name,
                code="unsupported_parameter",
            )

    def end(self) -> None:
        """Refuse fields that were not taken."""
        for name in self.left:
            shown = name if len(name) <= 40 else f"{name[:40]}..."
            raise RequestError(
                400,
                f"The field {shown!r} is not known here; leave it out.",
                param=shown,
                code="unknown_parameter",
            )


def refuse(name: str, must: str, value: Any) -> NoReturn:
    """Refuse a field with a wrong value.

    Raises:
        RequestError: always.
    """
    if type(value) in (dict, list, bool):
        shown = _NAMES[type(value)] if type(value) is not bool else json.dumps(value)
    else:
        shown = str(value) if len(str(value)) <= 40 else f"{str(value)[:40]}..."
    raise RequestError(400, f"{name} {must}, got {shown}.", param=name, code="invalid_value")


async def read_fields(request: Request, limits: Limits) -> Fields:
    """The body of a request.

    Raises:
        RequestError: it is not a JSON object, too long, or too slow.
    """
    head = Message()
    head["content-type"] = request.headers.get("content-type", "")
    charset = head.get_content_charset("utf-8")
    if head.get_content_type() != "application/json" or charset not in ("utf-8", "utf8"):
        raise RequestError(415, "The body must be JSON: Content-Type: application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "The body must not be compressed.")
    try:
        async with asyncio.timeout(limits.body_seconds):
            data = await _read(request, limits.body_bytes)
    except TimeoutError:
        raise RequestError(
            408,
            f"The body took more than {limits.body_seconds:g} seconds to arrive.",
            headers={"Connection": "close"},
        ) from None
    return Fields(parse(data))


async def _read(request: Request, most: int) -> bytes:
    too_long = RequestError(413, f"The body must have {most:,} bytes at most.")
    if request.headers.get("content-length", "0").isdecimal():
        announced = request.headers.get("content-length", "0")
        if len(announced) > 12 or int(announced) > most:
            raise too_long
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > most:
                raise too_long
    except ClientDisconnect:
        raise RequestError(400, "The body broke off.") from None
    return bytes(data)


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object of a body; in each object, null counts as missing.

    Raises:
        RequestError: it is none.
    """

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("an object has a name twice")
        return {name: value for name, value in pairs if value is not None}

    try:
        text = data.decode("utf-8")
        body = json.loads(text, parse_constant=constant, object_pairs_hook=unique)
        json.dumps(body, ensure_ascii=False).encode("utf-8")  # no half of a surrogate pair
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise RequestError(400, f"The body is not JSON in UTF-8: {reason[:200]}.") from None
    if type(body) is not dict:
        raise RequestError(400, "The body must be a JSON object.")
    return body
