"""The interface of what computes logits: the model itself (`readers.py`), or the compiled decoder.

Shapes:  B texts · V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Cache(Protocol):
    """All that a reader knows of one text."""

    length: int
    """Positions held; 0 forgets the text."""


class Reader(Protocol):
    """Reads texts on. The logits of a text do not depend on those beside it, in any bit."""

    context_length: int
    """Largest number of positions of a text."""

    def caches(self, n: int) -> Sequence[Any]:
        """Reserve a `Cache` for each of n texts; memory is taken as they fill."""
        ...

    def read(
        self, token_ids: Sequence[Sequence[int]], caches: Sequence[Any]
    ) -> NDArray[np.float32]:
        """Read the next tokens of each text, one or more, and extend its cache by them; returns
        (B, V) logits after the last token of each.
        """
        ...

    def forget(self, cache: Any, n: int) -> bool:
        """Drop the first n positions of a text, so that it goes on from the others; False leaves
        it as it is, where these would have to be read anew.
        """
        ...
