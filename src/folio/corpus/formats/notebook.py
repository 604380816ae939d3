"""Jupyter notebooks: the text and the code of the cells, without their outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from folio.corpus.formats.jsonl import drop_other_fields
from folio.corpus.formats.passage import Notes, Passage
from folio.errors import UserError

_NO_TEXT = ("output_type", "name", "execution_count", "metadata")


def read_notebook(data: bytes, notes: Notes) -> Iterator[Passage]:
    """Read one passage per cell."""
    try:
        notebook = json.loads(data)
        cells = notebook.get("cells")
        if cells is None:  # notebook format 3
            cells = [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]
        n_known = 0
        for number, cell in enumerate(cells, 1):
            text = _text(cell.get("source", cell.get("input", ""))).strip("\n")
            n_known += len(text.encode("utf-8", "replace"))
            for output in cell.get("outputs", ()):
                notes.drop("notebook outputs", _shown(output))
            if text.strip():
                yield Passage(text + "\n\n", f"cell {number}")
        drop_other_fields(notebook, n_known + notes.dropped.total(), notes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError("it is not a Jupyter notebook") from None


def _shown(output: Any) -> str:
    """What an output displays; pictures as their encoded text."""
    shown = output.get("data", output)
    parts = [_text(value) for name, value in shown.items() if name not in _NO_TEXT]
    return "\n".join(parts)


def _text(lines: Any) -> str:
    return "".join(lines) if isinstance(lines, list) else str(lines or "")
