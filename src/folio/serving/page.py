"""The page at /."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from folio.report import html_page, html_table
from folio.serving.served import Served

PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Of the page."""


def page(served: Mapping[str, Served]) -> str:
    """What is served, and how it is asked."""
    rows = [
        [name, f"{one.opened.model.config.n_parameters:,}", one.opened.checkpoint.path.name]
        for name, one in served.items()
    ]
    first = escape(next(iter(served)))
    return html_page(
        "Folio",
        html_table(["model", "parameters", "checkpoint"], rows)
        + "<p>POST /v1/completions goes on with a text, as OpenAI's clients know it:</p>\n<pre>"
        f'{{"model": "{first}", "prompt": "Once", "max_tokens": 50}}</pre>',
    )
