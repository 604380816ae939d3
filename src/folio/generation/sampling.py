"""From logits to the next token: pure functions of numpy, so that a text needs no torch to begin.

Shapes:  V vocabulary
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from folio.errors import UserError

EXCLUDED = float("-inf")
GREEDY_BELOW = 1e-6
"""Temperatures that take the likeliest token: logits divided by less might not be finite."""
LARGEST = float(np.finfo(np.float32).max)
SEEDS = 2**63
NUCLEUS = 64
"""So many of the likeliest tokens are looked at first."""
BLOCK = 256
"""Number of probabilities that are summed together."""

Logits = NDArray[np.float32]
"""(V,) of one text."""
Mask = NDArray[np.bool_]
"""(V,) of tokens that are never drawn."""


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

    logprobs: int | None = None
    """Tell the log-probability of each token, and so many of the likeliest tokens in its place;
    None tells none."""

    seed: int = 0
    """Equal seeds give equal texts; 0 takes a new seed each time."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature must be 0 (greedy) or more, got {self.temperature}.")
        if self.top_k < 0:
            raise UserError(f"top_k must be 0 (all tokens) or more, got {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise UserError(
                f"top_p must be above 0 and at most 1, got {self.top_p}. "
                f"For the likeliest token alone give temperature 0."
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
        if self.logprobs is not None and self.logprobs < 0:
            raise UserError(f"logprobs must be 0 or more, or None, got {self.logprobs}.")
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed must be 0 or more, and below 2^63, got {self.seed}.")

    def of_text(self, number: int) -> SamplingConfig:
        """The config of text `number`, counted from 0: its seed is `seed + number`, or a
        new one.
        """
        return replace(self, seed=(self.seed + number - 1) % (SEEDS - 1) + 1) if self.seed else self

    def make_generator(self) -> random.Random:
        """Make what draws a text, from its beginning."""
        return random.Random(self.seed or secrets.randbits(64))


class SamplingSettings(TypedDict, total=False):
    """The fields of `SamplingConfig`, each of which may be left out; for keyword arguments."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    stop_strings: tuple[str, ...]
    logprobs: int | None
    seed: int


def exclude(logits: Logits, excluded: Mask | None) -> Logits:
    """Make some tokens impossible."""
    return logits if excluded is None else np.where(excluded, np.float32(EXCLUDED), logits)


def keep_top_k(logits: Logits, k: int) -> Logits:
    """Make all but the k likeliest impossible; ties with the k-th stay.

    >>> keep_top_k(np.float32([1, 3, 2]), k=2).tolist()
    [-inf, 3.0, 2.0]
    """
    if not 0 < k < len(logits):
        return logits
    return exclude(logits, logits < np.partition(logits, -k)[-k])


def keep_top_p(logits: Logits, p: float) -> Logits:
    """Keep the likeliest tokens until their probabilities reach p.

    A token stays if those likelier than it have less than p together, so that the
    likeliest always stays, and stays alone where it exceeds p.

    >>> keep_top_p(np.log(np.float32([0.5, 0.3, 0.2])), p=0.6) > EXCLUDED
    array([ True,  True, False])
    """
    if p >= 1:
        return logits
    n, enough = min(NUCLEUS, len(logits)), p * exponentials(logits).sum(dtype=np.float64)
    while True:  # to sort the whole vocabulary takes longer
        likeliest = np.sort(np.partition(logits, -n)[-n:])[::-1]
        weights = exponentials(likeliest.astype(np.float64))
        n_kept = int((weights.cumsum() - weights < enough).sum())
        if n == len(logits) or n_kept < n:
            # Where a logit is not a number, none is kept.
            return exclude(logits, logits < likeliest[max(n_kept - 1, 0)])
        n = min(8 * n, len(logits))


def keep_min_p(logits: Logits, p: float) -> Logits:
    """Keep tokens that are at least p times as likely as the likeliest.

    >>> keep_min_p(np.log(np.float32([0.5, 0.3, 0.2])), p=0.5) > EXCLUDED
    array([ True,  True, False])
    """
    return logits if p <= 0 else exclude(logits, logits < logits.max() + np.float32(math.log(p)))


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def penalize(logits: Logits, token_ids: Sequence[int], penalty: float) -> Logits:
    """Make tokens less likely by `SamplingConfig.repetition_penalty`.

    Args:
        logits: (V,).
        token_ids: which ones, each once however often it stands there.
        penalty: 1 changes nothing.

    >>> penalize(np.float32([3, -1, 2]), [0, 1, 0], penalty=2.0).tolist()
    [1.5, -2.0, 2.0]
    """
    if penalty == 1:
        return logits
    ids = np.unique(np.array(token_ids, np.int64))
    seen, penalized = logits[ids], logits.copy()
    penalized[ids] = np.where(seen > 0, seen / penalty, seen * penalty)
    return penalized


@np.errstate(invalid="ignore")  # of a model that diverged
def exponentials(logits: NDArray[Any]) -> NDArray[Any]:
    """Probabilities up to a factor; the likeliest token has 1."""
    return np.exp(logits - logits.max())


@np.errstate(invalid="ignore")
def log_probabilities(logits: Logits) -> Logits:
    """Natural logarithms of the probabilities of all tokens."""
    shifted = logits - logits.max()
    return shifted - np.float32(np.log(np.exp(shifted).sum(dtype=np.float64)))


def draw(logits: Logits, config: SamplingConfig, generator: random.Random) -> int:
    """Choose a token by one number from 0 to 1: the one in whose share of the line it falls."""
    if config.temperature < GREEDY_BELOW:
        return int(logits.argmax())
    logits = keep_top_k(logits / np.float32(min(config.temperature, LARGEST)), config.top_k)
    logits = keep_min_p(keep_top_p(logits, config.top_p), config.min_p)
    return find_share(exponentials(logits).astype(np.float64), generator.random())


def find_share(weights: NDArray[np.float64], number: float) -> int:
    """Find where a number from 0 to 1 falls on a line whose parts have such weights; never on one
    of weight 0.

    >>> [find_share(np.array([0.0, 1.0, 3.0, 0.0]), x) for x in (0.0, 0.2, 0.3, 1.0)]
    [1, 1, 2, 2]
    """
    # By blocks, since to add numbers up one after the other takes longer than to make them.
    sums = np.add.reduceat(weights, np.arange(0, len(weights), BLOCK))
    ends = sums.cumsum()
    number *= float(ends[-1])
    block = _first_behind(ends, number)
    number -= float(ends[block] - sums[block])
    inside = weights[block * BLOCK : (block + 1) * BLOCK].cumsum()
    return block * BLOCK + _first_behind(inside, number)


def _first_behind(ends: NDArray[np.float64], number: float) -> int:
    """The first that is larger than a number, or else the first that is as large as the last."""
    return int(min(ends.searchsorted(number, side="right"), ends.searchsorted(ends[-1])))
