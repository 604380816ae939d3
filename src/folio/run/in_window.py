"""The loss of a model where what stands earlier in the window counts, too (ngrams/window.py)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from folio.device import Device
from folio.evaluation.score import Score, exact_windows, places_of
from folio.evaluation.uncertainty import text_blocks
from folio.ngrams.fit import FEWEST_TARGETS, best_rule
from folio.ngrams.gpt import GPTWithNGrams
from folio.ngrams.window import count_targets, mix_in_targets
from folio.run.model import Model
from folio.tokenizers.base import TokenIds


def scores_with_window(
    opened: Model,
    tokens: TokenIds,
    families: Sequence[int],
    device: Device | None,
    counted: NDArray[np.bool_] | None,
    most: float,
) -> tuple[list[Score], NDArray[np.float32]]:
    """Score as `Model.scores` does, and last where the window counts, too, unless that is None."""
    scores, nll = opened.scores(tokens, families, device, counted, most)
    in_windows = score_in_windows(opened, tokens, nll, families, counted)
    return [*scores, *([in_windows] if in_windows else [])], nll


def score_in_windows(
    opened: Model,
    tokens: TokenIds,
    nll: NDArray[np.float32],
    families: Sequence[int] = (),
    counted: NDArray[np.bool_] | None = None,
) -> Score | None:
    """Score a text that was read by the exact protocol, each half by the rule of the other half.

    Args:
        opened: the model that read it.
        tokens: (N,) the text.
        nll: (N - 1,) the nats of each target, nan where it was not read.
        families: of each document, as in text_blocks.
        counted: (N - 1,) which targets count; None is all.

    Returns:
        The score; None of a short text, or if the model beside its n-grams reads so anyway.
    """
    if isinstance(opened.model, GPTWithNGrams):
        return None
    windows = exact_windows(len(tokens), opened.config.context_length)
    windows = [window for window in windows if not np.isnan(nll[window.start])]
    spans = [slice(window.start, window.start + window.length) for window in windows]
    counts = np.concatenate([count_targets(tokens[span], tokens[1:][span]) for span in spans])
    places = places_of(windows)
    if counted is not None:
        places, counts = places[counted[places - 1]], counts[counted[places - 1]]
    if len(places) < FEWEST_TARGETS:
        return None
    expected, middle = np.exp(-nll[places - 1].astype(np.float64)), len(places) // 2
    halves = [(expected[half], counts[half]) for half in (slice(middle), slice(middle, None))]
    mixed = [mix_in_targets(*half, best_rule(*other)) for half, other in zip(halves, halves[::-1])]
    blocks = text_blocks(tokens, opened.tokenizer.end_of_document, families)[places]
    nats, vocab_size = -np.log(np.concatenate(mixed)).astype(np.float32), opened.config.vocab_size
    return Score.of(nats, tokens[places], "exact, with the window", vocab_size, blocks)
