"""Text <-> token ids."""

from __future__ import annotations

from pathlib import Path

from folio.errors import UserError
from folio.storage import read_json
from folio.tokenizers.base import Tokenizer
from folio.tokenizers.character import CharacterTokenizer

__all__ = ["Tokenizer", "load"]


def load(path: Path | str) -> Tokenizer:
    """Read a tokenizer.json.

    Raises:
        UserError: no such file, damaged, or of a kind that Folio does not run.
    """
    path = Path(path)
    table = read_json(path)
    try:
        if table["model"]["type"] == "BPE" and not table["model"]["merges"]:
            return CharacterTokenizer.from_json(table)
        kind = table["model"]["type"]
    except (KeyError, TypeError):
        raise UserError(
            f"{path} is no tokenizer.json: it lacks model.type or model.vocab."
        ) from None
    raise UserError(f"{path} holds a tokenizer of type {kind}, which Folio does not run.")
