"""Scores a given text with a model, a part of it in each step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from folio.generation.scoring import Scored, score_tokens
from folio.run.model import Model

PART = 128
"""Tokens that are told in one step."""


def read(opened: Model, token_ids: Sequence[int], n_alternatives: int) -> Iterator[list[Scored]]:
    """Read a text from front to back; windows where it is longer than the context.

    Args:
        opened: the model.
        token_ids: (T,) at least one.
        n_alternatives: tokens that are named in the place of each.

    Yields:
        Some of the T + 1 scores, in order; the last one is that of the end, where no token stands:
        only its alternatives mean something.
    """
    ids = [*token_ids, 0]
    scores = score_tokens(opened.model, ids, n_alternatives, opened.never_drawn())
    while part := list(islice(scores, PART)):
        yield part
