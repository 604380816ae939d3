"""Scores the validation text with a model that learns from it while reading, alone and with
n-grams.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from folio.errors import UserError
from folio.evaluation.dynamic import RATES, Adaptation, mix
from folio.evaluation.ngrams import choose_order, ngram_surprise
from folio.evaluation.score import Score
from folio.run.model import Model
from folio.tokenizers.base import TokenIds
from folio.tokens.text import TokenText


def evaluate_adaptive(
    opened: Model, world_size: int = 1, tell: Callable[[str], None] = lambda line: None
) -> list[Score]:
    """Read the validation text with gradient steps in between.

    Args:
        opened: the model; it is not changed.
        world_size: processes; the numbers do not depend on it.
        tell: hears what is being done.

    Returns:
        `adaptive`, strided; and where a token is a character, that mixed with n-grams, which learn
        from the text as well.

    Raises:
        UserError: there is no validation text, or only the answers of conversations count in it.
    """
    if opened.run.tokens_file("validation.mask").exists():
        raise UserError(
            f"--adaptive reads whole texts, but of the conversations of {opened.run.path} only the "
            f"answers count. Leave it out."
        )
    tokens, training = np.asarray(opened.validation()), opened.training()
    if len(tokens) < 2:
        raise UserError(f"The run {opened.run.path} has no validation text to read.")
    adaptation = Adaptation(opened.model, training, opened.model.config.context_length)
    vocab_size = opened.tokenizer.vocab_size
    tell(f"reading {len(tokens):,} tokens by {len(RATES) + 1} copies of the model")
    nats = adaptation.read(tokens, RATES, world_size, tell).nats[1:]
    scores = [_score("adaptive", nats, tokens, vocab_size)]
    if opened.tokenizer.kind == "character":
        mixed, shares = mix([nats, _ngrams(opened)[1:]])
        tell(f"the model had {shares[0]:.0%} of the mixture")
        scores.append(_score("adaptive, with n-grams", mixed, tokens, vocab_size))
    return scores


def _ngrams(opened: Model) -> NDArray[np.float64]:
    """(N,) nats of each validation token by byte n-grams that learn while they read."""
    training = TokenText(opened.training(), opened.tokenizer).whole()
    validation = TokenText(opened.validation(), opened.tokenizer)
    nats = ngram_surprise(training, validation.whole(), choose_order(training))["adaptive"]
    return np.add.reduceat(
        nats.astype(np.float64), validation.places_of(np.arange(len(validation.tokens)))
    )


def _score(protocol: str, nats: NDArray[np.float64], tokens: TokenIds, vocab_size: int) -> Score:
    counts = np.bincount(tokens[1:].astype(np.int64), minlength=vocab_size)
    return Score(protocol, len(nats), float(nats.sum()), float(np.square(nats).sum()), counts)
