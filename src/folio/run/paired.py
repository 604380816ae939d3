"""Whether two models differ, on a held-out text that both were measured on.

The texts are the same for both, so that what makes a text hard cancels out: the error of the
difference is far smaller than that of either loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.console import amount
from folio.evaluation.uncertainty import FEWEST_BLOCKS, SURE, ratio_error, text_families
from folio.run.held_out import counted_targets
from folio.run.model import Model
from folio.tokenizers.base import TokenIds


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
        where = f"paired over {amount(self.texts, 'text')} that both hold out"
        if not self.differ:
            return f"{first} and {second} cannot be told apart: {size}, {where}"
        better, worse = (second, first) if self.difference < 0 else (first, second)
        return f"{better} is better than {worse} by {size}, {where}"


class Reading:
    """A model and the validation text that its run holds out. Each thing is found out once, when it
    is first asked for, however many others it is compared with.
    """

    def __init__(self, opened: Model) -> None:
        self.opened, self.tokenizer = opened, opened.tokenizer
        self._nll: dict[int, NDArray[np.float32]] = {}

    @cached_property
    def tokens(self) -> TokenIds:
        """(N,) the text."""
        return np.asarray(self.opened.validation())

    @cached_property
    def n_bytes(self) -> NDArray[Any]:
        """(N,) what each token spells, in bytes."""
        return self.tokenizer.bytes_per_token[self.tokens]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(N + 1,) first byte of each token, and behind the last one the bytes of all."""
        return np.concatenate(([0], np.cumsum(self.n_bytes, dtype=np.int64)))

    @cached_property
    def counted(self) -> NDArray[np.bool_] | bool:
        """(N - 1,) which targets count."""
        counted = counted_targets(self.opened, "validation")
        return True if counted is None else counted

    def nll(self, sample: int) -> NDArray[np.float32]:
        """(N - 1,) nats of each target; nan where it is not among a sample, 0 being all."""
        if sample not in self._nll:
            self._nll[sample] = self.opened.nats(self.tokens, sample=sample)
        return self._nll[sample]

    @cached_property
    def spelled(self) -> bytes | None:
        """The text in bytes; None if the tokens lose some of it."""
        if not self.tokenizer.lossless or (self.tokens == self.tokenizer.unknown).any():
            return None
        return self.tokenizer.decode_bytes(self.tokens, skip_special=True)


def compare(first: Reading, second: Reading) -> Paired | None:
    """Compare the losses of two models; None if they held out different texts.

    Models with one vocabulary are compared by token, others by byte. Of a long text models with one
    vocabulary and one length of context read the same windows, as much as takes a few minutes.
    """
    same = first.tokenizer.fingerprint == second.tokenizer.fingerprint
    if same and not np.array_equal(first.tokens, second.tokens):
        return None
    if not same and (first.spelled is None or first.spelled != second.spelled):
        return None
    begin = max(int(first.n_bytes[0]), int(second.n_bytes[0]))  # the first token is no target
    families, read = first.opened.run.families("validation"), list[Any]()
    length = first.opened.config.context_length
    alike = same and length == second.opened.config.context_length
    most = min(first.opened.read_in_minutes, second.opened.read_in_minutes)
    sample = most if alike and len(first.tokens) > most else 0
    for of in (first, second):
        nll = of.nll(sample)
        blocks = _blocks(of.tokens, of.tokenizer.end_of_document, families, of.starts)[1:]
        kept = (of.starts[1:-1] >= begin) & of.counted & ~np.isnan(nll)
        sizes = kept if same else of.n_bytes[1:] * kept
        read.append((blocks, np.where(kept, nll, 0.0), sizes))
    n_blocks = max(int(blocks.max()) for blocks, *_ in read) + 1
    nats, sizes = ([np.bincount(blocks, of[i], n_blocks) for blocks, *of in read] for i in range(2))
    difference = nats[1] - nats[0]
    scale = 1.0 if same else 1 / math.log(2)
    return Paired(
        float(difference.sum() / sizes[0].sum()) * scale,
        ratio_error(difference, sizes[0]) * scale,
        int(np.count_nonzero(sizes[0])),
        "nats per token" if same else "bits per byte",
    )


def _blocks(
    tokens: TokenIds, end: int | None, families: Sequence[int], starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(N,) the text of each token: a family of documents, or a stretch of a long one, measured in
    bytes, so that they are the same for every vocabulary, but for a token on the edge of two.

    Args:
        tokens: (N,) documents with `end` between them.
        end: the token that ends a document, if there is one.
        families: the family of each document; if empty, each is its own.
        starts: (N + 1,) first byte of each token, and behind the last one the bytes of all.
    """
    document = text_families(tokens, end, families)
    if len(np.unique(document)) < FEWEST_BLOCKS:
        stretch = starts[:-1] * FEWEST_BLOCKS // max(int(starts[-1]), 1)
        document = document * FEWEST_BLOCKS + stretch
    return document
