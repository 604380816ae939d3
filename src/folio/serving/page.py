"""The page at /: one for each model, to write on."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256

from folio.export.card import facts
from folio.serving.served import Served
from folio.write.page import served_page


def policy_of(page: str) -> str:
    """The Content-Security-Policy of a page: its own scripts run, by their hashes, and no others,
    whatever text comes to stand in it.
    """
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        f"connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


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
