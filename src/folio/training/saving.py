"""Checkpoints by the clock."""

from __future__ import annotations

import time

from folio.training.parts import Observer
from folio.training.state import TrainingState


class SaveTimer(Observer):
    """Says when a checkpoint is due: so long after the last one, whatever that was made for."""

    def __init__(self, minutes: float) -> None:
        """Start the clock; with 0 minutes none is ever due."""
        self.seconds, self.last = 60 * minutes, time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time."""
        return 0 < self.seconds <= time.monotonic() - self.last

    def save(self, state: TrainingState) -> None:
        """Start the clock again."""
        self.last = time.monotonic()
