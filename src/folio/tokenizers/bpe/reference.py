"""Byte-pair encoding, written to be read: the oracle of the compiled one, and its stand-in
without numba.

Start from the 256 bytes. Repeatedly find the most frequent pair of neighbours, and give it a new
id. The list of pairs in the order in which they were found, the *merges*, is all there is to learn;
new text is encoded by applying them in that order.

    In:   h u g   h u g   p u g          (u, g) occurs 3 times: merge 0
    then  h ug    h ug    p ug           (h, ug) occurs 2 times: merge 1
    then  hug     hug     p ug

Text is first cut into chunks (`patterns`), and no merge crosses a cut.

Ties: of equally frequent pairs, the one with the smallest (left id, right id) is merged. Ids are
given by the value of a byte and the order of the merges, so the order of the text does not matter.

Source: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909, algorithm 1; bytes instead of
characters: Radford et al. 2019 (GPT-2), section 2.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

Pair = tuple[int, int]


def count_chunks(chunks: Iterable[str]) -> Counter[tuple[int, ...]]:
    """Count chunks, each a tuple of its bytes.

    >>> count_chunks(["hug", "pug", "hug"])
    Counter({(104, 117, 103): 2, (112, 117, 103): 1})
    """
    return Counter(tuple(chunk.encode("utf-8", "surrogatepass")) for chunk in chunks)


def count_pairs(chunk_counts: Mapping[tuple[int, ...], int]) -> Counter[Pair]:
    """Count pairs of neighbours; overlapping ones count: aaa has two.

    >>> count_pairs({(7, 7, 7): 10, (5, 7, 7): 1})
    Counter({(7, 7): 21, (5, 7): 1})
    """
    counts: Counter[Pair] = Counter()
    for token_ids, count in chunk_counts.items():
        for pair in pairwise(token_ids):
            counts[pair] += count
    return counts


def merge(token_ids: Sequence[int], pair: Pair, new_id: int) -> tuple[int, ...]:
    """Replace each occurrence of the pair, from left to right.

    >>> merge((5, 7, 7, 7, 2), (7, 7), 9)
    (5, 9, 7, 2)
    """
    merged, i = [], 0
    while i < len(token_ids):
        if tuple(token_ids[i : i + 2]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(token_ids[i])
            i += 1
    return tuple(merged)


def learn_merges(chunk_counts: Mapping[tuple[int, ...], int], n_merges: int) -> list[Pair]:
    """Learn the merges, in order: merge k makes the id 256 + k. There are fewer of them when the
    text has no more pairs.

    >>> words = ["hug"] * 10 + ["pug"] * 5 + ["pun"] * 12 + ["bun"] * 4 + ["hugs"] * 5
    >>> learn_merges(count_chunks(words), 3) == [tuple(b"ug"), tuple(b"un"), (ord("h"), 256)]
    True
    """
    merges: list[Pair] = []
    while len(merges) < n_merges and (pair_counts := count_pairs(chunk_counts)):
        pair = min(pair_counts, key=lambda pair: (-pair_counts[pair], pair))
        merged: Counter[tuple[int, ...]] = Counter()
        for token_ids, count in chunk_counts.items():
            merged[merge(token_ids, pair, 256 + len(merges))] += count
        merges.append(pair)
        chunk_counts = merged
    return merges


def encode(token_ids: Sequence[int], merges: Sequence[Pair]) -> list[int]:
    """Apply the merges to one chunk: always the earliest learned one that applies, everywhere,
    until none does.

    >>> encode(b"hugs", [(117, 103), (104, 256)])
    [257, 115]
    """
    rank_of = {pair: rank for rank, pair in enumerate(merges)}
    ids = tuple(token_ids)
    while pairs := [pair for pair in pairwise(ids) if pair in rank_of]:
        pair = min(pairs, key=lambda pair: rank_of[pair])
        ids = merge(ids, pair, 256 + rank_of[pair])
    return list(ids)


def token_bytes(merges: Sequence[Pair]) -> list[bytes]:
    """The bytes of each id of a byte-level vocabulary; decoding joins them.

    >>> vocabulary = token_bytes([(117, 103), (104, 256)])
    >>> b"".join(vocabulary[token_id] for token_id in [257, 115])
    b'hugs'
    """
    vocabulary = [bytes([value]) for value in range(256)]
    for left, right in merges:
        vocabulary.append(vocabulary[left] + vocabulary[right])
    return vocabulary
