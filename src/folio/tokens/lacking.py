"""What a vocabulary lacks of a text, as lines for the user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.errors import UserError
from folio.tokenizers.base import Tokenizer

MANY_UNKNOWN = 0.001
"""Share of the validation tokens that are unknown above which the user is warned; in a text of
characters a rare one or two always are."""


def lacking(counts: dict[str, Any], vocabulary: object, kinds: str = "") -> Iterator[str]:
    """Lines about what is lost of a text.

    Args:
        counts: the entry `tokens` of corpus.json, or of a store's index.json. One about which the
            vocabulary needs no question has no `lost_bytes` and `unknown_in_training`.
        vocabulary: what the user calls it.
        kinds: the characters that it lacks, in words.
    """
    lost, of = counts.get("lost_bytes", (0, 0))
    if lost:
        yield (
            f"{lost:,} of {of:,} bytes of the text ({lost / of:.1%}) are not in the vocabulary of "
            f"{vocabulary}. They are left out, and never written."
        )
    n_unknown, n_tokens = counts.get("unknown_in_training", 0), counts["training"]
    if n_unknown:
        yield (
            f"{n_unknown:,} of {n_tokens:,} training tokens ({n_unknown / n_tokens:.1%}) are "
            f"unknown to the vocabulary of {vocabulary}{kinds}. They are read as <unk>, which is "
            f"never written."
        )
    n_unknown, n_tokens = counts["unknown_in_validation"], counts["validation"]
    if n_unknown > MANY_UNKNOWN * n_tokens:
        yield (
            f"{n_unknown:,} of {n_tokens:,} validation tokens are unknown "
            f"({n_unknown / n_tokens:.1%}): the vocabulary does not have them."
        )


def unknown_in(occurrences: NDArray[np.int64], tokenizer: Tokenizer, vocabulary: object) -> int:
    """Number of unknown tokens in a training text.

    Args:
        occurrences: (V,) how often each token occurs in it.
        tokenizer: the vocabulary.
        vocabulary: what the user calls it.

    Raises:
        UserError: all of them are, apart from other special tokens.
    """
    if tokenizer.unknown is None or not (n := int(occurrences[tokenizer.unknown])):
        return 0
    ordinary = np.delete(occurrences, list(tokenizer.special_tokens.values()))
    if not ordinary.any():
        raise UserError(
            f"All {n:,} training tokens are unknown to the vocabulary of {vocabulary}. There is "
            f"nothing left to learn: train this text from scratch, with a vocabulary of its own."
        )
    return n
