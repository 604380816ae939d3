"""Vocabularies side by side on one text, and which of them to take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from folio.errors import UserError
from folio.tokenizers.base import Tokenizer
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.word import WordTokenizer

N_LONGEST = 3
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


def colored_html(title: str, tokenizer: Tokenizer, text: str) -> str:
    """One page with each token of a text in a color of its own; it names its id when pointed at."""
    import html

    colors = ("#dbeafe", "#ffedd5", "#d1fae5", "#f3e8ff", "#fce7f3")
    spans = [
        f'<span style="background:{colors[k % len(colors)]}" title="{i}">'
        f"{html.escape(visible(tokenizer.pieces[i]))}</span>"
        + ("<br>" if tokenizer.pieces[i].endswith(b"\n") else "")
        for k, i in enumerate(tokenizer.encode(text).tolist())
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>"
        '<body style="font:16px/1.7 monospace;max-width:60em;margin:2em auto;color:#1f2937">'
        f"<h1>{html.escape(title)}</h1><p>{len(spans):,} tokens for "
        f"{len(text.encode('utf-8', 'surrogatepass')):,} bytes. "
        f"Point at one to see its id.</p><p>{''.join(spans)}</p></body></html>\n"
    )
