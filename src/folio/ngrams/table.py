"""The n-grams of a text: which tokens followed which, and how often.

The probability of a token after n - 1 others is a discounted count, mixed with that of the next
lower order, which does not count occurrences, but the number of different tokens before them:
modified Kneser-Ney (Chen & Goodman 1999, https://doi.org/10.1006/csla.1999.0128, section 3).

The n-grams are the nodes of a tree, of which level n has those of n tokens, and the children of a
node are the n-grams that begin with it. A text is read against all levels at once: the n-gram that
ends at a place is a child of the shorter one that ended a place before.

Where n - 2 tokens stand once, so does all that begins one token earlier and says the same: such
n-grams are left out, a third of the tree, for 0.0006 nats (docs/experiments.md).

Shapes:  N tokens of a text · B windows · T positions · V vocabulary · M n-grams of one level
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from folio.ngrams.discounts import discounts_of
from folio.storage import read_arrays, write_arrays

UNSEEN = -1
"""Stands for the node of an n-gram that is not in the tree."""

Whole = NDArray[np.integer[Any]]


class Level(NamedTuple):
    """The n-grams of n tokens, ordered by the n - 1 first ones and then by the last."""

    tokens: Whole
    """(M,) the last token of each."""
    counts: Whole
    """(M,) how often it stands in the text, on the last level; before, after how many different
    tokens it does."""
    children: Whole
    """(M,) how many n-grams of one token more begin with it; they follow each other."""


class NGrams:
    """The counted n-grams of a text, which never change."""

    def __init__(
        self, vocab_size: int, levels: Sequence[Level], discounts: NDArray[np.float64]
    ) -> None:
        """Derive the probabilities from counts.

        Args:
            vocab_size: V.
            levels: of 1 ... n tokens.
            discounts: (n, 3) of each level, for counts of 1, of 2, and of 3 and more.
        """
        self.vocab_size, self.discounts = vocab_size, discounts
        self.levels = [Level(*(part.astype(np.int32) for part in level)) for level in levels]
        root = Level(*(np.array([x]) for x in (0, 0, len(levels[0].tokens))))
        self._steps = [
            _Step(shorter.children, level, by, vocab_size)
            for shorter, level, by in zip([root, *self.levels], self.levels, discounts)
        ]
        alone = np.full((1, vocab_size), 1 / vocab_size, np.float32)
        self._steps[0].add(alone, np.zeros(1, np.int64))
        self.alone = alone[0]
        """(V,) the probability of each token where nothing before it is known."""

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # of which there is need of one

    @property
    def order(self) -> int:
        """Most tokens of an n-gram."""
        return len(self.levels)

    def __len__(self) -> int:
        return sum(len(level.tokens) for level in self.levels)

    def probabilities(self, token_ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """Predict the next token at every position from the tokens up to it.

        Args:
            token_ids: (B, T) below V; nothing is known of what stood before them.

        Returns:
            (B, T, V), which add up to 1.
        """
        ids = token_ids.astype(np.int64)
        found = np.repeat(self.alone[None], ids.size, axis=0)  # (B * T, V)
        ending = self._steps[0].find(np.zeros_like(ids), ids)  # (B, T) nodes of one token
        for step in self._steps[1:]:
            step.add(found, ending.ravel())
            before = np.full_like(ending, UNSEEN)
            before[:, 1:] = ending[:, :-1]
            ending = step.find(before, ids)
        return found.reshape(*ids.shape, -1)

    def save(self, path: Path) -> None:
        """Write the tree; `load` reads it."""
        arrays = {
            f"{name}.{n}": array.astype(np.uint32)
            for n, level in enumerate(self.levels, 1)
            for name, array in level._asdict().items()
        }
        size = np.array([self.vocab_size], np.uint32)
        write_arrays(path, {"vocab_size": size, "discounts": self.discounts, **arrays})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a tree.

        Raises:
            UserError: it is damaged.
        """
        arrays = read_arrays(path)
        levels = [
            Level(*(arrays[f"{name}.{n}"] for name in Level._fields))
            for n in range(1, len(arrays["discounts"]) + 1)
        ]
        return cls(int(arrays["vocab_size"][0]), levels, arrays["discounts"])


class _Step:
    """From the n-grams of one level to those of one token more."""

    def __init__(
        self, children: Whole, level: Level, discounts: NDArray[np.float64], vocab_size: int
    ) -> None:
        """Take the number of children of each node, and the children."""
        self.children, self.tokens, self.vocab_size = children, level.tokens, vocab_size
        self.first = (np.cumsum(children) - children).astype(np.int32)
        parents = np.repeat(np.arange(len(children)), children)
        keys = parents * vocab_size + level.tokens
        self.keys = np.append(keys, np.iinfo(np.int64).max)  # ascending, and never at the end
        taken = discounts[np.minimum(level.counts, 3) - 1]
        total = np.maximum(np.bincount(parents, level.counts, len(children)), 1)
        self.gains = ((level.counts - taken) / total[parents]).astype(np.float32)
        """(M,) of a node: its own part of the probability of its last token."""
        rests = np.bincount(parents, taken, len(children)) / total
        self.rests = rests.astype(np.float32)
        """Of a node of the level before: the weight that is left to fewer tokens."""

    def find(self, parents: Whole, tokens: Whole) -> Whole:
        """Find the children of some nodes by their tokens; UNSEEN where there is none."""
        keys = parents * self.vocab_size + tokens
        places = np.searchsorted(self.keys, keys)
        return np.where((parents >= 0) & (self.keys[places] == keys), places, UNSEEN)

    def add(self, found: NDArray[np.float32], nodes: Whole) -> None:
        """Turn (n, V) probabilities after fewer tokens into those after these (n,) nodes."""
        rows = np.flatnonzero(nodes >= 0)
        rows = rows[self.children[nodes[rows]] > 0]
        nodes = nodes[rows]
        found[rows] *= self.rests[nodes][:, None]
        n = self.children[nodes]
        within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        children = np.repeat(self.first[nodes], n) + within
        found[np.repeat(rows, n), self.tokens[children]] += self.gains[children]


def count_ngrams(tokens: NDArray[np.integer], order: int, vocab_size: int) -> NGrams:
    """Count the n-grams of a text.

    Args:
        tokens: (N,) token ids, one or more.
        order: most tokens of an n-gram, 1 or more.
        vocab_size: V.
    """
    text = np.asarray(tokens, np.int64)
    found: list[tuple[Whole, Whole]] = []  # of each level: keys, and how often each was counted
    left_out: list[int] = []
    inner = nodes = np.zeros(len(text), np.int32)  # the n-grams of two shorter levels at each place
    inner_often = often = np.ones(1, np.bool_)  # of each of them: stands more than once
    for n in range(1, order + 1):
        places = np.arange(n - 1, len(text))  # where an n-gram ends
        if n > 2:  # without its first and its last token
            places = places[inner_often[inner[places - 1]]]
        parents = nodes[places - 1].astype(np.int64) if n > 1 else 0
        keys, which, counts = np.unique(
            parents * vocab_size + text[places], return_inverse=True, return_counts=True
        )
        ending = np.full(len(text), UNSEEN, np.int32)
        ending[places] = which
        if n > 1:
            shorter, _ = found[-1]
            found[-1] = shorter, _tokens_before(nodes[n - 1 :], ending[n - 1 :], len(shorter))
        found.append((keys, counts))
        left_out.append(max(len(text) - n + 1, 0) - len(places))  # each stands once
        inner, nodes = nodes, ending
        inner_often, often = often, np.append(counts > 1, False)  # at the end for UNSEEN
    levels, discounts = list[Level](), list[Any]()
    for n, (keys, counts) in enumerate(found, 1):
        ones, twos, threes, fours = (int((counts == k).sum()) for k in (1, 2, 3, 4))
        discounts.append(discounts_of(ones + left_out[n - 1], twos, threes, fours))
        parents = found[n][0] // vocab_size if n < order else np.zeros(0, np.int64)
        levels.append(Level(keys % vocab_size, counts, np.bincount(parents, minlength=len(keys))))
    return NGrams(vocab_size, levels, np.array(discounts))


def _tokens_before(nodes: NDArray[np.int32], longer: NDArray[np.int32], n_nodes: int) -> Whole:
    """(n_nodes,) before each n-gram how many different tokens stand.

    Args:
        nodes: the n-gram that ends at each place that has something before it.
        longer: the same of one token more; one that is left out stands once.
        n_nodes: number of n-grams.
    """
    end_of = np.zeros(longer.max(initial=UNSEEN) + 1, np.int64)
    end_of[longer[longer >= 0]] = nodes[longer >= 0]
    once = nodes[(longer < 0) & (nodes >= 0)]
    different = np.bincount(end_of, minlength=n_nodes) + np.bincount(once, minlength=n_nodes)
    return np.maximum(different, 1)
