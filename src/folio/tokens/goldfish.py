"""The goldfish loss: some targets are never learned, so that no passage is learned whole.

Which ones follows from the tokens before a target, so that a passage that stands in many places
loses the same ones everywhere (Hans et al. 2024, https://arxiv.org/abs/2406.10209). Fifty
characters before it, and thirteen tokens of byte pairs, as in the paper: thirteen characters would
take the ends of frequent words away for ever.
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
    """Which targets are left out of the loss; about one in `one_in`.

    Args:
        tokens: (N,) of the text.
        places: of the targets in it, of any shape.
        one_in: k of the paper, above 1.
        before: how many tokens before a target decide; h of the paper.

    Returns:
        Of the shape of `places`. A target with fewer tokens before it stays.
    """
    hashes = np.zeros(places.shape, np.uint64)
    for back in range(before, 0, -1):
        hashes *= np.uint64(BASE)
        hashes += tokens[np.maximum(places - back, 0)].astype(np.uint64) + np.uint64(1)
    return (mixed(hashes) % np.uint64(one_in) == 0) & (places >= before)
