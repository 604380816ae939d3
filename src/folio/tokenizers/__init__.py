"""Text <-> token ids: what every tokenizer can do, and how one is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from folio.errors import UserError
from folio.storage import read_json
from folio.tokenizers.base import UNKNOWN, Tokenizer
from folio.tokenizers.character import CharacterTokenizer

__all__ = ["TYPES", "Tokenizer", "load"]


def load(path: Path | str) -> Tokenizer:
    """Read a tokenizer.json, or the one in a folder.

    Raises:
        UserError: no such file, damaged, or of a kind that Folio cannot run.
    """
    path = Path(path)
    if path.is_dir():
        path /= "tokenizer.json"
    return from_table(read_json(path), str(path))


def from_table(table: Any, source: str) -> Tokenizer:
    """Build the tokenizer that a parsed tokenizer.json describes.

    Args:
        table: the content of the file.
        source: the file's name in errors.

    Raises:
        UserError: damaged, or of a kind that Folio cannot run.
    """
    try:
        kind = table["model"]["type"]
        if kind not in TYPES:
            raise UserError(
                f"{source} holds a tokenizer of type {kind!r}, which Folio does not run."
            )
        return TYPES[kind](table, source)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{source} is not a tokenizer.json: it lacks model.type or model.vocab."
        ) from None


def _read_pairs(table: dict[str, Any], source: str) -> Tokenizer:
    if table["model"].get("byte_fallback"):
        raise UserError(
            f"{source} is a tokenizer as of SentencePiece (BPE of characters, with byte_fallback), "
            f"which Folio does not run. Use a byte-level tokenizer.json."
        )
    if table["model"].get("unk_token") == UNKNOWN:
        return CharacterTokenizer.from_json(table, source)
    # Imported here, since most runs need only characters.
    from folio.tokenizers.bpe.tokenizer import BPETokenizer

    return BPETokenizer.from_json(table, source)


def _read_words(table: dict[str, Any], source: str) -> Tokenizer:
    from folio.tokenizers.word import WordTokenizer

    return WordTokenizer.from_json(table, source)


TYPES: dict[str, Callable[[dict[str, Any], str], Tokenizer]] = {
    "BPE": _read_pairs,
    "WordLevel": _read_words,
}
"""model.type of a tokenizer.json -> its reader, called with the table and the name of the file."""
