"""Who reads the tokens of texts: the model itself, or a compiled step that gives the same.

Shapes:  B texts · T new tokens of one of them · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from folio.errors import UserError
from folio.fast.decoder import decoder_for
from folio.fast.packing import Precision
from folio.model.gpt import GPT
from folio.model.kv_cache import CacheRow

Reader = Callable[[Sequence[Tensor], Sequence[CacheRow]], Tensor]
"""Reads B texts on: B times (T,) token ids, one or more of each text, and B caches, which are
extended by them -> (B, V) float32 logits after the last token of each. The logits of a text do not
depend on those beside it, in any bit. All that is known of a text is in its cache, which others may
move (`sliding.py`) or empty between two reads."""


def plain_reader(model: GPT) -> Reader:
    """Read by the model, one text after the other."""

    def read(token_ids: Sequence[Tensor], caches: Sequence[CacheRow]) -> Tensor:
        logits = [model(ids[None], cache)[:, -1] for ids, cache in zip(token_ids, caches)]
        return torch.cat(logits).float()

    return read


def lockstep_reader(model: GPT) -> Reader:
    """Read by the model, all rows of a pool at once, which must be equally long.

    Many times as fast as one after the other, but a text is that of another number of texts only
    as far as rounding does not decide a draw.
    """

    def read(token_ids: Sequence[Tensor], caches: Sequence[CacheRow]) -> Tensor:
        pool, length = caches[0].pool, caches[0].length
        assert [(cache.row, cache.length) for cache in caches] == [
            (row, length) for row in range(pool.keys.shape[1])
        ]
        pool.length = length
        logits = model(torch.stack(list(token_ids)), pool)[:, -1]
        for cache in caches:
            cache.length = pool.length
        return logits.float()

    return read


def reader_for(
    model: GPT,
    compiled: bool | None = None,
    weights: Precision = "float32",
    lockstep: bool = False,
) -> Reader:
    """Choose how a model reads.

    Args:
        model: in evaluation mode.
        compiled: False leaves all to the model; otherwise the compiled step is taken where it can
            be, however short the text, so that a seed gives one text.
        weights: the precision that the compiled step keeps them in.
        lockstep: whether the texts are equally long, so that the model can read them at once.

    Raises:
        UserError: only the compiled step has that precision, and it cannot be taken.
    """
    decoder = decoder_for(model, compiled, weights)
    if decoder is not None:
        return decoder.read
    if weights != "float32":
        raise UserError(
            f"Weights in {weights} are read by the compiled step alone, which takes a processor, "
            f"numba and layers that are Folio's own. Give float32."
        )
    return lockstep_reader(model) if lockstep else plain_reader(model)
