"""The model as a reader, and who reads for a model: itself, or a compiled step that gives the same.

Shapes:  B texts · T new tokens of one of them · V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from folio.errors import UserError
from folio.fast.packing import Precision
from folio.fast.stand_in import decoder_for
from folio.generation.reader import Reader
from folio.generation.sliding import slide_for
from folio.generation.with_ngrams import ReaderWithNGrams
from folio.model.gpt import GPT
from folio.model.kv_cache import CacheRow, KVCache
from folio.ngrams.gpt import GPTWithNGrams


class PlainReader:
    """Reads by the model, one text after the other; a `Reader`."""

    def __init__(self, model: GPT) -> None:
        """Take a model in evaluation mode, on any device."""
        self.model, self.slide = model, slide_for(model)
        self.context_length = model.config.context_length

    def caches(self, n: int) -> list[CacheRow]:
        return KVCache(self.model.config, n, like=self.model.lm_head.weight).rows()

    def read(
        self, token_ids: Sequence[Sequence[int]], caches: Sequence[CacheRow]
    ) -> NDArray[np.float32]:
        device = self.model.lm_head.weight.device
        with torch.inference_mode():
            each = [
                self.model(torch.tensor([ids], device=device), cache)[:, -1]  # (1, T) -> (1, V)
                for ids, cache in zip(token_ids, caches)
            ]
            return torch.cat(each).float().cpu().numpy()

    @torch.inference_mode()
    def forget(self, cache: CacheRow, n: int) -> bool:
        if self.slide is None:
            return False
        self.slide(cache, n)
        return True


def reader_for(model: GPT, compiled: bool | None = None, weights: Precision = "float32") -> Reader:
    """Choose how a model reads.

    Args:
        model: in evaluation mode.
        compiled: False leaves all to the model; otherwise the compiled step is taken where it can
            be, however short the text, so that a seed gives one text.
        weights: the precision that the compiled step keeps them in.

    Raises:
        UserError: only the compiled step has that precision, and it cannot be taken.
    """
    decoder = decoder_for(model, compiled, weights)
    if decoder is not None and isinstance(model, GPTWithNGrams):
        return ReaderWithNGrams(decoder, model.ngrams, model.weights)
    if decoder is not None:
        return decoder
    if weights != "float32":
        raise UserError(
            f"Weights in {weights} are read by the compiled step alone, which takes a processor, "
            f"numba and layers that are Folio's own. Give float32."
        )
    return PlainReader(model)
