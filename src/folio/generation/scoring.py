"""Scores a given text: what a model expected at each token.

Shapes:  T positions of a window · V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from folio.evaluation.score import strided_windows
from folio.generation.row import likeliest
from folio.generation.sampling import Mask
from folio.model.gpt import GPT


class Scored(NamedTuple):
    """A token of a text, and what the model expected in its place."""

    token_id: int
    log_probability: float | None
    """Natural logarithm, given the tokens before; None for the first, of which nothing is known."""
    alternatives: list[tuple[int, float]]
    """The likeliest tokens there, and their log-probabilities."""


def score_tokens(
    model: GPT,
    token_ids: Sequence[int],
    n_alternatives: int = 0,
    excluded: Mask | None = None,
) -> Iterator[Scored]:
    """Read a text in one block, or in windows that overlap by half where it is longer than the
    context (`evaluation.score.strided_windows`).

    Args:
        model: in evaluation mode.
        token_ids: of the text.
        n_alternatives: how many of the likeliest tokens are told.
        excluded: (V,) tokens that are not told.

    Yields:
        One for each token, in order.
    """
    yield from (Scored(token_id, None, []) for token_id in token_ids[:1])
    if len(token_ids) < 2:
        return
    text = torch.tensor(token_ids, device=model.lm_head.weight.device)
    for start, length, skip in strided_windows(len(text), model.config.context_length):
        with torch.inference_mode():
            logits = model(text[None, start : start + length])[0, skip:].float()  # (T, V)
            targets = text[start + skip + 1 : start + length + 1]
            told = logits.log_softmax(dim=1).cpu()
            of_targets = told.gather(1, targets[:, None].cpu())[:, 0]
            alternatives = [likeliest(row, n_alternatives, excluded) for row in told.numpy()]
        yield from map(Scored, targets.tolist(), of_targets.tolist(), alternatives)
