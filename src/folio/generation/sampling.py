"""From logits to the next token: pure functions, each (B, V) -> (B, V) but the last.

Shapes:  B sequences · V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from folio.errors import UserError

EXCLUDED = float("-inf")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is drawn from the model's distribution."""

    temperature: float = 0.8
    """Divides the logits: below 1 is safer, above 1 is wilder, 0 always takes the likeliest."""

    top_k: int = 0
    """Draw among the k likeliest only; 0 means all."""

    top_p: float = 1.0
    """Draw among the likeliest that together have this probability; at least one stays
    (nucleus sampling, https://arxiv.org/abs/1904.09751)."""

    seed: int = 0
    """The same seed gives the same text; 0 takes a new one each time."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature must be 0 (greedy) or more, got {self.temperature}.")
        if self.top_k < 0:
            raise UserError(f"top_k must be 0 (all tokens) or more, got {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise UserError(
                f"top_p must be above 0 and at most 1, got {self.top_p}. "
                f"For the likeliest token alone give --temperature 0."
            )
        if self.seed < 0:
            raise UserError(f"seed must be 0 or more, got {self.seed}.")


class SamplingSettings(TypedDict, total=False):
    """The fields of `SamplingConfig`, each of which may be left out; for keyword arguments."""

    temperature: float
    top_k: int
    top_p: float
    seed: int


def exclude(logits: Tensor, excluded: Tensor | None) -> Tensor:
    """Make some tokens impossible; `excluded` is (V,) bool."""
    return logits if excluded is None else logits.masked_fill(excluded, EXCLUDED)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Make all but the k likeliest impossible; ties with the k-th stay.

    >>> keep_top_k(torch.tensor([[1.0, 3.0, 2.0]]), k=2)
    tensor([[-inf, 3., 2.]])
    """
    if not 0 < k < logits.shape[1]:
        return logits
    kth = logits.topk(k, dim=1).values[:, -1:]
    return logits.masked_fill(logits < kth, EXCLUDED)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the likeliest tokens until their probabilities reach p.

    A token stays if those likelier than it have less than p together, so that the
    likeliest always stays, and stays alone where it exceeds p.

    >>> keep_top_p(torch.tensor([[0.5, 0.3, 0.2]]).log(), p=0.6).isinf()
    tensor([[False, False,  True]])
    """
    if p >= 1:
        return logits
    ordered, indices = logits.sort(dim=1, descending=True)
    probabilities = ordered.softmax(dim=1)
    before = probabilities.cumsum(dim=1) - probabilities
    ordered = ordered.masked_fill(before >= p, EXCLUDED)
    return torch.empty_like(logits).scatter_(1, indices, ordered)


def draw(logits: Tensor, config: SamplingConfig, generator: torch.Generator) -> Tensor:
    """Choose a token for each sequence: (B, V) -> (B,)."""
    if config.temperature == 0:
        return logits.argmax(dim=1)
    logits = keep_top_p(keep_top_k(logits / config.temperature, config.top_k), config.top_p)
    # The exponential race: the token with the largest p / e wins with probability p. The
    # same as torch.multinomial, whose checks take longer than the choice.
    waiting = torch.empty_like(logits).exponential_(generator=generator)
    return (logits.softmax(dim=1) / waiting).argmax(dim=1)
