"""The page to write on: one user interface over two engines.

An engine is a script that defines `makeEngine(data)`, as `engine_server.js` does, where what it
gives is described. The other engine is the model in the page itself (`export/page_engine.js`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from folio.report import html_page, html_table

SCRIPTS = (
    *("tree", "paper", "choices", "branches", "copied", "keep", "settings", "status", "keys"),
    *("latest", "write"),
)
"""Scripts of the page, in the order in which they run."""


def writing_page(
    name: str,
    about: str,
    facts: Sequence[tuple[str, str]],
    data: Mapping[str, Any],
    *,
    engine: str,
    inert: Mapping[str, str] | None = None,
    others: Mapping[str, str] | None = None,
    allowed: Mapping[str, str] | None = None,
) -> str:
    """The page as one HTML file.

    Args:
        name: of the run; what is written is kept in the browser under it.
        about: a sentence below the title, plain text.
        facts: properties of the model and their values.
        data: JSON that the engine is made with.
        engine: JavaScript that defines `makeEngine(data)`.
        inert: texts by their ids, which the engine finds in the page; base64, or scripts of ours.
        others: pages of other models, names and addresses.
        allowed: what the engine needs beyond the usual policy, as in `html_page`.
    """
    # "</script>" inside a text must not end the data.
    said = json.dumps({**data, "run": name}, separators=(",", ":")).replace("<", "\\u003c")
    blocks = [f'<script id="data" type="application/json">{said}</script>']
    for key, text in (inert or {}).items():
        blocks.append(f'<script id="{key}" type="text/plain">{text}</script>')
    links = [
        f'<a href="{escape(address)}">{escape(other)}</a>'
        for other, address in (others or {}).items()
    ]
    parts = {
        "OTHERS": f"<nav>Other models: {', '.join(links)}</nav>" if links else "",
        "STYLE": _beside("page.css"),
        "ABOUT": escape(about),
        "FACTS": html_table(["property", "value"], [[*fact] for fact in facts]),
        "INERT": "\n".join(blocks),
        "SCRIPT": "\n".join([engine, *(_beside(f"{one}.js") for one in SCRIPTS)]),
    }
    # Split, not replaced: what is put in is not looked through.
    pieces = _beside("page.html").split("__")
    body = "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))
    return html_page(f"Write with {name}", body, allowed=allowed or {})


def served_page(
    name: str, about: str, facts: Sequence[tuple[str, str]], others: Sequence[str] = ()
) -> str:
    """The page as a server gives it, which answers /look and /v1/completions for a model.

    Args:
        name, about, facts: as in `writing_page`.
        others: models that are served too, each with its page at /?model=NAME.
    """
    return writing_page(
        name,
        about,
        facts,
        {"model": name},
        engine=_beside("engine_server.js"),
        others={other: f"/?model={quote(other, safe='')}" for other in others},
        allowed={"connect-src": "'self'"},
    )


def _beside(name: str) -> str:
    return files("folio.write").joinpath(name).read_text(encoding="utf-8")
