"""Any other format: Apache Tika, on a server that the user runs.

The `tika` package would download a server by itself; here it is told never to, and only sends the
bytes of a file to /rmeta/text of the server that was named.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError


def read_tika(data: bytes, server: str, timeout_seconds: float, notes: Notes) -> Iterator[Passage]:
    """Read the text of a file and of its attachments, one passage each.

    Raises:
        UserError: no server there, or it cannot read the file.
    """
    os.environ["TIKA_CLIENT_ONLY"] = "True"
    os.environ["TIKA_LOG_FILE"] = ""
    from requests import RequestException
    from tika.tika import callServer

    try:
        status, answer = callServer(
            "put",
            server,
            "/rmeta/text",
            data,
            {"Accept": "application/json"},
            requestOptions={"timeout": timeout_seconds, "verify": True},
        )
    except RequestException as error:
        raise UserError(
            f"the Tika server {server} does not answer ({type(error).__name__})"
        ) from None
    if status != 200:
        raise UserError(f"the Tika server {server} cannot read it (status {status})")
    try:
        parts = json.loads(answer)
    except ValueError:
        raise UserError(f"{server} did not answer with JSON: is it a Tika server?") from None
    for part in parts:
        for key in part:
            if key.startswith("X-TIKA:EXCEPTION"):
                notes.warnings.append(f"Tika: {str(part[key]).strip().splitlines()[0][:200]}")
        text = (part.get("X-TIKA:content") or "").strip("\n")
        if text.strip():
            yield Passage(text + "\n\n", part.get("resourceName") or "")
