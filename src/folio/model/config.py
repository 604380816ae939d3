"""The shape of a GPT, checked once. Free of torch, so that a recipe is read in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from folio.config import require
from folio.errors import UserError

PositionKind = Literal["none", "learned", "sinusoidal", "rope"]
NormalizationKind = Literal["layernorm", "rmsnorm"]
NormPlacement = Literal["pre", "post", "both", "none"]
ActivationKind = Literal["relu", "gelu", "gelu_tanh", "relu2", "swiglu"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only transformer; the defaults are a tiny GPT-2."""

    vocab_size: int = 0
    """Rows of the embedding and of the head. 0 takes the tokenizer's size; further rows only pad
    the matrices and are never sampled."""

    context_length: int = 64
    """Most tokens that a prediction may look back on."""

    n_layers: int = 4
    """Number of blocks, each attention and then feed-forward."""

    n_heads: int = 4
    """Number of attention heads; divides d_model, unless head_dim is given."""

    n_kv_heads: int = 0
    """Number of key and value heads, shared by groups of query heads
    (https://arxiv.org/abs/2305.13245). 0 means n_heads."""

    d_model: int = 128
    """Width of the residual stream."""

    head_dim: int = 0
    """Width of one attention head. 0 means d_model / n_heads."""

    d_ff: int = 0
    """Width inside the feed-forward layer. 0 means four times d_model; in a gated layer 8/3 of it,
    rounded up to a multiple of 32, which gives as many parameters."""

    positions: PositionKind = "learned"
    """How positions are encoded."""

    rope_base: float = 10_000.0
    """Base of the rotary frequencies: pair i of D / 2 turns by base^(-2 i / D) radians per position
    (https://arxiv.org/abs/2104.09864)."""

    normalization: NormalizationKind = "layernorm"
    """The kind of norm."""

    norm_placement: NormPlacement = "pre"
    """Where norms are: before each sublayer, after the sum, on both ends of the sublayer, or
    nowhere."""

    normalization_epsilon: float = 1e-5
    """Added to the variance before the square root."""

    qk_norm: bool = False
    """Normalize queries and keys in each head (https://arxiv.org/abs/2010.04245)."""

    activation: ActivationKind = "gelu"
    """Nonlinearity of the feed-forward layer; gelu_tanh is GPT-2's approximation of GELU."""

    bias: bool = True
    """Whether linear layers and LayerNorm have a bias."""

    tied_head: bool = True
    """Whether the head shares its weights with the token embedding
    (https://arxiv.org/abs/1608.05859)."""

    scale_embeddings: bool = False
    """Multiply token embeddings by sqrt(d_model), as Vaswani et al. 2017 do."""

    embedding_dropout: float = 0.0
    """Probability of setting a number of the embedded input to zero in training."""

    attention_dropout: float = 0.0
    """Probability of setting an attention weight to zero in training."""

    residual_dropout: float = 0.0
    """Probability of setting a number of a sublayer's output to zero in training."""

    initialization_std: float = 0.02
    """Standard deviation of every matrix at initialization; projections into the residual stream
    are divided by sqrt(2 * n_layers), as in GPT-2."""

    def __post_init__(self) -> None:
        counts = "context_length", "n_layers", "n_heads", "d_model"
        require(self, "model", "at least 1", lambda x: x >= 1, *counts)
        or_none = "vocab_size", "n_kv_heads", "head_dim", "d_ff"
        require(self, "model", "0 or more", lambda x: x >= 0, *or_none)
        if not self.head_dim and self.d_model % self.n_heads:
            unit = self.n_heads * (2 if self.positions == "rope" else 1)
            raise UserError(
                f"model.d_model must be divisible by model.n_heads, got {self.d_model} and "
                f"{self.n_heads}. Give --model.d-model {-(-self.d_model // unit) * unit}, another "
                f"number of heads, or --model.head-dim."
            )
        if self.n_heads % self.key_value_heads:
            raise UserError(
                f"model.n_heads must be divisible by model.n_kv_heads, got {self.n_heads} and "
                f"{self.n_kv_heads}: equally many query heads share each key head."
            )
        if self.positions == "rope" and self.head_width % 2:
            even = self.head_width + 1
            fix = f"head-dim {even}" if self.head_dim else f"d-model {self.n_heads * even}"
            raise UserError(
                f"The width of a head must be even for rotary positions, which turn pairs, got "
                f"{self.head_width}. Give --model.{fix}."
            )
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise UserError(
                f"model.d_model must be even for sinusoidal positions, which are pairs, got "
                f"{self.d_model}. Give --model.d-model {self.d_model + 1}."
            )
        dropouts = "embedding_dropout", "attention_dropout", "residual_dropout"
        require(self, "model", "a share, 0 to below 1", lambda x: 0 <= x < 1, *dropouts)
        positive = "rope_base", "normalization_epsilon", "initialization_std"
        require(self, "model", "above 0", lambda x: x > 0, *positive)

    @property
    def head_width(self) -> int:
        """Width of one attention head, the default filled in."""
        return self.head_dim or self.d_model // self.n_heads

    @property
    def attention_width(self) -> int:
        """Width of all heads side by side: d_model, unless head_dim is given."""
        return self.n_heads * self.head_width

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values, the default filled in."""
        return self.n_kv_heads or self.n_heads

    @property
    def feed_forward_width(self) -> int:
        """Width inside the feed-forward layer, the default filled in."""
        if self.d_ff:
            return self.d_ff
        if self.activation == "swiglu":
            return -(-8 * self.d_model // 3 // 32) * 32
        return 4 * self.d_model

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters of a model of this shape; a tied head counts once."""
        d, w, kv = self.d_model, self.attention_width, self.key_value_heads * self.head_width
        norm = 2 if self.bias and self.normalization == "layernorm" else 1  # for each dimension
        attention = 2 * d * w + 2 * d * kv + (w + d + 2 * kv if self.bias else 0)
        attention += 2 * norm * self.head_width if self.qk_norm else 0
        width, n_wide = self.feed_forward_width, 2 if self.activation == "swiglu" else 1
        feed_forward = (n_wide + 1) * d * width + (n_wide * width + d if self.bias else 0)
        norms_a_block = {"pre": 2, "post": 2, "both": 4, "none": 0}[self.norm_placement]
        block = attention + feed_forward + norms_a_block * norm * d
        final_norm = norm * d if self.norm_placement in ("pre", "both") else 0
        learned = self.context_length * d if self.positions == "learned" else 0
        embeddings = self.vocab_size * d * (1 if self.tied_head else 2)
        return embeddings + learned + self.n_layers * block + final_norm
