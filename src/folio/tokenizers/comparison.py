"""Compares vocabularies on one text, and recommends one.

A larger vocabulary makes the text shorter, so that a model reads more of it in the same time; but
its head has more to compute, and each id is seen less often. Measured at equal time
(docs/experiments.md), the shorter text won although each step took up to four times as long, until
half of the ids occurred too rarely to be learned. So among lossless vocabularies whose median id
occurs often enough, the one that makes the text shortest is recommended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import numpy as np

from folio.console import percent
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
    "MFLOP/byte",
    "longest tokens",
]
ENOUGH_OCCURRENCES = 4
"""How often the median id must occur in the training text. Measured: with 4 a vocabulary was still
the best, with 2 it was worse than a smaller one."""


@dataclass(frozen=True)
class Measured:
    """What a vocabulary makes of a text that it was not trained on."""

    name: str
    vocab_size: int
    tokens: int
    """Tokens of the held-out text."""
    bytes_per_token: float
    share_of_vocabulary_used: float
    """Share of the ids that occur in the training text, 0 to 1."""
    median_occurrences: float
    """Occurrences in the training text of the median id among those that occur: unused bytes do no
    harm."""
    embedding_parameters: int
    flops_per_byte: float
    """Training cost per byte of text: 6 operations per parameter and token (Kaplan et al. 2020,
    https://arxiv.org/abs/2001.08361, section 2.1)."""
    unknown_share: float
    longest_tokens: list[str]
    lossless: bool

    def record(self) -> dict[str, Any]:
        """Return the entry for --json."""
        return asdict(self)


def measure(
    name: str, tokenizer: Tokenizer, training: str, held_out: str, d_model: int, n_body: int
) -> Measured:
    """Measure one vocabulary.

    Args:
        name: what the user calls it.
        tokenizer: trained on the training text, or loaded.
        training, held_out: the two parts of a text.
        d_model: width of the model.
        n_body: parameters of the model without the embedding, which is also the head.
    """
    token_ids = tokenizer.encode(held_out)
    counts = np.bincount(tokenizer.encode(training), minlength=tokenizer.vocab_size)
    special = set(tokenizer.special_tokens.values())
    ordinary = [i for i in range(tokenizer.vocab_size) if i not in special]
    seen = sorted((i for i in ordinary if counts[i]), key=lambda i: -len(tokenizer.pieces[i]))
    unknown = 0 if tokenizer.unknown is None else int((token_ids == tokenizer.unknown).sum())
    bytes_per_token = len(held_out.encode("utf-8")) / max(1, len(token_ids))
    embedding = tokenizer.vocab_size * d_model
    return Measured(
        name=name,
        vocab_size=tokenizer.vocab_size,
        tokens=len(token_ids),
        bytes_per_token=bytes_per_token,
        share_of_vocabulary_used=len(seen) / max(1, len(ordinary)),
        median_occurrences=float(np.median(counts[seen])) if seen else 0.0,
        embedding_parameters=embedding,
        flops_per_byte=6 * (n_body + embedding) / max(bytes_per_token, 1e-9),
        unknown_share=unknown / max(1, len(token_ids)),
        longest_tokens=[shortened(visible(tokenizer.pieces[i])) for i in seen[:N_LONGEST]],
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
    """Choose a vocabulary, and say why.

    Among lossless vocabularies whose median id occurs often enough to be learned, it is the one
    that makes the text shortest; the smallest if there is none.

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
        f"of those that lose nothing and of whose tokens half occur at least {ENOUGH_OCCURRENCES} "
        f"times in the training text, as learning them takes ({best.median_occurrences:,.0f} times "
        f"here), it makes the text shortest: {best.bytes_per_token:.2f} bytes a token, so that a "
        f"model sees most of it in a step"
    )


def shortened(name: str, n_characters: int = 24) -> str:
    """Replace the middle of a long name by an ellipsis.

    >>> shortened("-" * 12 + "+" * 12, 9)
    '----…++++'
    """
    half = (n_characters - 1) // 2
    return name if len(name) <= n_characters else f"{name[:half]}…{name[-half:]}"


def visible(piece: bytes) -> str:
    """A token as shown in a table; unprintable characters are spelled out.

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
            percent(m.unknown_share),
            f"{m.embedding_parameters:,}",
            f"{m.flops_per_byte / 1e6:.2f}" if m.lossless else "-",
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
    """The comparison as HTML: the table, the recommendation, and the text as each one tokenizes it.

    Args:
        measured: the rows.
        best, reason: the result of `recommend`.
        tokenizers: the tokenizer of each row, by name.
        text: the text to show, with tokens in colors.
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
