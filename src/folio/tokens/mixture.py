"""Mixes two texts in one stream of batches: windows of an old text beside those of a new one.

How many windows of a batch are old follows from the positions in both streams alone, so that
nothing else has to survive a restart: as many as bring the old text nearest to its share of all
targets so far.

Shapes:  B windows · T context length
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from folio.tokens.stream import Batch, StreamPosition, TokenStream


class Mixture:
    """A TokenStream of the new text with windows of the old one; `place` holds both positions."""

    def __init__(self, new: TokenStream, old: TokenStream, share: float) -> None:
        """
        Args:
            new, old: the streams of the two texts, with equal windows.
            share: share of the targets that are old, at least 0 and below 1.
        """
        assert new.window == old.window and 0 <= share < 1
        self.new, self.old, self.share = new, old, share

    @property
    def tokens(self) -> np.ndarray:
        """(N,) token ids of the new text."""
        return self.new.tokens

    @property
    def loss_mask(self) -> NDArray[np.uint8] | None:
        """The loss mask of the new text."""
        return self.new.loss_mask

    @property
    def targets_per_epoch(self) -> int:
        """Targets per epoch of the new text."""
        return self.new.targets_per_epoch

    @property
    def place(self) -> StreamPosition:
        """The positions of both streams."""
        return replace(self.new.place, kept=self.old.place)

    @place.setter
    def place(self, place: StreamPosition) -> None:
        self.new.place = replace(place, kept=None)
        self.old.place = place.kept or StreamPosition()

    def next_batch(self, n_windows: int, context_length: int | None = None) -> Batch:
        """Read the next batch from both; arguments and result as in TokenStream, with the old
        windows last.
        """
        n_old = self._n_old(n_windows, context_length or self.new.window)
        counts = ((self.new, n_windows - n_old), (self.old, n_old))
        batches = [stream.next_batch(n, context_length) for stream, n in counts if n]
        return Batch(*(np.concatenate(rows) for rows in zip(*batches)))

    def _n_old(self, n_windows: int, width: int) -> int:
        given_new, given_old = self.new.n_given, self.old.n_given
        wanted = self.share * (given_new + given_old + n_windows * width)
        return min(max(round((wanted - given_old) / width), 0), n_windows)
