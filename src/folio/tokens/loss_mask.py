"""Which tokens count in the loss: in conversations the answers and their ends, in other text all.

    <|user|> Why ? <|end|> <|assistant|> Rain . <|end|> <|endoftext|> Once upon ...
        0     0  0    0          0         1  1    1          0          1   1

The mask is stored beside the tokens from which it is derived, one byte each: train.mask.bin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folio.tokenizers.base import CHAT_TOKENS, TokenIds, Tokenizer
from folio.tokens.token_file import open_token_file, write_token_file

LossMask = NDArray[np.uint8]
"""(N,) 1 for each token that counts, 0 for the others."""

CHUNK_TOKENS = 1 << 20
SHOWN_TOKENS, SHOWN_CHARACTERS = 400, 400
"""Longest example that is shown."""


def loss_mask(token_ids: TokenIds, tokenizer: Tokenizer) -> Iterator[LossMask]:
    """Compute the mask of some tokens, (n,) at a time.

    Args:
        token_ids: (N,) ids that begin with the beginning of a document.
        tokenizer: a vocabulary with CHAT_TOKENS.
    """
    names = (None, *CHAT_TOKENS, tokenizer.end_name)
    kinds = np.zeros(tokenizer.vocab_size, np.int8)
    for kind, name in enumerate(names):
        if name in tokenizer.special_tokens:
            kinds[tokenizer.special_tokens[name]] = kind
    user, assistant, between = 1, 2, 4
    last = between
    for first in range(0, len(token_ids), CHUNK_TOKENS):
        here = kinds[token_ids[first : first + CHUNK_TOKENS]]
        where = np.maximum.accumulate(np.where(here > 0, np.arange(len(here)), -1))
        before = np.concatenate([[last], np.where(where < 0, last, here[where])])
        last = int(before[-1])
        before = before[:-1]  # the last mark before each token
        counted = (before == assistant) | (before == between)
        yield (counted & (here != user) & (here != assistant)).astype(np.uint8)


def write_loss_mask(tokens_file: Path, mask_file: Path, tokenizer: Tokenizer) -> None:
    """Write the mask of a token file."""
    tokens = open_token_file(tokens_file, tokenizer.fingerprint)
    masks = loss_mask(tokens.view(np.ndarray), tokenizer)
    write_token_file(mask_file, masks, np.dtype(np.uint8), tokenizer.fingerprint)


def open_loss_masks(files: Mapping[str, Path], fingerprint: str) -> dict[str, LossMask]:
    """Memory-map the masks of some texts; a text without one, all of which counts, is left out.

    Args:
        files: the mask file of each text, which need not exist.
        fingerprint: sha256 of the tokenizer.
    """
    there = {name: path for name, path in files.items() if path.exists()}
    return {
        name: open_token_file(path, fingerprint).view(np.ndarray) for name, path in there.items()
    }


def example(token_ids: TokenIds, mask: LossMask, tokenizer: Tokenizer) -> str:
    """The first conversation of a text in one line, with what counts in brackets."""
    begins = np.isin(token_ids, [tokenizer.special_tokens[name] for name in CHAT_TOKENS[:2]])
    first = int(begins.argmax())
    ids, counts = (x[first : first + SHOWN_TOKENS] for x in (np.asarray(token_ids), mask))
    ends = np.flatnonzero(ids == tokenizer.end_of_document)
    if len(ends):
        ids, counts = ids[: ends[0]], counts[: ends[0]]
    cuts = [0, *(np.flatnonzero(np.diff(counts)) + 1).tolist(), len(ids)]
    shown = ""
    for start, stop in pairwise(cuts):
        text = tokenizer.decode(ids[start:stop]).replace("\n", "\\n")
        shown += f"\u27e6{text}\u27e7" if counts[start] else text
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]} ..."
