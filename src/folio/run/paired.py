"""Whether two models differ, on a held-out text that both were measured on.

The texts are the same for both, so that what makes a text hard cancels out: the error of the
difference is far smaller than that of either loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.uncertainty import FEWEST_BLOCKS, ratio_error
from folio.run.held_out import counted_targets
from folio.run.model import Model
from folio.tokenizers.base import TokenIds

SURE = 2.0
"""Standard errors beyond which a difference is said to be one."""


@dataclass(frozen=True)
class Paired:
    """The loss of a second model minus that of a first one, on the same text."""

    difference: float
    standard_error: float
    """Of the difference, over texts."""
    texts: int
    """Number of texts, or of stretches of long ones."""
    unit: str

    @property
    def differ(self) -> bool:
        """Whether chance alone would hardly do this."""
        return abs(self.difference) > SURE * self.standard_error

    def in_words(self, first: str, second: str) -> str:
        """Say which of two models is better, by their names."""
        size = f"{abs(self.difference):.4f} ± {self.standard_error:.4f} {self.unit}"
        where = f"paired over {self.texts} texts that both hold out"
        if not self.differ:
            return f"{first} and {second} cannot be told apart: {size}, {where}"
        better, worse = (second, first) if self.difference < 0 else (first, second)
        return f"{better} is better than {worse} by {size}, {where}"


def compare(first: Model, second: Model) -> Paired | None:
    """Read the validation text with both models; None if they held out different texts.

    Models with one vocabulary are compared by token, others by byte.
    """
    texts = [np.asarray(opened.validation()) for opened in (first, second)]
    same = first.tokenizer.fingerprint == second.tokenizer.fingerprint
    if same and not np.array_equal(texts[0], texts[1]):
        return None
    if not same and not _one_text(first, second, texts):
        return None
    lengths = [opened.tokenizer.bytes_per_token[t] for opened, t in zip((first, second), texts)]
    begin = max(int(of[0]) for of in lengths)  # the first token is no target
    families, nats, sizes = first.run.families("validation"), list[Any](), list[Any]()
    for opened, tokens, length in zip((first, second), texts, lengths):
        starts = np.cumsum(length) - length  # (N,) first byte of each token
        blocks = _blocks(tokens, opened.tokenizer.end_of_document, families, starts)[1:]
        counted = counted_targets(opened, "validation")
        kept = (starts[1:] >= begin) & (True if counted is None else counted)
        nats.append(np.bincount(blocks, opened.score(tokens)[1] * kept))
        sizes.append(np.bincount(blocks, kept if same else length[1:] * kept))
    difference = nats[1] - nats[0]
    scale = 1.0 if same else 1 / math.log(2)
    return Paired(
        float(difference.sum() / sizes[0].sum()) * scale,
        ratio_error(difference, sizes[0]) * scale,
        int(np.count_nonzero(sizes[0])),
        "nats per token" if same else "bits per byte",
    )


def _one_text(first: Model, second: Model, texts: list[TokenIds]) -> bool:
    """Whether tokens of two vocabularies spell the same bytes, and lose none."""
    spelled = list[bytes]()
    for opened, tokens in zip((first, second), texts):
        tokenizer = opened.tokenizer
        if not tokenizer.lossless or (tokens == tokenizer.unknown).any():
            return False
        spelled.append(tokenizer.decode_bytes(tokens, skip_special=True))
    return spelled[0] == spelled[1]


def _blocks(
    tokens: TokenIds, end: int | None, families: Sequence[int], starts: NDArray[Any]
) -> NDArray[np.int64]:
    """(N,) the text of each token: a family of documents, or a stretch of a long one, measured in
    bytes, so that they are the same for every vocabulary.

    Args:
        tokens: (N,) documents with `end` between them.
        end: the token that ends a document, if there is one.
        families: the family of each document; if empty, each is its own.
        starts: (N,) the first byte of each token.
    """
    ends = (tokens == end).astype(np.int64) if end is not None else np.zeros(len(tokens), np.int64)
    document = np.cumsum(ends) - ends  # the separator belongs to the document before it
    if len(families) == ends.sum() + 1:
        document = np.asarray(families, np.int64)[document]
    if len(np.unique(document)) < FEWEST_BLOCKS:
        stretch = starts * FEWEST_BLOCKS // (int(starts[-1]) + 1)
        document = document * FEWEST_BLOCKS + stretch
    return document
