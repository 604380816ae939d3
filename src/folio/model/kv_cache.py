"""Keys and values of the tokens already seen, so that each new token costs one step.

Shapes:  B batch · H heads of keys and values · S positions so far · T new positions
         D head dimension · L layers
"""

from __future__ import annotations

import torch
from torch import Tensor

from folio.model.config import ModelConfig


class LayerCache:
    """Keys and values of one layer, in memory allocated once: both (B, H, capacity, D)."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append T positions: two (B, H, T, D) -> two (B, H, S + T, D), views of the cache.

        Raises:
            ValueError: if there is no room for T more positions.
        """
        end, room = self.length + keys.shape[2], self.keys.shape[2]
        if end > room:
            raise ValueError(f"the cache holds {room} positions; {end} were asked for")
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """A LayerCache for each block of a model, all in two tensors (L, B, H, positions, D)."""

    def __init__(self, config: ModelConfig, batch_size: int, like: Tensor) -> None:
        """Allocate `config.context_length` positions or a few more, with the dtype and device of
        `like`; to be filled without gradients.
        """
        room = -(-config.context_length // 32) * 32  # rounding depends on the alignment of a row
        shape = (batch_size, config.key_value_heads, room, config.head_width)
        self.keys = torch.empty(config.n_layers, *shape, dtype=like.dtype, device=like.device)
        self.values = torch.empty_like(self.keys)
        self.layers = [LayerCache(self.keys[i], self.values[i]) for i in range(config.n_layers)]
        self.token_ids: Tensor | None = None  # (B, S) or (1, S), where a model notes them

    def rows(self) -> list[CacheRow]:
        """Split into one cache per sequence: B views of the same memory."""
        return [CacheRow(self, row) for row in range(self.keys.shape[1])]

    @property
    def length(self) -> int:
        """Number of positions held, the same in each layer; setting 0 clears the cache, and keeps
        the memory.
        """
        return self.layers[0].length

    @length.setter
    def length(self, positions: int) -> None:
        for layer in self.layers:
            layer.length = positions


class CacheRow(KVCache):
    """One sequence of a KVCache: (L, 1, H, capacity, D), with a length of its own."""

    def __init__(self, pool: KVCache, row: int) -> None:
        self.pool, self.row, self.token_ids = pool, row, None
        self.keys, self.values = pool.keys[:, row : row + 1], pool.values[:, row : row + 1]
        self.layers = [LayerCache(keys, values) for keys, values in zip(self.keys, self.values)]
