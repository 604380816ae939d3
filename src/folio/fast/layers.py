"""The layers of a model as processors compute them fast, but for attention.

Each is a subclass of the plain layer with the same parameters under the same names, and leaves what
the kernels do not take to the plain `forward`. `accelerate.py` puts them in place.

Shapes:  B batch · T positions · C = d_model · F = d_ff · V vocabulary
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from folio.fast import functions
from folio.fast.calls import serves
from folio.fast.int8 import Int8Linear, Int8Weight
from folio.model.block import Block
from folio.model.dropout import Dropout
from folio.model.feed_forward import FeedForward, GatedFeedForward
from folio.model.kv_cache import LayerCache
from folio.model.positions import LearnedPositions


class FastLinear(nn.Linear):
    """`nn.Linear` with fewer passes for the bias; or one that learns by int8 products."""

    int8_weight: Int8Weight | None = None
    """The int8 weights used in training; must be refreshed after the weights have changed."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., C) -> (..., F)."""
        if input.dtype != self.weight.dtype or not serves(input):
            return super().forward(input)
        if self.int8_weight is not None and self.training:
            return Int8Linear.apply(input, self.weight, self.bias, self.int8_weight)
        if self.bias is not None:
            return functions.Linear.apply(input, self.weight, self.bias)
        return super().forward(input)


class FastEmbedding(nn.Embedding):
    """`nn.Embedding`, whose gradients are added up in float32."""

    def forward(self, input: Tensor) -> Tensor:
        """(...) token ids below V -> (..., C)."""
        options = self.padding_idx, self.max_norm, self.scale_grad_by_freq or None
        if not serves(self.weight) or any(option is not None for option in options):
            return super().forward(input)
        return functions.Embedding.apply(input, self.weight)


class FastLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` in one pass forward and one backward."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.fork(input)[0]

    def fork(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the norm of x, and x itself; see `fork`."""
        if serves_norm(self, x):
            return functions.LayerNorm.apply(x, self.weight, self.bias, self.eps)
        return super().forward(x), x


class FastRMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` in one pass forward and one backward."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.fork(x)[0]

    def fork(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the norm of x, and x itself; see `fork`."""
        if serves_norm(self, x):
            return functions.RMSNorm.apply(x, self.weight, self.eps)
        return super().forward(x), x


def serves_norm(norm: nn.LayerNorm | nn.RMSNorm, x: Tensor) -> bool:
    """Whether the kernels take a norm of x: with a gain, over one dimension, and an epsilon."""
    has_gain = norm.elementwise_affine and len(norm.normalized_shape) == 1
    return has_gain and norm.eps is not None and serves(x)


def fork(norm: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return norm(x), and x for what goes past the norm: both gradients are added in one pass."""
    return norm.fork(x) if isinstance(norm, (FastLayerNorm, FastRMSNorm)) else (norm(x), x)


class FastDropout(Dropout):
    """`Dropout` that hashes each position with a seed, so that no mask is kept."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop numbers of a tensor of any shape; the shape stays."""
        if not self.active or not serves(x):
            return super().forward(x)
        return functions.Drop.apply(x, self.draw_seeds(), self.p)

    def draw_seeds(self, n: int = 1) -> Tensor:
        """Draw (n,) names of masks, of 63 bits each."""
        return torch.empty(n, dtype=torch.int64).random_(generator=self.generator)


def add_dropped(x: Tensor, change: Tensor, dropout: nn.Module) -> Tensor:
    """x + dropout(change), in one pass where it can be."""
    is_alike = x.dtype == change.dtype and x.shape == change.shape
    if not isinstance(dropout, FastDropout) or not is_alike or not serves(x):
        return x + dropout(change)
    x, change = x.contiguous(), change.contiguous()
    if dropout.active:
        return functions.AddDropped.apply(x, change, dropout.draw_seeds(), dropout.p)
    return functions.Add.apply(x, change)


class FastLearnedPositions(LearnedPositions):
    """`LearnedPositions` in one pass."""

    def forward(self, x: Tensor, start: int) -> Tensor:
        """Add the positions start ... start + T - 1 to x: (B, T, C) -> (B, T, C)."""
        if x.dtype != self.weight.dtype or not serves(x):
            return super().forward(x, start)
        return functions.AddPositions.apply(x, self.weight, start)


class FastFeedForward(FeedForward):
    """`FeedForward`, where its activation is GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, F) -> (B, T, C)."""
        wide = self.up_proj(x)
        if self.activation is not F.gelu or not serves(wide):
            return self.down_proj(self.activation(wide))
        return self.down_proj(functions.GELU.apply(wide))


class FastGatedFeedForward(GatedFeedForward):
    """`GatedFeedForward`, whose SwiGLU is one pass."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, F) -> (B, T, C)."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        if not serves(gate):
            return self.down_proj(F.silu(gate) * up)
        return self.down_proj(functions.SwiGLU.apply(gate, up))


class FastBlock(Block):
    """`Block`, whose sums are one pass, forward and backward."""

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Change the residual stream twice: (B, T, C) -> (B, T, C)."""
        normed, x = fork(self.attention_norm, x)
        y = self.attention_exit_norm(self.attention(normed, cache))
        x = self.attention_sum_norm(add_dropped(x, y, self.dropout))
        normed, x = fork(self.feed_forward_norm, x)
        y = self.feed_forward_exit_norm(self.feed_forward(normed))
        return self.feed_forward_sum_norm(add_dropped(x, y, self.dropout))
