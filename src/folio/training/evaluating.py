"""The losses that a training tells: of what counts in its validation text, and of a sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.score import (
    Score,
    Window,
    exact_windows,
    places_of,
    sampled_windows,
)
from folio.evaluation.uncertainty import ratio_error
from folio.tokenizers.base import TokenIds
from folio.training.parts import Evaluation, Training
from folio.training.step import Step


def evaluate(training: Training) -> Evaluation:
    """Exact loss of the validation text, and loss of a sample of the training text."""
    length, validation = training.context_length, training.validation
    windows = exact_windows(len(validation), length)
    exact, nll = _score(training.step, validation, windows, "exact", training.validation_mask)
    error = exact.standard_error
    if training.validation_cluster is not None:
        cluster, of_each = training.validation_cluster[1:], nll
        if training.validation_mask is not None:
            counted = training.validation_mask[1:] == 1
            cluster, of_each = cluster[counted], nll[counted]
        error = ratio_error(np.bincount(cluster, of_each), np.bincount(cluster))
    stream = training.stream
    n_sampled = training.config.evaluation_sample or len(validation) - 1
    sampled = sampled_windows(len(stream.tokens), length, n_sampled)
    mask = stream.loss_mask
    if mask is not None and not mask[places_of(sampled)].any():  # where the first one counts
        start = int(mask[1:].argmax()) // length * length
        sampled = [Window(start, min(length, len(mask) - 1 - start))]
    sample, _ = _score(training.step, stream.tokens, sampled, "sample", mask)
    return Evaluation(exact.nats_per_token, sample.nats_per_token, error, nll)


def _score(
    step: Step,
    tokens: TokenIds,
    windows: list[Window],
    protocol: str,
    mask: NDArray[np.uint8] | None,
) -> tuple[Score, NDArray[np.float32]]:
    """The score of what counts in some windows, and (n,) the nats of each of their targets."""
    each: list[NDArray[np.float32]] = []
    found = step.score(tokens, windows, protocol, each)
    nll = np.concatenate(each)
    if mask is None:
        return found, nll
    places = places_of(windows)
    counted = mask[places] == 1
    targets = tokens[places][counted]
    return Score.of(nll[counted], targets, protocol, len(found.counts)), nll
