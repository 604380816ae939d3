"""A text that is being written token by token.

A model sees at most context_length tokens. When they are full, the text goes on from the last half
of them: positions stay those that the model was trained on, and memory stays flat (`sliding.py`).

Shapes:  V vocabulary
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from folio.errors import UserError
from folio.generation.reader import Cache, Reader
from folio.generation.sampling import (
    EXCLUDED,
    Logits,
    Mask,
    SamplingConfig,
    draw,
    exclude,
    log_probabilities,
    penalize,
)
from folio.generation.stopping import StoppableText
from folio.tokenizers.base import TextDecoder, Tokenizer

FINISHED = -1
"""Stands in place of a token after the end of a text."""

BETWEEN_DOCUMENTS = "\n\n"
"""Shown where a text goes on behind the end of a document."""

Draw = Callable[[Logits, SamplingConfig, random.Random], int]
"""(V,) logits to a token, or FINISHED where none may come, as `sampling.draw`."""

Ended = Literal["stop", "length"]
"""Why a text ended: by a stop token, a stop string or a `draw` that found none; by its length."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to write: a prompt, and how to continue it."""

    prompt: Sequence[int]
    """Token ids, one or more; the model sees the last context_length of them."""
    config: SamplingConfig = field(default_factory=SamplingConfig)
    """How tokens are drawn; the seed is that of this text alone."""
    max_tokens: int | None = None
    """The text ends after so many, 1 or more; None is without end."""
    stop_tokens: Collection[int] = ()
    """Tokens that end the text."""
    after: str = ""
    """The text of the prompt."""
    draw: Draw = draw
    """Chooses the tokens; a `Guard` has another one, for one text each."""

    def __post_init__(self) -> None:
        if len(self.prompt) == 0:
            raise UserError("The prompt is empty; at least one token is needed to go on from.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UserError(f"max_tokens must be 1 or more, got {self.max_tokens}.")


class Drawn(NamedTuple):
    """A drawn token, and what can be told about it."""

    token_id: int
    """FINISHED where none may come."""
    log_probability: float | None
    """Natural logarithm, of the model's own distribution, whatever the temperature; None where
    `config.logprobs` is, and where there is no token."""
    alternatives: list[tuple[int, float]]
    """The likeliest tokens and their log-probabilities, `config.logprobs` of them."""
    text: str
    """Text that may be shown now; all of these joined are the text, without a stop string."""
    ended: Ended | None
    """Why this was the last one; None where the text goes on."""


class Row:
    """One text in a `Batch`: its `unread` tokens are read, and `take` is given the logits."""

    request: Request
    cache: Cache
    n_drawn: int
    """Number of tokens drawn so far."""
    window: list[int]
    """All that the model sees."""
    unread: list[int]
    """The end of it that is not in the cache yet."""

    def __init__(
        self,
        request: Request,
        cache: Cache,
        reader: Reader,
        tokenizer: Tokenizer | None,
        excluded: Mask | None,
    ) -> None:
        """Begin with nothing read.

        Args:
            request: what is to be written.
            cache: of this text alone.
            reader: who reads it.
            tokenizer, excluded: as for a `Batch`.
        """
        self.request, self.cache, self.reader, self.excluded = request, cache, reader, excluded
        self.generator = request.config.make_generator()
        self.n_drawn = 0
        self.window = list(request.prompt[-reader.context_length :])
        self.unread = list(self.window)
        self.decoder = TextDecoder(tokenizer, request.after) if tokenizer is not None else None
        ends = tokenizer.ends if tokenizer is not None else ()
        self.document_ends = [end for end in ends if end not in request.stop_tokens]
        self.stoppable = StoppableText(request.config.stop_strings)
        assert tokenizer is not None or not request.config.stop_strings, "they are found in text"
        cache.length = 0

    def take(self, logits: Logits) -> Drawn:
        """Draw the next token from the logits (V,) of what was read."""
        config = self.request.config
        allowed = exclude(logits, self.excluded)
        penalized = penalize(allowed, self.window, config.repetition_penalty)
        token_id = self.request.draw(penalized, config, self.generator)
        log_probability, alternatives = None, []
        if config.logprobs is not None and token_id != FINISHED:
            told = log_probabilities(logits)
            log_probability = float(told[token_id])
            alternatives = likeliest(told, config.logprobs, self.excluded)

        self.n_drawn += 1
        self._go_on_from(token_id)
        text = self._text_of(token_id)
        ended: Ended | None = None
        if token_id == FINISHED or token_id in self.request.stop_tokens:
            ended = "stop"
        elif self.n_drawn == self.request.max_tokens:
            ended = "length"
        if ended and not self.stoppable.stopped:
            text += self._rest_of_text()
        if self.stoppable.stopped:
            ended = "stop"
        return Drawn(token_id, log_probability, alternatives, text, ended)

    def _go_on_from(self, token_id: int) -> None:
        """Append to the window; of a full one, the last half stays."""
        self.window.append(token_id)
        self.unread = [token_id]
        context_length = self.reader.context_length
        if len(self.window) <= context_length:
            return
        n_forgotten = len(self.window) - max(1, context_length // 2)
        self.window = self.window[n_forgotten:]
        if not self.reader.forget(self.cache, n_forgotten):
            self.cache.length, self.unread = 0, list(self.window)

    def _text_of(self, token_id: int) -> str:
        if self.decoder is None or token_id == FINISHED:
            return ""
        if token_id in self.document_ends:
            return self.stoppable.take(self.decoder.end() + BETWEEN_DOCUMENTS)
        return self.stoppable.take(self.decoder.take(token_id))

    def _rest_of_text(self) -> str:
        rest = self.decoder.end() if self.decoder is not None else ""
        return self.stoppable.take(rest) + self.stoppable.end()


def likeliest(log_probabilities: Logits, n: int, excluded: Mask | None) -> list[tuple[int, float]]:
    """Find the n likeliest tokens, and their log-probabilities.

    Args:
        log_probabilities: (V,) of all tokens.
        n: at most; 0 is none.
        excluded: (V,) tokens that are not told.
    """
    if not n:
        return []
    told = exclude(log_probabilities, excluded)
    some = np.argpartition(-told, min(n, len(told)) - 1)[:n]
    ordered = some[np.argsort(-told[some], kind="stable")].tolist()
    return [(token_id, float(told[token_id])) for token_id in ordered if told[token_id] > EXCLUDED]
