"""What log-odds of bits say of a token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def nats_of(
    odds: NDArray[np.floating], token_ids: NDArray[np.integer], vocab_size: int
) -> NDArray[np.float64]:
    """(n,) nats of tokens by the (n, bits) log-odds of their bits; a bit that no other id has
    is certain.
    """
    nats = np.zeros(len(token_ids))
    for i, token in enumerate(token_ids.tolist()):
        ids = range(vocab_size)
        for d, said in enumerate(odds[i].astype(np.float64).tolist()):
            shift = odds.shape[1] - 1 - d
            same = [k for k in ids if (k ^ token) >> shift & 1 == 0]
            if len(same) < len(ids):
                nats[i] += np.logaddexp(0, -said if token >> shift & 1 else said)
            ids = same
    return nats
