"""How much a model counts beside n-grams, and they beside it.

Each is right where the other errs, so that the product of what they say is better than either:

    p(token) = model(token) ^ a * n-grams(token) ^ b / what makes the sum 1

(a logarithmic opinion pool, Genest & Zidek 1986, https://doi.org/10.1214/ss/1177013825).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class Weights(NamedTuple):
    """The exponents of a product."""

    model: float
    ngrams: float

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """Read the numbers by name, as `_asdict` gives them."""
        return cls(float(table["model"]), float(table["ngrams"]))

    def product(self, model: Any, ngrams: Any) -> Any:
        """Multiply: two (..., V) logits or log-probabilities, tensors or arrays, to logits."""
        return self.model * model + self.ngrams * ngrams
