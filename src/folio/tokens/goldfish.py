"""The goldfish loss: some targets are never learned, so that no passage is learned as a whole.

The tokens before a target decide whether it is dropped, so that a passage that occurs in several
places loses the same targets everywhere (Hans et al. 2024, https://arxiv.org/abs/2406.10209). The
decision takes fifty characters, or thirteen byte-pair tokens as in the paper: thirteen characters
would drop the ends of frequent words for ever.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folio.corpus.fingerprints import BASE, mixed

CHARACTERS_BEFORE = 50
TOKENS_BEFORE = 13


def dropped(
    tokens: NDArray[np.unsignedinteger], places: NDArray[np.int64], one_in: int, before: int
) -> NDArray[np.bool_]:
    """Choose the targets to leave out of the loss, about one in `one_in`.

    Args:
        tokens: (N,) token ids of the text.
        places: positions of the targets in it, of any shape.
        one_in: k in the paper, above 1.
        before: how many tokens before a target decide; h in the paper.

    Returns:
        A mask of the shape of `places`. A target with fewer tokens before it is kept.
    """
    hashes = np.zeros(places.shape, np.uint64)
    for back in range(before, 0, -1):
        hashes *= np.uint64(BASE)
        hashes += tokens[np.maximum(places - back, 0)].astype(np.uint64) + np.uint64(1)
    return (mixed(hashes) % np.uint64(one_in) == 0) & (places >= before)
