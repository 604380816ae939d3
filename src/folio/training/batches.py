"""The batch of a step: long windows, or as many tokens in short ones."""

from __future__ import annotations

from folio.tokens.stream import Batch
from folio.training.parts import Training
from folio.training.schedule import window_length


def next_batch(training: Training, step: int) -> Batch:
    """Read the batch of a step: `batch_size` windows, or as many tokens in short ones."""
    n_tokens = training.config.batch_size * training.context_length
    length = length_at(training, step)
    return training.stream.next_batch(n_tokens // length, length)


def length_at(training: Training, step: int) -> int:
    """Tokens in each window of a step."""
    pace, context_length = training.pace, training.context_length
    return window_length(training.schedule, context_length, pace.progress(step), pace.planned)


def evaluated_length(training: Training, step: int) -> int:
    """Tokens in each window that an evaluation after some steps reads: as many as the last step
    read, since a model that learned from short windows makes nothing of what lies further back. A
    run that begins with learned weights is evaluated before its first step, in whole contexts.
    """
    return length_at(training, step - 1) if step else training.context_length


def peek(training: Training, step: int = 0) -> Batch:
    """Read the batch of a step, and leave the stream where it is."""
    stream, place = training.stream, training.stream.place
    batch = next_batch(training, step)
    stream.place = place
    return batch
