"""How much a model counts beside n-grams, they beside it, and the window beside them.

Each is right where the other errs, so that the product of what they say is better than either:

    p(token) = model(token) ^ a * n-grams(token) ^ b / what makes the sum 1

(a logarithmic opinion pool, Genest & Zidek 1986, https://doi.org/10.1214/ss/1177013825).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class Weights(NamedTuple):
    """The exponents of a product, and what the n-grams know of the window."""

    model: float
    ngrams: float
    window: float = 0.0
    """The k of `window.py`; 0 where n-grams know of the training text alone."""

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """Read the numbers by name, as `_asdict` gives them; older files have no `window`."""
        model, ngrams = float(table["model"]), float(table["ngrams"])
        return cls(model, ngrams, float(table.get("window", 0.0)))

    def product(self, model: Any, ngrams: Any) -> Any:
        """Multiply: two (..., V) logits or log-probabilities, tensors or arrays, to logits."""
        return self.model * model + self.ngrams * ngrams
