"""A GPT that is read beside the n-grams of its training text."""

from __future__ import annotations

import copy
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.model.kv_cache import KVCache
from folio.ngrams.table import NGrams
from folio.ngrams.weights import Weights
from folio.ngrams.window import expected_in_window


class GPTWithNGrams(GPT):
    """Predicts the next token by the product of what a GPT and n-grams say (weights.py).

    The n-grams see what the model sees: the tokens of the window, and those in the cache. When a
    text is read, these are counted, too (window.py). When one is written, they are not: it would
    repeat what it once wrote, since nobody but itself is there to say something new.
    """

    def __init__(
        self, config: ModelConfig, ngrams: NGrams, weights: Weights, to_read: Weights | None = None
    ) -> None:
        """Build a GPT, whose weights are to be loaded, beside n-grams.

        Args:
            config: of the GPT.
            ngrams: may know more ids: an exported model has no rows that only pad its vocabulary.
            weights: to write with.
            to_read: to read texts with; the same by default.
        """
        super().__init__(config)
        self.ngrams, self.weights, self.to_read = ngrams, weights, to_read or weights
        self._read: WeakKeyDictionary[KVCache, Tensor] = WeakKeyDictionary()
        """The tokens in each cache: (B, n)."""

    def reading(self) -> GPTWithNGrams:
        """The same model as it reads a text, of which it says how likely it is."""
        model = copy.copy(self)
        model.weights = self.to_read
        return model

    def forward(self, token_ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Compute the logits of the next token at every position; as `GPT.forward`."""
        before = token_ids[:, :0]
        if cache is not None and cache.length:
            before = self._read[cache][:, -cache.length :]
        logits = super().forward(token_ids, cache)
        seen = torch.cat((before, token_ids), dim=1)
        if cache is not None:
            self._read[cache] = seen
        k, n_last = self.weights.window, token_ids.shape[1]
        found = expected_in_window(self.ngrams, seen.cpu().numpy(), k, n_last)
        found = found[..., : logits.shape[-1]]
        log_probabilities = torch.from_numpy(found).to(logits.device).log()
        return self.weights.product(logits.float(), log_probabilities)
