"""Errors of the server, in the form that OpenAI's clients turn into their exceptions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

_TYPES = {401: "authentication_error", 403: "permission_error"}


class RequestError(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the error in OpenAI's fields.

        Args:
            status: of HTTP.
            message: what was found, and what must hold.
            param: the field that is wrong.
            code: a word for programs.
            headers: of the answer.
        """
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers

    @property
    def body(self) -> dict[str, Any]:
        """The object that stands in the answer, or in a stream that breaks off."""
        usual = "invalid_request_error" if self.status < 500 else "server_error"
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, usual),
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def response(self) -> Response:
        """Return the body of the answer."""
        return json_response(self.body, self.status, self.headers)


def busy(n_waiting: int) -> RequestError:
    """Refuse a request because the queue is full."""
    return RequestError(
        503,
        f"{n_waiting} texts wait already; come again in a second.",
        code="overloaded",
        headers={"Retry-After": "1"},
    )


def stopping() -> RequestError:
    """Refuse a request because the server is stopping."""
    return RequestError(503, "The server is stopping.", code="stopping")


def broken() -> RequestError:
    """An error of ours, whose text may hold what a user wrote and stays here."""
    return RequestError(500, "Something went wrong here; the server's own output says what.")


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON in ASCII, so that no text can be one that UTF-8 has no bytes for."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return Response(text, status, headers, media_type="application/json")
