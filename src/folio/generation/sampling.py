"""From logits to the next token: pure functions, each (B, V) -> (B, V) but the last.

Shapes:  B sequences · V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import torch
from torch import Tensor

from folio.errors import UserError

EXCLUDED = float("-inf")
GREEDY_BELOW = 1e-6
"""Temperatures that take the likeliest token: logits divided by less might not be finite."""
SEEDS = 2**63
NUCLEUS = 64
"""So many of the likeliest tokens are looked at first."""


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

    min_p: float = 0.0
    """Draw among tokens that have at least this share of the likeliest one's probability; 0 means
    all (https://arxiv.org/abs/2407.01082)."""

    repetition_penalty: float = 1.0
    """Above 1 makes tokens less likely that stand in what the model sees, the prompt included:
    positive logits are divided by it, negative ones multiplied; 1 changes nothing
    (https://arxiv.org/abs/1909.05858, section 4.1)."""

    stop_strings: tuple[str, ...] = ()
    """End a text before the first of these that it would have; the prompt may have them."""

    logprobs: int = 0
    """How many of the likeliest tokens are told at each place, with their log-probabilities."""

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
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min_p must be a share, 0 to 1, got {self.min_p}.")
        if not 0 < self.repetition_penalty < float("inf"):
            raise UserError(
                f"repetition_penalty must be above 0, got {self.repetition_penalty}. "
                f"1 is none, 1.2 is much."
            )
        if isinstance(self.stop_strings, str):
            raise UserError(f"stop_strings must be a list of texts, got {self.stop_strings!r}.")
        if "" in self.stop_strings:
            raise UserError("stop_strings must be texts of a character or more, got an empty one.")
        if self.logprobs < 0:
            raise UserError(f"logprobs must be 0 (none) or more, got {self.logprobs}.")
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed must be 0 or more, and below 2^63, got {self.seed}.")

    def of_text(self, number: int) -> SamplingConfig:
        """For one of several texts, from 0 on: its seed is `seed + number`, or a new one."""
        return replace(self, seed=(self.seed + number - 1) % (SEEDS - 1) + 1) if self.seed else self

    def make_generator(self) -> torch.Generator:
        """Make what draws a text, from its beginning; on the CPU, as on any device."""
        generator = torch.Generator()
        if self.seed:
            return generator.manual_seed(self.seed)
        generator.seed()
        return generator


class SamplingSettings(TypedDict, total=False):
    """The fields of `SamplingConfig`, each of which may be left out; for keyword arguments."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    stop_strings: tuple[str, ...]
    logprobs: int
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
    n, of_all = min(NUCLEUS, logits.shape[1]), logits.softmax(dim=1)
    while True:  # to sort the whole vocabulary takes longer
        likeliest, ids = logits.topk(n, dim=1)
        probabilities = of_all.gather(1, ids).double()
        n_kept = (probabilities.cumsum(dim=1) - probabilities < p).sum(dim=1, keepdim=True)
        if n == logits.shape[1] or bool((n_kept < n).all()):
            last = (n_kept - 1).clamp(min=0)  # where a logit is no number, none is kept
            return logits.masked_fill(logits < likeliest.gather(1, last), EXCLUDED)
        n = min(8 * n, logits.shape[1])


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens that are at least p times as likely as the likeliest.

    >>> keep_min_p(torch.tensor([[0.5, 0.3, 0.2]]).log(), p=0.5).isinf()
    tensor([[False, False,  True]])
    """
    if p <= 0:
        return logits
    least = logits.amax(dim=1, keepdim=True) + math.log(p)
    return logits.masked_fill(logits < least, EXCLUDED)


def penalize(logits: Tensor, token_ids: Sequence[int], penalty: float) -> Tensor:
    """Make tokens less likely by `SamplingConfig.repetition_penalty`.

    Args:
        logits: (B, V).
        token_ids: which ones, each once however often it stands there.
        penalty: 1 changes nothing.

    >>> penalize(torch.tensor([[3.0, -1.0, 2.0]]), [0, 1, 0], penalty=2.0)
    tensor([[ 1.5000, -2.0000,  2.0000]])
    """
    if penalty == 1:
        return logits
    ids = torch.tensor(sorted(set(token_ids)), dtype=torch.long, device=logits.device)
    seen = logits[:, ids]
    return logits.index_copy(1, ids, torch.where(seen > 0, seen / penalty, seen * penalty))


def draw(logits: Tensor, config: SamplingConfig, generator: torch.Generator) -> Tensor:
    """Choose a token for each sequence: (B, V) -> (B,).

    One number from 0 to 1 decides each: the token in whose share of the line it falls.
    """
    if config.temperature < GREEDY_BELOW:
        return logits.argmax(dim=1)
    logits = keep_top_k(logits / config.temperature, config.top_k)
    logits = keep_min_p(keep_top_p(logits, config.top_p), config.min_p)
    ends = logits.softmax(dim=1).cumsum(dim=1, dtype=torch.float64)  # of the shares
    number = ends.new_empty(len(ends), 1).uniform_(generator=generator) * ends[:, -1:]
    return torch.searchsorted(ends, number, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
