"""The loss of a model that was trained alone, beside n-grams of what it learned from: how much
counting would add to it.

It shows what the model leaves unused of the training text, as the loss with the window does of its
context. The run stays as it is; `[ngrams]` in a recipe gives it n-grams of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from folio.device import machine_memory
from folio.evaluation.score import Score, places_of, sampled_windows
from folio.evaluation.uncertainty import text_blocks
from folio.fast.accelerate import accelerated_on_cpu
from folio.ngrams.fit import FEWEST_TARGETS, found_on, join, likelihoods, read_both
from folio.ngrams.gpt import GPTWithNGrams
from folio.ngrams.table import count_ngrams
from folio.ngrams.window import mix_in_targets
from folio.run.model import Model

PROTOCOL = "exact, with the window and n-grams"
ORDER = 10
COUNTED = 1 << 25
"""Tokens of all that was learned that are counted, the last ones of more; 26 million, those of 100
MB of Python, take a minute and a half."""
BYTES_EACH = 200
"""Memory that a counted token takes: 5.1 GB for those 26 million."""
MOST_LOGITS = 1 << 26
"""Of the windows by which a half's weights are found: 8,192 targets of 8,192 ids. They are held
four times in float32 while windows are joined."""

Span = tuple[int, int]


def score_beside_ngrams(
    opened: Model, n_targets: int, tell: Callable[[str], None] = lambda line: None
) -> Score | None:
    """Score the validation text by the exact protocol, where each half is read by the weights and
    the rule that are best on the other half.

    Args:
        opened: the model, alone.
        n_targets: read in windows that are evenly spaced; 0 reads all.
        tell: hears what is being done.

    Returns:
        The score; None of a short text, of conversations, or if the run has n-grams anyway.
    """
    run, shape, whole = opened.run, opened.config, opened.validation()
    if isinstance(opened.model, GPTWithNGrams) or run.tokens_file("validation.mask").exists():
        return None
    windows = sampled_windows(len(whole), shape.context_length, n_targets)
    spans, middle = [window[:2] for window in windows], len(windows) // 2
    halves = spans[:middle], spans[middle:]
    if min(sum(length for _, length in half) for half in halves) < FEWEST_TARGETS:
        return None
    text = opened.all_learned(min(COUNTED, machine_memory() // (2 * BYTES_EACH)))
    n_read = sum(length for _, length in spans)
    tell(
        f"counting n-grams of {len(text):,} tokens of the training text; {n_read:,} of the "
        f"{len(whole) - 1:,} targets are read beside them"
    )
    tokens = whole.astype(np.int64)
    ngrams = count_ngrams(text, ORDER, shape.vocab_size)
    model = accelerated_on_cpu(opened.model)
    found = [
        found_on(join(read_both(model, ngrams, tokens, _some(half, shape.vocab_size))))
        for half in halves
    ]
    nats = list[NDArray[np.float64]]()
    for half, (weights, rule) in zip(halves, found[::-1]):
        for span in half:
            [read] = read_both(model, ngrams, tokens, [span])
            nats.append(-np.log(mix_in_targets(likelihoods(read, weights), read.counts, rule)))
    places = places_of(windows)
    blocks = text_blocks(whole, opened.tokenizer.end_of_document, run.families("validation"))
    each, of = np.concatenate(nats), whole[places]
    return Score.of(each, of, PROTOCOL, shape.vocab_size, blocks[places])


def _some(spans: Sequence[Span], vocab_size: int) -> Sequence[Span]:
    """Evenly spaced ones, of as many targets as weights are found by."""
    most = max(MOST_LOGITS // vocab_size, FEWEST_TARGETS)
    return spans[:: -(-sum(length for _, length in spans) // most)]
