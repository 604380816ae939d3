"""Which tokenizer a run has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from folio.tokenizers.base import Tokenizer
from folio.tokenizers.character import CharacterTokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """What the text is cut into."""

    kind: Literal["character"] = "character"
    """One token for each character of the training text."""


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """Learn a vocabulary from the training text, which comes in pieces."""
    return CharacterTokenizer.train(texts)
