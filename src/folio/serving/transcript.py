"""The tokens of a text, each with its place in it, as far as the text may be shown."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from folio.generation.row import FINISHED, Drawn
from folio.tokenizers.base import TextDecoder, Tokenizer

Alternatives = Sequence[tuple[int, float]]
"""Token ids and their log-probabilities, the likeliest first."""


@dataclass(frozen=True)
class Token:
    """A token of a text with its probability."""

    token_id: int
    log_probability: float | None
    """Log probability in nats; None for the first token of a text."""
    alternatives: Alternatives
    offset: int
    """Characters before it in the text."""


@dataclass(frozen=True)
class Piece:
    """What may be shown of a text since the last piece."""

    text: str
    tokens: list[Token] = field(default_factory=list)
    n_drawn: int = 0
    finish: str | None = None
    """Why the text ended, if it did: stop or length."""


class Transcript:
    """A text that is being written, cut into pieces that can be shown."""

    def __init__(self, tokenizer: Tokenizer, behind: str = "", begin: int = 0) -> None:
        """Begin a text whose tokens arrive one by one.

        Args:
            tokenizer: whose tokens they are.
            behind: the text that they go on from.
            begin: characters of it that offsets count.
        """
        self._decoder = TextDecoder(tokenizer, behind)
        self._decoded = self._shown = begin
        self._held: list[Token] = []

    def take(self, drawn: Drawn) -> Piece:
        """Go on with a token."""
        n_drawn = int(drawn.token_id != FINISHED)
        if n_drawn:
            self._held.append(
                Token(drawn.token_id, drawn.log_probability, drawn.alternatives, self._decoded)
            )
            self._decoded += len(self._decoder.take([drawn.token_id]))
        self._shown += len(drawn.text)
        if drawn.ended is not None:
            self._decoded += len(self._decoder.end())
        # What a stop string cut off is not shown, and tokens that begin there are not, either.
        everything = drawn.ended is not None and self._shown == self._decoded
        ready = [token for token in self._held if everything or token.offset < self._shown]
        self._held = self._held[len(ready) :]
        return Piece(drawn.text, ready, n_drawn, drawn.ended)


def texts_of(tokenizer: Tokenizer, token_ids: Sequence[int]) -> list[str]:
    """The text that each token adds; a token inside a character adds nothing."""
    decoder = TextDecoder(tokenizer)
    texts = [decoder.take([token_id]) for token_id in token_ids]
    if texts:
        texts[-1] += decoder.end()
    return texts


def ends_of(tokenizer: Tokenizer, text: str, token_ids: Sequence[int]) -> list[int]:
    """Where each token of a text ends in it, in characters; a token inside a character ends where
    the one before it does.
    """
    normal, at = tokenizer.normalize(text), 0
    ends = []
    for added in texts_of(tokenizer, token_ids):
        if tokenizer.separator:  # words; what stands between them is no token
            added = added.strip()
            at = normal.index(added, at)
        at += len(added)
        ends.append(at)
    if normal == text:
        return ends
    starts = [i for i, c in enumerate(text) if not i or unicodedata.category(c)[0] != "M"]
    places = [0]  # in the text, of each place in the normal one
    for start, end in pairwise([*starts, len(text)]):
        places += [end] * len(tokenizer.normalize(text[start:end]))
    return [places[min(end, len(places) - 1)] for end in ends]
