"""Train on tokens of your own: here each byte of UTF-8 is one.

A tokenizer says what each id stands for (`pieces`) and which ids a text has; the base class does
the rest. Two tables make it known: one by the name in a recipe, one by the name in its file.

python examples/03_own_tokenizer.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

import folio
from folio import tokenizers
from folio.tokenizers.base import END_OF_DOCUMENT, TokenIds, added_tokens
from folio.tokenizers.config import KINDS


class ByteTokenizer(folio.Tokenizer):
    """Ids 0 to 255 are bytes; 256 stands between documents."""

    kind = "bytes"
    lossless = True

    def __init__(self) -> None:
        self.special_tokens = {END_OF_DOCUMENT: 256}
        self.pieces = [bytes([value]) for value in range(256)] + [END_OF_DOCUMENT.encode()]

    def encode_ordinary(self, text: str) -> TokenIds:
        """(n_bytes,) ids."""
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(self.dtype)

    def to_json(self) -> dict[str, Any]:
        """What `tokenizer.json` holds; nothing was learned, so a name is enough."""
        return {"added_tokens": added_tokens(self.special_tokens), "model": {"type": "Bytes"}}


def register() -> None:
    """Every program that opens such a run calls this first."""
    KINDS["bytes"] = lambda config, documents: ByteTokenizer()
    tokenizers.TYPES["Bytes"] = lambda table, source: ByteTokenizer()


def main(text: str = "python-docs", minutes: float | None = 1, **settings: Any) -> str:
    register()
    result = folio.train(text, minutes=minutes, tokenizer={"kind": "bytes"}, **settings)
    written = folio.load(result.run.path).generate("The ", max_tokens=200, seed=1)
    print(written)
    return written


if __name__ == "__main__":
    main()
