"""The n-grams beside a run's model: counted, and weighed on the validation text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.score import sampled_windows
from folio.fast.accelerate import accelerated_on_cpu
from folio.ngrams.config import NGramConfig
from folio.ngrams.fit import FEWEST_TARGETS, fit, read_both
from folio.ngrams.table import count_ngrams
from folio.run.held_out import counted_targets
from folio.run.model import Model
from folio.storage import write_json
from folio.tokens.token_file import open_token_file

MOST_TARGETS, MOST_LOGITS = 1 << 17, 1 << 24
"""Targets by which the weights are found, which are three numbers: as many as these logits, which
are held four times in float32: 2,048 of 8,192 byte pairs. Never fewer than twice FEWEST_TARGETS."""


def targets_weighed(vocab_size: int, n_tokens: int) -> int:
    """How many targets of a validation text of so many tokens are read to find the weights."""
    most = max(MOST_LOGITS // vocab_size, 2 * FEWEST_TARGETS)
    return min(most, MOST_TARGETS, n_tokens - 1)


def add_ngrams(opened: Model, config: NGramConfig) -> dict[str, Any] | None:
    """Count the n-grams of what a run read, and find the weights that are best on the
    validation text; from then on the run is opened with them.

    Args:
        opened: the run, its model without n-grams.
        config: their order, how many tokens are counted, and whether the window counts.

    Returns:
        The content of ngrams.json, losses in nats per token: `without` them, and `with`, by weights
        that were found on the other half of the text; `window` has the rule by which it counts, and
        the loss then, if that is smaller. None if the text is too short.
    """
    run, shape = opened.run, opened.model.config
    tokens: NDArray[np.int64] = np.asarray(opened.validation(), np.int64)
    new, kept = opened.training(), run.tokens_file("kept")
    text = np.concatenate([open_token_file(kept), new]) if kept.exists() else new
    text = text[-config.tokens :]
    ngrams = count_ngrams(text, config.order, shape.vocab_size)
    n_targets = targets_weighed(shape.vocab_size, len(tokens))
    windows = sampled_windows(len(tokens), shape.context_length, n_targets)
    model = accelerated_on_cpu(opened.model)
    spans, counted = [w[:2] for w in windows], counted_targets(opened, "validation")
    read = read_both(model, ngrams, tokens, spans, counted)
    read = [window for window in read if len(window.targets)]
    n_read = sum(len(window.targets) for window in read)
    if len(read) < 2 or n_read < FEWEST_TARGETS:
        return None
    found = fit(read)
    record = {
        "order": ngrams.order,
        "ngrams": len(ngrams),
        "tokens": len(text),
        "step": opened.checkpoint.step,
        "weights": found.weights._asdict(),
        "targets": n_read,
        "without": found.alone,
        "with": found.loss,
    }
    if config.window and found.loss_in_windows < found.loss:
        record["window"] = found.rule._asdict() | {"loss": found.loss_in_windows}
    ngrams.save(run.ngrams_file)
    write_json(run.ngram_weights_file, record)
    return record
