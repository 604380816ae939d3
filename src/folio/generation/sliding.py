"""Going on behind a full context: the last half of what a model saw stays.

Where positions are vectors that are added (learned, sinusoidal), every kept token would have to be
another one at its new place, so the half is read anew. Rotary scores depend on the distance of
query and key alone: there keys and values stay in the cache, the keys turned back by as many
positions as are forgotten, and nothing is read twice. The text is then that of one long pass in
which a token sees those of its own window only. What was kept had seen more than the half knows of
itself; the loss is the same within 0.001 nats (docs/experiments.md).

Shapes:  L layers · H heads of keys and values · S positions in the cache · D head dimension
"""

from __future__ import annotations

from torch import Tensor

from folio.fast.accelerate import is_known
from folio.model.attention import Attention
from folio.model.gpt import GPT
from folio.model.kv_cache import KVCache
from folio.model.positions import RotaryPositions


class Slide:
    """Forgets the first positions of a cache, for a model of which that is known to be right."""

    def __init__(self, rotary: RotaryPositions | None) -> None:
        """Take the angles of rotary positions; None is for a model without positions."""
        self.rotary = rotary

    def __call__(self, cache: KVCache, n: int) -> None:
        """Forget n of S positions: (L, B, H, S - n, D) keys and values stay."""
        n_kept = cache.length - n
        keys, values = cache.keys[..., n : cache.length, :], cache.values[..., n : cache.length, :]
        if n_kept and self.rotary is not None:
            keys = turn_back(keys, n, self.rotary)
        cache.keys[..., :n_kept, :] = keys.clone()
        cache.values[..., :n_kept, :] = values.clone()
        cache.length = n_kept


def slide_for(model: GPT) -> Slide | None:
    """Find out how a model forgets; None where what stays has to be read anew, as with layers that
    are not Folio's own, of which nobody knows what they keep.
    """
    if model.config.positions not in ("rope", "none") or not is_known(model):
        return None
    attention = model.blocks[0].attention
    assert isinstance(attention, Attention)
    return Slide(attention.rotary)


def turn_back(keys: Tensor, n: int, rotary: RotaryPositions) -> Tensor:
    """Undo the turn of n positions: (..., D) -> (..., D)."""
    cosines, sines = (table.to(keys.dtype) for table in rotary.tables(n, 1))
    return keys * cosines - keys.roll(keys.shape[-1] // 2, dims=-1) * sines
