"""The paths of a run directory, from the class that names them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from folio.run.directory import Run
from scripts.docs.markdown import plain


def known() -> dict[str, str]:
    """Path below a run directory -> what is in it; a folder ends in /.

    >>> known()["metrics.jsonl"]
    'One JSON object per event, from which every plot is drawn.'
    """
    run, found = Run(Path("run")), {}
    for name, value in vars(Run).items():
        if isinstance(value, property) and re.search(r"_(file|page|folder)$", name):
            inside = getattr(run, name).relative_to(run.path).as_posix()
            found[inside + "/" * name.endswith("folder")] = inspect.getdoc(value) or ""
    return found


def section() -> str:
    """A table of all of them; the page explains each below."""
    rows = [f"| [`{path}`](#{path}) | {plain(what)} |" for path, what in known().items()]
    return "\n".join(["| path | what it is |", "| --- | --- |", *rows])
