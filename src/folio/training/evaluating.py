"""The losses that a training reports: on the validation targets that count, and on a sample."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.score import (
    Score,
    Window,
    batch_tokens_on,
    places_of,
    sampled_windows,
    spread,
)
from folio.evaluation.uncertainty import ratio_error
from folio.tokenizers.base import TokenIds
from folio.training.parts import Evaluation, Training


class StoppedError(Exception):
    """The user asked to stop while a text was read, which takes minutes on a large one."""


def is_evaluation_due(training: Training, step: int) -> bool:
    """Whether the losses are measured after so many steps: at intervals, or at shares of a pace
    whose steps nobody knows beforehand; at the end and at step 0 in any case. The loop skips a step
    that was evaluated already, and step 0 of random weights.
    """
    config, pace = training.config, training.pace
    if step in (0, pace.last):
        return True
    if config.evaluation_interval:
        return step % config.evaluation_interval == 0
    done = [pace.evaluations_done(s, config.evaluations) for s in (max(step - 1, 0), step)]
    return done[0] < done[1]


def evaluate(
    training: Training, should_stop: Callable[[], bool] = lambda: False, length: int = 0
) -> Evaluation:
    """Exact loss of the validation text or of a sample of it, and loss of a sample of the training
    text.

    Args:
        training: whose model is evaluated.
        should_stop: asked again and again while texts are read.
        length: tokens in each window; 0 takes the context length.

    Raises:
        StoppedError: should_stop() returned True.
    """
    short_length = length if length < training.context_length else 0
    length, validation = length or training.context_length, training.validation
    mask = training.validation_mask
    windows = _windows(validation, length, training.config.validation_sample, mask)
    exact, nats = _score(training, validation, windows, "exact", mask, should_stop)
    error, places = exact.standard_error, places_of(windows)
    if training.validation_cluster is not None:
        cluster, of_each = training.validation_cluster[places], nats
        if mask is not None:
            counted = mask[places] == 1
            cluster, of_each = cluster[counted], nats[counted]
        error = ratio_error(np.bincount(cluster, of_each), np.bincount(cluster))
    stream = training.stream
    n_sampled = training.config.evaluation_sample or len(places)
    sampled = _windows(stream.tokens, length, n_sampled, stream.loss_mask)
    sample, _ = _score(training, stream.tokens, sampled, "sample", stream.loss_mask, should_stop)
    each = spread(len(validation), windows, nats)
    losses = exact.nats_per_token, sample.nats_per_token
    return Evaluation(*losses, error, short_length, each)


def _windows(
    tokens: TokenIds, length: int, n_targets: int, mask: NDArray[np.uint8] | None
) -> list[Window]:
    """Windows with about `n_targets` targets, 0 being all of them; at least one that counts."""
    windows = sampled_windows(len(tokens), length, n_targets)
    if mask is not None and not mask[places_of(windows)].any():  # where the first one counts
        start = int(mask[1:].argmax()) // length * length
        windows = [Window(start, min(length, len(mask) - 1 - start))]
    return windows


def _score(
    training: Training,
    tokens: TokenIds,
    windows: list[Window],
    protocol: str,
    mask: NDArray[np.uint8] | None,
    should_stop: Callable[[], bool],
) -> tuple[Score, NDArray[np.float32]]:
    """The score of the targets that count in some windows, and (n,) the nats of each target."""
    each, scores = list[NDArray[np.float32]](), list[Score]()
    step, at_once = training.step, batch_tokens_on(training.device.torch)
    at_once = max(1, at_once // windows[0].length) * step.n_workers  # one batch per worker
    for first in range(0, len(windows), at_once):
        if should_stop():
            raise StoppedError
        scores.append(step.score(tokens, windows[first : first + at_once], protocol, each))
    found = reduce(operator.add, scores)
    nll = np.concatenate(each)
    if mask is None:
        return found, nll
    places = places_of(windows)
    counted = mask[places] == 1
    targets = tokens[places][counted]
    return Score.of(nll[counted], targets, protocol, len(found.counts)), nll
