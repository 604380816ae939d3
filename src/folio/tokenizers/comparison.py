"""Vocabularies side by side on one text, and which of them to take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import numpy as np

from folio.errors import UserError
from folio.report import html_page, html_pieces, html_table
from folio.tokenizers.base import Tokenizer
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.word import WordTokenizer

N_LONGEST = 3
HEADER = [
    "tokenizer",
    "ids",
    "tokens",
    "bytes/token",
    "used",
    "median seen",
    "unknown",
    "embedding",
    "longest tokens",
]
ENOUGH_OCCURRENCES = 50
"""Assumption: a token that the text has that often can be learned."""


@dataclass(frozen=True)
class Measured:
    """What a vocabulary makes of a text that it was not made of."""

    name: str
    vocab_size: int
    tokens: int
    """Of the held-out text."""
    bytes_per_token: float
    share_of_vocabulary_used: float
    """Ids that occur in the training text, 0 to 1."""
    median_occurrences: float
    """Of an id in the training text."""
    embedding_parameters: int
    unknown_share: float
    longest_tokens: list[str]
    lossless: bool

    def record(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def measure(
    name: str, tokenizer: Tokenizer, training: str, held_out: str, d_model: int
) -> Measured:
    """Count what a vocabulary does.

    Args:
        name: how a user knows it.
        tokenizer: made from the training text, or from elsewhere.
        training, held_out: the two parts of a text.
        d_model: width of the model, for the size of its embedding.
    """
    token_ids = tokenizer.encode(held_out)
    counts = np.bincount(tokenizer.encode(training), minlength=tokenizer.vocab_size)
    special = set(tokenizer.special_tokens.values())
    ordinary = [i for i in range(tokenizer.vocab_size) if i not in special]
    seen = sorted((i for i in ordinary if counts[i]), key=lambda i: -len(tokenizer.pieces[i]))
    unknown = 0 if tokenizer.unknown is None else int((token_ids == tokenizer.unknown).sum())
    return Measured(
        name=name,
        vocab_size=tokenizer.vocab_size,
        tokens=len(token_ids),
        bytes_per_token=len(held_out.encode("utf-8")) / max(1, len(token_ids)),
        share_of_vocabulary_used=len(seen) / max(1, len(ordinary)),
        median_occurrences=float(np.median(counts[ordinary])) if ordinary else 0.0,
        embedding_parameters=tokenizer.vocab_size * d_model,
        unknown_share=unknown / max(1, len(token_ids)),
        longest_tokens=[visible(tokenizer.pieces[i]) for i in seen[:N_LONGEST]],
        lossless=tokenizer.lossless,
    )


def candidates(
    training: str, sizes: Iterable[int], pattern: str
) -> Iterator[tuple[str, Tokenizer]]:
    """Characters, byte pairs of several sizes, and words of the largest of these sizes."""
    sizes = sorted(set(sizes))
    yield "character", CharacterTokenizer.train([training])
    for size in sizes:
        tokenizer = BPETokenizer.train(
            [training], size, pattern=pattern, special_tokens=("<|endoftext|>",)
        )
        yield f"bpe {tokenizer.vocab_size}", tokenizer
        if tokenizer.note:
            break  # larger ones would be the same
    if sizes:
        yield f"word {sizes[-1]}", WordTokenizer.train([training], max(3, sizes[-1]))


def recommend(measured: list[Measured]) -> tuple[Measured, str]:
    """The one to take, and why.

    The shortest text among those that lose nothing and whose median token occurs often enough
    to be learned; characters where none does.

    Raises:
        UserError: all of them lose text.
    """
    lossless = [m for m in measured if m.lossless and not m.unknown_share]
    if not lossless:
        lossless = [m for m in measured if m.lossless]
    if not lossless:
        raise UserError("Each of these vocabularies loses text; there is none to recommend.")
    learnable = [m for m in lossless if m.median_occurrences >= ENOUGH_OCCURRENCES]
    if not learnable:
        best = min(lossless, key=lambda m: m.vocab_size)
        return best, (
            f"the text is so short that the smallest vocabulary is the best: in each larger one "
            f"half of the tokens occur fewer than {ENOUGH_OCCURRENCES} times, too few to be learned"
        )
    best = max(learnable, key=lambda m: m.bytes_per_token)
    return best, (
        f"of those that lose nothing and whose tokens occur often enough to be learned (half of "
        f"them {math.floor(best.median_occurrences):,} times or more, at least "
        f"{ENOUGH_OCCURRENCES} are needed), it makes the text shortest: "
        f"{best.bytes_per_token:.2f} bytes a token"
    )


def visible(piece: bytes) -> str:
    """A token for a table: what does not print is spelled out.

    >>> visible(b" the"), visible(b"\\n"), visible(b"\\xff")
    ('␣the', '\\\\n', '\\\\xff')
    """
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(chr(b) if 0x21 <= b < 0x7F else f"\\x{b:02x}" for b in piece)
    return "".join(
        "␣" if c == " " else c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )


def cells(measured: Iterable[Measured]) -> list[list[str]]:
    """The rows of a table under `HEADER`."""
    return [
        [
            m.name,
            f"{m.vocab_size:,}",
            f"{m.tokens:,}",
            f"{m.bytes_per_token:.2f}" if m.lossless else "-",
            f"{m.share_of_vocabulary_used:.1%}",
            f"{m.median_occurrences:,.0f}",
            f"{m.unknown_share:.1%}",
            f"{m.embedding_parameters:,}",
            "  ".join(m.longest_tokens),
        ]
        for m in measured
    ]


def page(
    measured: Sequence[Measured],
    best: Measured,
    reason: str,
    tokenizers: Mapping[str, Tokenizer],
    text: str,
) -> str:
    """The comparison as HTML: the table, the recommendation, and the text as each of them cuts it.

    Args:
        measured: the rows.
        best, reason: what `recommend` gave.
        tokenizers: by the names of the rows.
        text: to be shown in colors.
    """
    parts = [
        f"<p>Recommended: <strong>{escape(best.name)}</strong>, since {escape(reason)}.</p>",
        html_table(HEADER, cells(measured), marked=list(measured).index(best)),
        '<p class="faint">Point at a token to see its id.</p>',
    ]
    for m in sorted(measured, key=lambda m: m is not best):
        tokenizer = tokenizers[m.name]
        token_ids = tokenizer.encode(text).tolist()
        pieces = [tokenizer.pieces[token_id] for token_id in token_ids]
        names = [visible(piece) + ("\n" if piece.endswith(b"\n") else "") for piece in pieces]
        parts.append(f"<h2>{escape(m.name)}: {len(token_ids):,} tokens</h2>")
        parts.append(html_pieces((name, f"id {i}") for name, i in zip(names, token_ids)))
    return html_page("Tokenizers side by side", "\n".join(parts))
