"""Whether n-grams are counted beside a model."""

from __future__ import annotations

from dataclasses import dataclass

from folio.config import require


@dataclass(frozen=True, kw_only=True)
class NGramConfig:
    """N-grams of the training text, beside which the model is read once it is trained."""

    order: int = 0
    """Most tokens of an n-gram; 0 counts none. 10 suits characters and byte pairs: what a longer
    one knows is in few texts, and its tree is larger."""
    window: bool = True
    """Whether what stands in the window itself counts when a text is read, too
    (`ngrams/window.py`). How much it counts is found on the validation text."""
    tokens: int = 1 << 22
    """Most tokens that are counted, the last ones of a longer text. For each there are about two
    n-grams, of 12 bytes on disk and 32 in memory, and it takes some 2 microseconds. Of 100 MB of
    sources, four times as many made the loss a tenth smaller (docs/experiments.md)."""

    def __post_init__(self) -> None:
        require(self, "ngrams", "0 to 20", lambda x: 0 <= x <= 20, "order")
        require(self, "ngrams", "1 or more", lambda x: x >= 1, "tokens")
