"""One token for each character of the training text.

The whole tokenizer is a table from code points to ids, so encoding is one look-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.errors import UserError
from folio.tokenizers.base import (
    END_OF_DOCUMENT,
    UNKNOWN,
    TokenIds,
    Tokenizer,
    added_tokens,
    chat_tokens_lacking,
    said_template,
    template_entry,
    unknown_message,
)

CODE_POINTS = 0x110000


class CharacterTokenizer(Tokenizer):
    """Characters in the order of their code points, then `<unk>` and `<|endoftext|>`.

    >>> tokenizer = CharacterTokenizer.train(["abba"])
    >>> tokenizer.encode("abc").tolist()
    [0, 1, 2]
    >>> tokenizer.decode([1, 0, 2])
    'ba<unk>'
    """

    kind = "character"
    lossless = True  # except for unknown characters, which are counted

    def __init__(
        self, characters: str, *, added: Sequence[str] = (), has_chat: bool = False
    ) -> None:
        """
        Args:
            characters: the vocabulary without repetitions; the index of a character is its id.
            added: further special tokens, which get the last ids.
            has_chat: whether its tokenizer.json declares the chat template.
        """
        if len(set(characters)) != len(characters):
            raise UserError("The vocabulary of a character tokenizer holds a character twice.")
        self.characters = characters
        n = len(characters)
        names = (UNKNOWN, END_OF_DOCUMENT, *added)
        self.special_tokens = {name: n + i for i, name in enumerate(names)}
        self.has_chat = has_chat
        self.pieces = [symbol.encode("utf-8") for symbol in (*characters, *self.special_tokens)]

    @classmethod
    def train(cls, texts: Iterable[str]) -> CharacterTokenizer:
        """Take every character of a text that is given in pieces."""
        seen = np.zeros(CODE_POINTS, dtype=bool)
        for text in texts:
            seen[_code_points(text)] = True
        return cls("".join(map(chr, np.flatnonzero(seen))))

    def encode_ordinary(self, text: str) -> TokenIds:
        return self._table[_code_points(text)]

    def describe_unknown(self, text: str) -> str:
        strange = sorted(set(text) - set(self.characters))
        return unknown_message([f"{c!r} (U+{ord(c):04X})" for c in strange])

    def with_chat(self) -> CharacterTokenizer:
        added = [*self.special_tokens][2:]
        added += chat_tokens_lacking(added)
        return CharacterTokenizer(self.characters, added=added, has_chat=True)

    def lacking(self, texts: Iterable[str]) -> dict[str, int]:
        """Count the characters of some texts that the vocabulary lacks, the most frequent first.

        >>> CharacterTokenizer("ab").lacking(["abba", "cdd"])
        {'d': 2, 'c': 1}
        """
        counts = np.zeros(CODE_POINTS, np.int64)
        for text in texts:
            codes = _code_points(text)
            counts += np.bincount(codes[self._table[codes] == self.unknown], minlength=CODE_POINTS)
        found = np.flatnonzero(counts)
        return {
            chr(code): int(counts[code])
            for code in found[np.argsort(-counts[found], kind="stable")]
        }

    def to_json(self) -> dict[str, Any]:
        # BPE without merges, because the standard has a name for it.
        vocabulary = {symbol: i for i, symbol in enumerate(self.characters)} | self.special_tokens
        return {
            "version": "1.0",
            "added_tokens": added_tokens(self.special_tokens),
            "decoder": {"type": "Fuse"},
            "model": {
                "type": "BPE",
                "unk_token": UNKNOWN,
                "fuse_unk": False,
                "vocab": vocabulary,
                "merges": [],
                **template_entry(self.has_chat),
            },
        }

    @classmethod
    def from_json(
        cls, table: dict[str, Any], source: str = "The tokenizer.json"
    ) -> CharacterTokenizer:
        """Invert `to_json`."""
        vocabulary = sorted(table["model"]["vocab"].items(), key=lambda item: item[1])
        tokenizer = cls(
            "".join(symbol for symbol, _ in vocabulary if len(symbol) == 1),
            added=[symbol for symbol, _ in vocabulary if len(symbol) != 1][2:],
            has_chat=said_template(table["model"], source),
        )
        if tokenizer.to_json()["model"] != table["model"]:
            raise UserError(
                f"{source} is damaged, or not a character tokenizer of Folio: it has merges, or "
                f"its ids are not 0, 1, 2 ... Copy the file anew."
            )
        return tokenizer

    @cached_property
    def _table(self) -> TokenIds:
        table = np.full(CODE_POINTS, self.special_tokens[UNKNOWN], dtype=self.dtype)
        table[_code_points(self.characters)] = np.arange(len(self.characters))
        return table


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
