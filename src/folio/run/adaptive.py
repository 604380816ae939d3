"""Scores the validation text with a model that learns from it while reading, alone and mixed with
n-grams and other counts, which learn from it as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from folio.errors import UserError
from folio.evaluation.dynamic import RATES, Adaptation, Reading
from folio.evaluation.score import Score
from folio.evaluation.uncertainty import text_blocks
from folio.jit import available
from folio.run.model import Model
from folio.tokenizers.base import TokenIds

COUNTED = 1 << 21
"""Tokens of all that was learned that are counted, the last ones of more."""


def evaluate_adaptive(
    opened: Model,
    world_size: int = 1,
    tell: Callable[[str], None] = lambda line: None,
    most: float = math.inf,
) -> list[Score]:
    """Read the validation text with gradient steps in between.

    Args:
        opened: the model; it is not changed.
        world_size: processes; the numbers do not depend on it.
        tell: hears what is being done.
        most: tokens that are read, from the beginning on; two or more.

    Returns:
        `adaptive`, strided; and where there are kernels, that mixed with n-grams and other counts,
        which learn from the text as well.

    Raises:
        UserError: there is no validation text, or only the answers of conversations count in it.
    """
    if opened.run.tokens_file("validation.mask").exists():
        raise UserError(
            f"--adaptive reads whole texts, but of the conversations of {opened.run.path} only the "
            f"answers count. Leave it out."
        )
    whole, training = opened.validation(), opened.training()
    if len(whole) < 2:
        raise UserError(f"The run {opened.run.path} has no validation text to read.")
    tokens = np.asarray(whole[: int(min(most, len(whole)))])
    adaptation = Adaptation(opened.model, training, opened.model.config.context_length)
    vocab_size, blocks = opened.tokenizer.vocab_size, _blocks(opened, tokens)[1:]
    of = f"the first {len(tokens):,} of {len(whole):,}" if len(tokens) < len(whole) else "all"
    tell(f"reading {of} tokens by {len(RATES) + 1} copies of the model")
    reading = adaptation.read(tokens, RATES, world_size, tell)
    scores = [Score.of(reading.nats[1:], tokens[1:], "adaptive", vocab_size, blocks)]
    if available():
        nats = _with_counts(opened, tokens, reading, tell)
        name = "adaptive, with n-grams"
        scores.append(Score.of(nats[1:], tokens[1:], name, vocab_size, blocks))
    else:
        tell("without numba, or with FOLIO_JIT=off, no n-grams are mixed in, which takes kernels")
    return scores


def _blocks(opened: Model, tokens: TokenIds) -> NDArray[np.int64]:
    """(N,) the text of each token, for the standard error; of the beginning of the validation
    text.
    """
    end, families = opened.tokenizer.end_of_document, opened.run.families("validation")
    n_documents = int(np.count_nonzero(tokens == end)) + 1
    return text_blocks(tokens, end, families[:n_documents])


def _with_counts(
    opened: Model,
    tokens: TokenIds,
    reading: Reading,
    tell: Callable[[str], None],
) -> NDArray[np.float64]:
    """(N,) nats of each validation token by the copies and counts together."""
    from folio.evaluation.context_mixing import read_with_counts

    tokenizer = opened.tokenizer
    counted, n_tokens = opened.all_learned(COUNTED), sum(map(len, opened.learned()))
    of = f"the last {COUNTED:,} of {n_tokens:,}" if n_tokens > COUNTED else "all"
    tell(f"counting {of} tokens of the training text, and mixing them in")
    pieces = [(tokenizer.separator + piece).decode(errors="replace") for piece in tokenizer.pieces]
    return read_with_counts(counted, tokens, reading.odds, pieces, opened.model.config.vocab_size)
