"""A GPT that is read beside the n-grams of its training text."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.model.kv_cache import KVCache
from folio.ngrams.table import NGrams
from folio.ngrams.weights import Weights
from folio.ngrams.window import WindowRule, count_window, mix_in


class GPTWithNGrams(GPT):
    """Predicts the next token by the product of what a GPT and n-grams say (weights.py).

    The n-grams see what the model sees: the tokens of the window, and those in the cache. When a
    text is read, what stands earlier in the window counts, too (window.py). When one is written, it
    does not: the model would repeat what it once wrote, since nobody else says something new.
    """

    def __init__(
        self,
        config: ModelConfig,
        ngrams: NGrams,
        weights: Weights,
        rule: WindowRule | None = None,
    ) -> None:
        """Build a GPT, whose weights are to be loaded, beside n-grams.

        Args:
            config: of the GPT.
            ngrams: may know more ids: an exported model has no rows that only pad its vocabulary.
            weights: of the product.
            rule: how much the window counts when a text is read; None if it does not.
        """
        super().__init__(config)
        self.ngrams, self.weights, self.rule = ngrams, weights, rule
        self.is_reading = False

    def reading(self) -> GPTWithNGrams:
        """The same model as it reads a text, of which it says how likely it is."""
        model = copy.copy(self)
        model.is_reading = True
        return model

    def forward(self, token_ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Compute the logits of the next token at every position; as `GPT.forward`."""
        before = token_ids[:, :0]
        if cache is not None and cache.length:
            assert cache.token_ids is not None
            before = cache.token_ids[:, -cache.length :].expand(len(token_ids), -1)
        logits = super().forward(token_ids, cache)
        seen = torch.cat((before, token_ids), dim=1)
        if cache is not None:
            cache.token_ids = seen
        ids, n_last = seen.cpu().numpy(), token_ids.shape[1]
        near = ids[:, -(n_last + self.ngrams.order) :]
        found = self.ngrams.probabilities(near)[:, -n_last:, : logits.shape[-1]]
        log_probabilities = torch.from_numpy(found).to(logits.device).log()
        logits = self.weights.product(logits.float(), log_probabilities)
        if self.rule is None or not self.is_reading:
            return logits
        expected = logits.softmax(-1).cpu().numpy()
        for rows, window in zip(expected, ids):
            mix_in(rows, count_window(window, n_last), self.rule)
        above_0 = torch.from_numpy(expected).clamp_min_(torch.finfo(torch.float32).tiny)
        return above_0.to(logits.device).log()
