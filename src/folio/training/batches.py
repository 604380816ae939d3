"""The batch of a step: long windows, or as many tokens in short ones."""

from __future__ import annotations

from folio.tokens.stream import Batch
from folio.training.parts import Training
from folio.training.schedule import window_length


def next_batch(training: Training, step: int) -> Batch:
    """Read the batch of a step: `batch_size` windows, or as many tokens in short ones."""
    length, n_tokens = (
        length_at(training, step),
        training.config.batch_size * training.context_length,
    )
    return training.stream.next_batch(n_tokens // length, length)


def length_at(training: Training, step: int) -> int:
    """Tokens in each window of a step."""
    pace = training.pace
    progress = pace.progress(step)
    return window_length(training.schedule, training.context_length, progress, pace.planned)


def peek(training: Training, step: int = 0) -> Batch:
    """Read the batch of a step, and leave the stream where it is."""
    stream, place = training.stream, training.stream.place
    batch = next_batch(training, step)
    stream.place = place
    return batch
