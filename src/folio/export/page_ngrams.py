"""N-grams in a page: all n-grams of the tree in one list, level after level, in 3 to 4 bytes each.

For each n-gram there are its last token, its count, and the number of its children. Since the
children of all follow each other, those of one begin where those before it end. A number of 255 and
more stands in a list behind, in their order; `page_ngrams.js` reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.errors import UserError
from folio.export.ngrams import Counted
from folio.ngrams.table import Level, NGrams, Whole
from folio.ngrams.weights import Weights

MOST_BYTES = 25_000_000
"""Largest tree in a page, as many bytes as the largest model."""
LARGE = 255


def pack_ngrams(counted: Counted, word: str) -> tuple[dict[str, Any], bytes]:
    """Lay n-grams out as bytes, and say what a reader must know of them.

    Args:
        counted: the n-grams and their weights.
        word: how a command refers to the run.

    Raises:
        UserError: they are too large for a page.
    """
    ngrams = counted.ngrams
    kind = _kind(ngrams.vocab_size)
    tokens, counts, children = (
        np.concatenate([level[i] for level in ngrams.levels]) for i in range(3)
    )
    parts = [tokens.astype(kind), *_in_bytes(counts), *_in_bytes(children)]
    packed = b"".join(part.tobytes() for part in parts)
    if len(packed) > MOST_BYTES:
        raise UserError(
            f"The {len(ngrams):,} n-grams beside the model take {len(packed) / 1e6:.1f} MB; a page "
            f"carries {MOST_BYTES / 1e6:g} MB of them at most. Leave them out by folio export "
            f"{word} --to html --alone, or write with both by folio serve {word}."
        )
    table = {
        "vocab_size": ngrams.vocab_size,
        "sizes": [len(level.tokens) for level in ngrams.levels],
        "discounts": ngrams.discounts.tolist(),
        "weights": counted.weights._asdict(),
        "token_bytes": np.dtype(kind).itemsize,
        "large": [len(parts[2]), len(parts[4])],
    }
    return table, packed


def unpack_ngrams(table: dict[str, Any], packed: bytes) -> Counted:
    """Make n-grams again; nothing is known of the losses."""
    at, n = 0, sum(table["sizes"])

    def take(kind: Any, many: int) -> Whole:
        nonlocal at
        part = np.frombuffer(packed, kind, many, at)
        at += part.nbytes
        return part.astype(np.int64)

    def whole(n_large: int) -> Whole:
        numbers = take(np.uint8, n)
        numbers[numbers == LARGE] = take(np.uint32, n_large)
        return numbers

    arrays = [take(_kind(table["vocab_size"]), n), *map(whole, table["large"])]
    ends = np.cumsum(table["sizes"])[:-1]
    levels = [Level(*parts) for parts in zip(*(np.split(array, ends) for array in arrays))]
    ngrams = NGrams(table["vocab_size"], levels, np.array(table["discounts"]))
    return Counted(ngrams, Weights.of(table["weights"]), {})


def _kind(vocab_size: int) -> type[np.unsignedinteger[Any]]:
    """Choose the smallest type of a token."""
    return np.uint8 if vocab_size <= 1 << 8 else np.uint16 if vocab_size <= 1 << 16 else np.uint32


def _in_bytes(numbers: Whole) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Write numbers as a byte each, and those that are too large for it behind."""
    large = numbers[numbers >= LARGE]
    return np.minimum(numbers, LARGE).astype(np.uint8), large.astype(np.uint32)
