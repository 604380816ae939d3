"""The page at /: one for each model, to write on."""

from __future__ import annotations

from collections.abc import Mapping

from folio.export.card import facts
from folio.serving.served import Served
from folio.write.page import served_page

PAGE_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Of the page."""


def page(served: Mapping[str, Served], name: str) -> str:
    """The page of a model, which leads to those of the others."""
    opened = served[name].opened
    return served_page(
        name,
        f"A language model of {opened.model.config.n_parameters:,} parameters, made with Folio. It "
        f"runs on this server, which gets what you write and keeps none of it.",
        list(facts(opened)),
        [other for other in served if other != name],
    )
