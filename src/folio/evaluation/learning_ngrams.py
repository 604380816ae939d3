"""Modified Kneser-Ney n-grams over token ids that learn from each token as it is read, compiled.

The model is the `adaptive` one of `ngrams.py`, as the tree of `folio.ngrams`: a context is a node,
and the tokens that followed it are its children, which are contexts of one token more. The node of
n tokens that ends at a place is the child of the one of n - 1 tokens that ended a place before, so
a text is read against all orders at once. What precedes the text is a context that has no name.

A prediction is asked for one token alone: of the children of its contexts only the number of
leading bits counts that their ids share with it, see `token_bits.py`.

Shapes:  n tokens · V vocabulary
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.token_bits import LARGEST, n_bits
from folio.jit import kernel
from folio.ngrams.discounts import discounts_of

ORDER = 9
_MIX, _OTHER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x94D049BB133111EB)
_HALF = np.uint64(32)

COUNT, FIRST, NEXT, PARENT, TOKEN = 0, 1, 2, 3, 4
"""Columns of the nodes: how often the n-gram was counted, its first child, its next sibling, its
context and its last token. 0 where there is none, since the root is nobody's child."""


class LearningNGrams:
    """The n-grams of what was read so far."""

    def __init__(self, vocab_size: int, n_tokens: int, order: int = ORDER) -> None:
        """Begin with an empty tree.

        Args:
            vocab_size: V.
            n_tokens: most that are read; some 100 bytes for each, 240 where no n-gram repeats.
            order: n of the longest n-grams.
        """
        self.vocab_size, self.order = vocab_size, order
        most = order * (n_tokens + 1)
        self.nodes = np.zeros((most, 5), np.int32)  # pages that stay empty take no memory
        self.slots = np.zeros(1 << (3 * most // 2).bit_length(), np.int32)
        self.contexts = np.arange(order)
        """(order,) the nodes that ended at the last place, of 0, 1, ... tokens."""
        self.of_counts = np.zeros((order, 5), np.int64)
        """How many n-grams of each order have the count 1, 2, 3, 4."""
        self.n_nodes = np.array([order])

    def learn(self, token_ids: NDArray[np.integer]) -> None:
        """Count (n,) tokens that follow those read before."""
        _learn(token_ids.astype(np.int64), 0, len(token_ids), self._tree())

    def predict(self, token_ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """Read (n,) tokens, of each before learning from it the log-odds (n, bits) that each of its
        bits is 1. The discounts are those of what was read before.
        """
        discounts = np.array([discounts_of(*row[1:]) for row in self.of_counts.tolist()])
        odds = np.zeros((len(token_ids), n_bits(self.vocab_size)), np.float32)
        _predict(token_ids.astype(np.int64), self.vocab_size, discounts, self._tree(), odds)
        return odds

    def _tree(self):
        return self.nodes, self.slots, self.contexts, self.of_counts, self.n_nodes


@kernel(inner=True)
def _child(nodes, slots, n_nodes, parent, token):
    """The child of a node by a token, which is made if there is none."""
    key = np.uint64(parent) * _MIX + np.uint64(token) * _OTHER
    mask = np.uint64(len(slots) - 1)
    slot = (key ^ key >> _HALF) * _MIX >> _HALF & mask
    while slots[slot]:
        node = slots[slot]
        if nodes[node, PARENT] == parent and nodes[node, TOKEN] == token:
            return np.int64(node)
        slot = (slot + np.uint64(1)) & mask
    node = n_nodes[0]
    n_nodes[0] += 1
    slots[slot] = node
    nodes[node, PARENT], nodes[node, TOKEN] = parent, token
    nodes[node, NEXT] = nodes[parent, FIRST]
    nodes[parent, FIRST] = node
    return node


@kernel()
def _learn(token_ids, begin, end, tree):
    """Count what ends at each place, the longest n-gram first, down to the first that is not new:
    a shorter one counts different tokens before it, not occurrences.
    """
    nodes, slots, contexts, of_counts, n_nodes = tree
    order = len(contexts)
    ending = np.zeros(order + 1, np.int64)
    for i in range(begin, end):
        token = token_ids[i]
        for n in range(order):
            ending[n + 1] = _child(nodes, slots, n_nodes, contexts[n], token)
        for n in range(order - 1, -1, -1):
            before = nodes[ending[n + 1], COUNT]
            nodes[ending[n + 1], COUNT] = before + 1
            if 0 < before < 5:
                of_counts[n, before] -= 1
            if before < 4:
                of_counts[n, before + 1] += 1
            if before:
                break
        contexts[1:] = ending[1:order]


@kernel()
def _predict(token_ids, vocab_size, discounts, tree, odds):
    n, bits = odds.shape
    mass, kept = np.zeros(bits + 1), np.zeros(bits + 1)
    for i in range(n):
        token = token_ids[i]
        _even(token, vocab_size, mass)
        for context, by in zip(tree[2], discounts):
            if tree[0][context, FIRST] == 0:
                break
            _add(tree[0], context, by, token, mass, kept)
        for d in range(bits):
            one, other = mass[d + 1], mass[d] - mass[d + 1]
            if token >> (bits - 1 - d) & 1 == 0:
                one, other = other, one
            odds[i, d] = min(max(np.log(one / other), -LARGEST), LARGEST)
        _learn(token_ids, i, i + 1, tree)


@kernel(inner=True)
def _even(token, vocab_size, mass):
    """The share of ids that have the first 0, 1, ... bits of a token."""
    bits = len(mass) - 1
    for d in range(bits + 1):
        first = token >> (bits - d) << (bits - d)
        mass[d] = (min(first + (1 << (bits - d)), vocab_size) - first) / vocab_size


@kernel(inner=True)
def _add(nodes, context, by, token, mass, kept):
    """Turn masses after fewer tokens into those after a context."""
    bits = len(mass) - 1
    kept[:] = 0.0
    total, taken = 0, 0.0
    node = nodes[context, FIRST]
    while node:
        count = nodes[node, COUNT]
        discount = by[min(count, 3) - 1]
        shared, differ = bits, nodes[node, TOKEN] ^ token
        while differ:
            differ >>= 1
            shared -= 1
        kept[shared] += count - discount
        total += count
        taken += discount
        node = nodes[node, NEXT]
    for d in range(bits - 1, -1, -1):
        kept[d] += kept[d + 1]
    for d in range(bits + 1):
        mass[d] = (kept[d] + taken * mass[d]) / total
