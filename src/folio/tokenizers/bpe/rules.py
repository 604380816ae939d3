"""What to merge in which order: the one form into which all byte-level vocabularies are
converted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Rules:
    """Pairs of ids in the order of their ranks, and the ids of the 256 bytes."""

    pairs: np.ndarray
    """(n, 2) int32: left and right id."""

    new_ids: np.ndarray
    """(n,) int32: the id that each pair is merged into."""

    byte_ids: np.ndarray
    """(256,) int32; -1 for bytes that the vocabulary lacks, which are dropped from a text."""

    whole_chunks: Mapping[bytes, int] = field(default_factory=dict)
    """Chunks that are a token as they are, whatever the merges would make of them."""

    @classmethod
    def from_merges(cls, merges: Sequence[tuple[int, int]] | np.ndarray) -> Rules:
        """Rules of a vocabulary trained here: bytes are their own ids, merge k makes 256 + k."""
        pairs = np.asarray(merges, np.int32).reshape(-1, 2)
        new_ids = np.arange(256, 256 + len(pairs), dtype=np.int32)
        return cls(pairs, new_ids, np.arange(256, dtype=np.int32))

    @cached_property
    def rank_of(self) -> dict[tuple[int, int], int]:
        """The rank of each pair; of two rules for the same pair the last one wins."""
        return {(left, right): rank for rank, (left, right) in enumerate(self.pairs.tolist())}


def encode_slowly(chunk: bytes, rules: Rules) -> list[int]:
    """The ids of one chunk, without numba: the pair of lowest rank first, the leftmost of equals.

    >>> encode_slowly(b"hugs", Rules.from_merges([(117, 103), (104, 256)]))
    [257, 115]
    """
    if chunk in rules.whole_chunks:
        return [rules.whole_chunks[chunk]]
    ids = [token_id for value in chunk if (token_id := int(rules.byte_ids[value])) >= 0]
    rank_of, no_rank = rules.rank_of, len(rules.pairs)
    while len(ids) > 1:
        pairs = pairwise(ids)
        rank, place = min((rank_of.get(pair, no_rank), k) for k, pair in enumerate(pairs))
        if rank == no_rank:
            break
        ids[place : place + 2] = [int(rules.new_ids[rank])]
    return ids
