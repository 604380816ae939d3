"""The sizes that steps 0 to 6 share. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes so small that each step trains in seconds; a step reads only those that it needs."""

    vocab_size: int
    context_length: int = 8
    d_model: int = 32
    n_heads: int = 4
    n_layers: int = 3

    @property
    def head_dim(self) -> int:
        """Width of a head when several share d_model."""
        return self.d_model // self.n_heads
