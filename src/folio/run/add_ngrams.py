"""The n-grams beside a run's model: counted, and weighed on the validation text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from folio.evaluation.score import places_of, sampled_windows
from folio.fast.accelerate import accelerate
from folio.ngrams.config import NGramConfig
from folio.ngrams.fit import best_weights, held_out_loss, read_both
from folio.ngrams.table import count_ngrams
from folio.run.held_out import counted_targets
from folio.run.model import Model
from folio.storage import write_json

MOST_TARGETS, MOST_LOGITS = 1 << 17, 1 << 24
"""Targets by which the weights are found, which are two numbers: as many as these logits, which are
held twice in float32: 2,048 of 8,192 byte pairs. Never fewer than twice FEWEST_TARGETS."""
FEWEST_TARGETS = 256
"""Of fewer, two weights would be noise."""


def add_ngrams(opened: Model, config: NGramConfig) -> dict[str, Any] | None:
    """Count the n-grams of what a run learned from, and find the weights that are best on the
    validation text; from then on the run is opened with them.

    Args:
        opened: the run, its model without n-grams.
        config: their order, and how many tokens are counted.

    Returns:
        The content of ngrams.json, losses in nats per token: `without` them, and `with`, by weights
        that were found on the other half of the text. None if the text is too short.
    """
    run, shape = opened.run, opened.model.config
    tokens: NDArray[np.int64] = np.asarray(opened.validation(), np.int64)
    *old, new = reversed(opened.learned())
    text = (np.concatenate([*old, new]) if old else new)[-config.tokens :]
    ngrams = count_ngrams(text, config.order, shape.vocab_size)
    n_targets = min(
        max(MOST_LOGITS // shape.vocab_size, 2 * FEWEST_TARGETS), MOST_TARGETS, len(tokens) - 1
    )
    windows = sampled_windows(len(tokens), shape.context_length, n_targets)
    on_processor = opened.model.lm_head.weight.device.type == "cpu"
    model = accelerate(opened.model) if on_processor else opened.model
    spans = [(w.start, w.length) for w in windows]
    read = read_both(model, ngrams, tokens, spans, config.window)
    if (counted := counted_targets(opened, "validation")) is not None:
        read = read.of(counted[places_of(windows) - 1])
    if len(read.targets) < FEWEST_TARGETS:
        return None
    record = {
        "order": ngrams.order,
        "ngrams": len(ngrams),
        "tokens": len(text),
        "step": opened.checkpoint.step,
        "weights": best_weights(*read)._replace(window=config.window)._asdict(),
        "targets": len(read.targets),
        "without": float(F.cross_entropy(read.model, read.targets)),
        "with": held_out_loss(read),
    }
    ngrams.save(run.ngrams_file)
    write_json(run.weights_file, record)
    return record
