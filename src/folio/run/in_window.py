"""The loss of a model where what stands earlier in the window counts, too (ngrams/window.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from folio.device import Device
from folio.evaluation.score import Score
from folio.evaluation.uncertainty import text_blocks
from folio.ngrams.fit import FEWEST_TARGETS, MOST_TRIED, best_rule
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
    kept = ~np.isnan(nll) if counted is None else ~np.isnan(nll) & counted
    if (targets := np.flatnonzero(kept)).size < FEWEST_TARGETS:
        return None
    nats, middle = np.zeros(len(nll), np.float32), len(targets) // 2
    halves = targets[:middle], targets[middle:]
    for half, other in zip(halves, halves[::-1]):
        # Of windows that are evenly spaced, since each is read as a whole.
        of_window = other // opened.config.context_length
        some = np.unique(of_window)[:: max(1, len(other) // MOST_TRIED)]
        tried = other[np.isin(of_window, some)]
        counts = np.concatenate([counts for _, counts in _counted_in(opened, tokens, tried)])
        rule = best_rule(_chances(nll[tried]), counts)
        for here, counts in _counted_in(opened, tokens, half):
            nats[here] = -np.log(mix_in_targets(_chances(nll[here]), counts, rule))
    blocks = text_blocks(tokens, opened.tokenizer.end_of_document, families)[targets + 1]
    of, vocab_size = tokens[targets + 1], opened.config.vocab_size
    return Score.of(nats[targets], of, "exact, with the window", vocab_size, blocks)


def _counted_in(
    opened: Model, tokens: TokenIds, targets: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Some targets of an exact window and their `count_targets`, window by window: the counts of
    all would take a hundred bytes for each byte of a text.

    Args:
        opened: whose windows they are.
        tokens: (N,) the text.
        targets: ascending, the token behind token i being target i.
    """
    length = opened.config.context_length
    for here in np.split(targets, np.flatnonzero(np.diff(targets // length)) + 1):
        start = int(here[0]) // length * length
        window = tokens[start : start + length + 1]
        yield here, count_targets(window[:-1], window[1:])[here - start]


def _chances(nll: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.exp(-nll.astype(np.float64))
