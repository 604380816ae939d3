"""The whole model: embed, blocks, head.

Shapes:  B batch · T positions · C = d_model · V vocabulary (rows of the head)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from folio.model.block import Block
from folio.model.config import ModelConfig
from folio.model.dropout import Dropout
from folio.model.kv_cache import KVCache
from folio.model.normalization import make_norm
from folio.model.positions import ADDED_POSITIONS, RotaryPositions


class GPT(nn.Module):
    """Predicts the next token at each position from the tokens up to it.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        """Build and initialize; `generator` (on the CPU) makes the weights repeatable."""
        super().__init__()
        assert config.vocab_size > 0, "the recipe fills in the tokenizer's size"
        self.config = config
        rotary = RotaryPositions(config) if config.positions == "rope" else None
        normed_inside = config.norm_placement in ("pre", "both")

        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.embedding_scale = config.d_model**0.5 if config.scale_embeddings else 1.0
        self.positions = ADDED_POSITIONS[config.positions](config)
        self.dropout = Dropout(config.embedding_dropout)
        self.blocks = nn.ModuleList(Block(config, rotary) for _ in range(config.n_layers))
        self.final_norm = make_norm(config) if normed_inside else nn.Identity()
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied_head:
            self.lm_head.weight = self.token_embedding.weight

        initialize(self, generator)

    def forward(self, token_ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Compute the logits of the next token at every position.

        Args:
            token_ids: (B, T) whole numbers below V.
            cache: keys and values of earlier positions; extended in place by T.

        Returns:
            (B, T, V) logits.

        Raises:
            ValueError: if the positions, those in the cache included, exceed
                `config.context_length`.
        """
        start = cache.length if cache is not None else 0
        if start + token_ids.shape[1] > self.config.context_length:
            raise ValueError(
                f"{start + token_ids.shape[1]} positions were asked for; the model was built "
                f"for context_length = {self.config.context_length}"
            )
        x = self.token_embedding(token_ids)  # (B, T, C)
        if self.embedding_scale != 1.0:
            x = x * self.embedding_scale
        x = self.dropout(self.positions(x, start))
        layer_caches = cache.layers if cache is not None else [None] * len(self.blocks)
        for block, layer_cache in zip(self.blocks, layer_caches):
            x = block(x, layer_cache)
        return self.lm_head(self.final_norm(x))  # (B, T, V)


def initialize(model: GPT, generator: torch.Generator | None) -> None:
    """Initialize the weights as GPT-2 does.

    Matrices and embeddings are normal; those that write into the residual stream are
    smaller by sqrt(2 * n_layers), since that many of them add up. Biases are 0, gains 1.
    """
    std = model.config.initialization_std
    residual_std = std / (2 * model.config.n_layers) ** 0.5
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            scale = residual_std if name.endswith(("out_proj.weight", "down_proj.weight")) else std
            nn.init.normal_(parameter, std=scale, generator=generator)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)
