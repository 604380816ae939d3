"""The batch of a step: long windows, or as many tokens in short ones."""

from __future__ import annotations

from folio.tokens.stream import Batch
from folio.training.parts import Training
from folio.training.schedule import window_length


def next_batch(training: Training, step: int) -> Batch:
    """Read the batch of a step: `batch_size` windows, or as many tokens in short ones."""
    pace, context_length = training.pace, training.context_length
    length = window_length(training.schedule, context_length, pace.progress(step), pace.planned)
    return training.stream.next_batch(training.config.batch_size * context_length // length, length)


def peek(training: Training, step: int = 0) -> Batch:
    """Read the batch of a step, and leave the stream where it is."""
    stream, place = training.stream, training.stream.place
    batch = next_batch(training, step)
    stream.place = place
    return batch
