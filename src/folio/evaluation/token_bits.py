"""A token as binary decisions: the bits of its id, the most significant first.

The probability of a token is the product of those of its bits, each given the bits before it. So
predictors can be mixed bit by bit, as log-odds of two outcomes, whatever the size of a vocabulary.

Shapes:  n tokens · V vocabulary
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LARGEST = 16.0
"""Of log-odds, either way: nobody is surer than one in nine million."""


def n_bits(vocab_size: int) -> int:
    """Bits of an id.

    >>> n_bits(1), n_bits(2), n_bits(65)
    (0, 1, 7)
    """
    return (vocab_size - 1).bit_length()


def log_odds(logits: Tensor, token_ids: Tensor) -> Tensor:
    """The log-odds that each bit of a token is 1, given the bits before it.

    Args:
        logits: (n, V) of distributions.
        token_ids: (n,) the token that each distribution predicted.

    Returns:
        (n, bits) float32; 0 where a distribution is not a number, or knows nothing.
    """
    vocab_size = logits.shape[1]
    probabilities = torch.softmax(logits.double(), dim=1)
    below = F.pad(probabilities.cumsum(dim=1), (1, 0))  # (n, V + 1) of all smaller ids
    shifts = torch.arange(n_bits(vocab_size) - 1, -1, -1)
    zero = token_ids[:, None].long() >> shifts & ~1  # (n, bits) the bits before, then a 0
    first, middle, end = (
        below.gather(1, (zero + k << shifts).clamp(max=vocab_size)) for k in range(3)
    )
    odds = ((end - middle) / (middle - first)).log()
    return odds.clamp(-LARGEST, LARGEST).nan_to_num(0.0).float()
