"""A reader beside the n-grams of the training text.

Shapes:  B texts · V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from folio.generation.reader import Cache, Reader
from folio.ngrams.table import NGrams
from folio.ngrams.weights import Weights


@dataclass
class CacheWithTokens:
    """What a reader knows of a text, and the last tokens of it."""

    cache: Cache
    tokens: list[int] = field(default_factory=list[int])

    @property
    def length(self) -> int:
        """Positions held; 0 forgets the text."""
        return self.cache.length

    @length.setter
    def length(self, positions: int) -> None:
        self.cache.length = positions


class ReaderWithNGrams:
    """Multiplies what a reader says with what n-grams say; a `Reader`.

    It computes what `ngrams.gpt.GPTWithNGrams` does, without torch.
    """

    def __init__(self, reader: Reader, ngrams: NGrams, weights: Weights) -> None:
        """Take the reader of a model."""
        self.reader, self.ngrams, self.weights = reader, ngrams, weights
        self.context_length = reader.context_length

    def caches(self, n: int) -> list[CacheWithTokens]:
        return [CacheWithTokens(cache) for cache in self.reader.caches(n)]

    def read(
        self, token_ids: Sequence[Sequence[int]], caches: Sequence[CacheWithTokens]
    ) -> NDArray[np.float32]:
        for ids, cache in zip(token_ids, caches):
            n_kept = min(cache.length, len(cache.tokens))
            seen = [*cache.tokens[len(cache.tokens) - n_kept :], *ids]
            cache.tokens = seen[-self.ngrams.order :]
        logits = self.reader.read(token_ids, [cache.cache for cache in caches])
        each = [self.ngrams.probabilities(np.array([c.tokens]))[:, -1] for c in caches]
        found = np.concatenate(each)[:, : logits.shape[-1]]  # they may know more ids
        return self.weights.product(logits, np.log(found))

    def forget(self, cache: CacheWithTokens, n: int) -> bool:
        return self.reader.forget(cache.cache, n)
