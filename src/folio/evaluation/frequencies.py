"""The loss of a model that knows only how often each token occurs. Free of torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folio.tokenizers.base import TokenIds

CHUNK_TOKENS = 1 << 24


def count_tokens(token_ids: TokenIds, vocab_size: int) -> NDArray[np.int64]:
    """(V,) how often each token occurs."""
    counts = np.zeros(vocab_size, np.int64)
    for first in range(0, len(token_ids), CHUNK_TOKENS):
        counts += np.bincount(token_ids[first : first + CHUNK_TOKENS], minlength=vocab_size)
    return counts


def frequency_loss(counts: NDArray[np.int64], validation: TokenIds) -> float:
    """Loss in nats per token of a model that knows only how often each token occurs.

    One is added to each count. A model that is no better has learned nothing about what follows
    what.

    Args:
        counts: (V,) of the training text.
        validation: (N,) token ids, of which the first is no target.
    """
    nll = -np.log((counts + 1.0) / (counts.sum() + len(counts)))
    targets = count_tokens(validation[1:], len(counts))
    return float(targets @ nll / targets.sum())
