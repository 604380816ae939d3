"""A GPT as Folio trains it, for transformers: any of its shapes, without a cache, and the n-grams
of its training text where it is read beside them.

AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu2": lambda x: F.relu(x).square(),
}
NO_PADDING = "This model reads no padding: give it texts of one length, or one after the other."


class FolioConfig(PretrainedConfig):
    """The config; Folio's own settings are under `folio`, those of n-grams under `ngrams`."""

    model_type = "folio"

    def __init__(
        self,
        folio: dict[str, Any] | None = None,
        ngrams: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        self.folio, self.ngrams = folio or {}, ngrams
        super().__init__(**others)


def make_norm(c: dict[str, Any], width: int) -> nn.Module:
    """(..., width) -> (..., width)."""
    if c["normalization"] == "rmsnorm":
        return nn.RMSNorm(width, eps=c["normalization_epsilon"])
    return nn.LayerNorm(width, eps=c["normalization_epsilon"], bias=c["bias"])


def waves(length: int, width: int, base: float) -> tuple[Tensor, Tensor]:
    """(length, width / 2) sines and cosines of each position."""
    frequencies = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies).float()
    return angles.sin(), angles.cos()


class Attention(nn.Module):
    """(B, T, C) -> (B, T, C)."""

    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        self.c, self.h = c, c["n_heads"]
        self.k = c["n_kv_heads"] or self.h
        self.d = c["head_dim"] or c["d_model"] // self.h
        self.qkv_proj = nn.Linear(c["d_model"], (self.h + 2 * self.k) * self.d, bias=c["bias"])
        self.out_proj = nn.Linear(self.h * self.d, c["d_model"], bias=c["bias"])
        self.q_norm = make_norm(c, self.d) if c["qk_norm"] else nn.Identity()
        self.k_norm = make_norm(c, self.d) if c["qk_norm"] else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            self.qkv_proj(x)
            .unflatten(2, (-1, self.d))
            .transpose(1, 2)
            .split((self.h, self.k, self.k), dim=1)
        )
        q, k = self.q_norm(q), self.k_norm(k)
        if self.c["positions"] == "rope":
            sin, cos = waves(x.shape[1], self.d, self.c["rope_base"])
            sin, cos = (torch.cat(pair, 1).to(q) for pair in ((-sin, sin), (cos, cos)))
            q, k = (z * cos + z.roll(self.d // 2, 3) * sin for z in (q, k))
        k, v = (z.repeat_interleave(self.h // self.k, 1) for z in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """(B, T, C) -> (B, T, C)."""

    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        d, gated = c["d_model"], c["activation"] == "swiglu"
        f = c["d_ff"] or (-(-8 * d // 3 // 32) * 32 if gated else 4 * d)
        self.gate_proj = nn.Linear(d, f, bias=c["bias"]) if gated else None
        self.up_proj = nn.Linear(d, f, bias=c["bias"])
        self.down_proj = nn.Linear(f, d, bias=c["bias"])
        self.bend = ACTIVATIONS.get(c["activation"], F.silu)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.up_proj(x)
        gate = self.gate_proj
        return self.down_proj(self.bend(wide) if gate is None else self.bend(gate(x)) * wide)


class Block(nn.Module):
    """Attention, then feed-forward, each added to what comes in: (B, T, C) -> (B, T, C)."""

    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        for side, layer in (("attention", Attention(c)), ("feed_forward", FeedForward(c))):
            self.add_module(side, layer)
            there = {
                "norm": c["norm_placement"] in ("pre", "both"),
                "exit_norm": c["norm_placement"] == "both",
                "sum_norm": c["norm_placement"] == "post",
            }
            for name, is_there in there.items():
                norm = make_norm(c, c["d_model"]) if is_there else nn.Identity()
                self.add_module(f"{side}_{name}", norm)

    def forward(self, x: Tensor) -> Tensor:
        for side in ("attention", "feed_forward"):
            change = getattr(self, side)(getattr(self, f"{side}_norm")(x))
            x = getattr(self, f"{side}_sum_norm")(x + getattr(self, f"{side}_exit_norm")(change))
        return x


class Positions(nn.Module):
    """One trained vector for each position."""

    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(c["context_length"], c["d_model"]))


class Step(NamedTuple):
    """From n-grams, the parents, to those of one token more, their children."""

    n_children: Tensor
    first: Tensor
    """Of each parent: its first child; the others follow."""
    tokens: Tensor
    """The last token of each child."""
    keys: Tensor
    """Of each child: number of the parent * V + token, ascending."""
    gains: Tensor
    """Of each child: its own part of the probability of its last token."""
    rests: Tensor
    """Of each parent: the weight that is left to what fewer tokens say."""


class NGrams(nn.Module):
    """(B, T) token ids -> (B, T, V) probabilities of the next token, by counting in the training
    text what followed the last tokens: interpolated Kneser-Ney with three discounts (Chen &
    Goodman 1999, https://doi.org/10.1006/csla.1999.0128).

    The n-grams of n tokens are level n of a tree; the children of one are those of a token more
    that begin with it. They are kept as whole numbers, which no type of weights rounds.
    """

    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        self.c = c
        self.steps: list[Step] = []
        for n, size in enumerate(c["sizes"], 1):
            for name in ("tokens", "counts", "children"):
                self.register_buffer(f"{name}_{n}", torch.zeros(size, dtype=torch.int32))

    def derive(self) -> list[Step]:
        """Probabilities from counts, in float64 on the CPU."""
        steps, children = [], torch.tensor(self.c["sizes"][:1])  # of the empty n-gram
        for n, discounts in enumerate(self.c["discounts"], 1):
            level = (getattr(self, f"{name}_{n}") for name in ("tokens", "counts", "children"))
            tokens, counts, following = (x.cpu().long() for x in level)
            taken = torch.tensor(discounts, dtype=torch.float64)[counts.clamp(max=3) - 1]
            parents = torch.arange(len(children)).repeat_interleave(children)
            zeros = torch.zeros(len(children), dtype=torch.float64)
            total = zeros.index_add(0, parents, counts.double()).clamp(min=1)
            gains = ((counts - taken) / total[parents]).float()
            rests = (zeros.index_add(0, parents, taken) / total).float()
            keys = parents * self.c["vocab_size"] + tokens
            steps.append(Step(children, children.cumsum(0) - children, tokens, keys, gains, rests))
            children = following
        return steps

    def forward(self, token_ids: Tensor) -> Tensor:
        token_ids, device, v = token_ids.long(), token_ids.device, self.c["vocab_size"]
        if not self.steps or self.steps[0].keys.device != device:
            self.steps = [Step(*(x.to(device) for x in step)) for step in self.derive()]
        p = torch.full((token_ids.numel(), v), 1 / v, dtype=torch.float32, device=device)
        ending = torch.zeros_like(token_ids)  # the n-gram that ends at each place; -1 for none
        for n, step in enumerate(self.steps):
            rows = (ending.flatten() >= 0).nonzero()[:, 0]
            parents = ending.flatten()[rows]
            rows, parents = (x[step.n_children[parents] > 0] for x in (rows, parents))
            many = step.n_children[parents]
            # Children of one parent follow each other; so do they here, from `begin` on.
            begin = many.cumsum(0) - many
            children = (step.first[parents] - begin).repeat_interleave(many)
            children = children + torch.arange(len(children), device=device)
            p[rows] *= step.rests[parents, None]
            p[rows.repeat_interleave(many), step.tokens[children]] += step.gains[children]
            before = F.pad(ending[:, :-1], (1, 0), value=-1 if n else 0)
            keys = before * v + token_ids
            found = torch.searchsorted(step.keys, keys).clamp(max=len(step.keys) - 1)
            ending = found.where((before >= 0) & (step.keys[found] == keys), -1)
        return p.unflatten(0, token_ids.shape)


class FolioForCausalLM(PreTrainedModel, GenerationMixin):
    """(B, T) token ids -> (B, T, V) logits."""

    config_class = FolioConfig
    _tied_weights_keys = {"lm_head.weight": "token_embedding.weight"}  # noqa: RUF012

    def __init__(self, config: FolioConfig) -> None:
        super().__init__(config)
        c = self.c = config.folio
        self.token_embedding = nn.Embedding(c["vocab_size"], c["d_model"])
        self.positions: Any = Positions(c) if c["positions"] == "learned" else nn.Identity()
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["n_layers"]))
        normed_inside = c["norm_placement"] in ("pre", "both")
        self.final_norm = make_norm(c, c["d_model"]) if normed_inside else nn.Identity()
        self.lm_head = nn.Linear(c["d_model"], c["vocab_size"], bias=False)
        self.ngrams = NGrams(config.ngrams) if config.ngrams else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.token_embedding

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Any
    ) -> dict[str, Any]:
        """Folio reads the last context again, for want of a cache."""
        if attention_mask is not None and not attention_mask.all():
            raise ValueError(NO_PADDING)
        return {"input_ids": input_ids[:, -self.c["context_length"] :]}

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **others: Any,
    ) -> CausalLMOutput:
        """Padding behind a text changes nothing, since no position sees later ones.

        Args:
            input_ids: (B, T), at most as many positions as were learned, if they were.
            attention_mask: (B, T).
            labels: (B, T) usually the ids themselves, -100 where none counts; with them comes the
                mean loss of each but the first, given those before it.
        """
        if attention_mask is not None and (attention_mask.int().diff() > 0).any():
            raise ValueError(NO_PADDING)
        x, t = self.token_embedding(input_ids), input_ids.shape[1]
        if self.c["positions"] == "learned" and t > self.c["context_length"]:
            most = self.c["context_length"]
            raise ValueError(
                f"The model has learned {most} positions, and the text has {t} tokens."
            )
        if self.c["scale_embeddings"]:
            x = x * self.c["d_model"] ** 0.5
        if self.c["positions"] == "learned":
            x = x + self.positions.weight[:t]
        elif self.c["positions"] == "sinusoidal":
            x = x + torch.stack(waves(t, self.c["d_model"], 10_000.0), -1).flatten(1).to(x)
        for block in self.blocks:
            x = block(x)
        logits = self.lm_head(self.final_norm(x))
        if self.ngrams is not None:  # p = model ^ a * n-grams ^ b / what makes the sum 1
            weights = self.ngrams.c["weights"]
            log_p = self.ngrams(input_ids)[:, :, : logits.shape[2]].log()
            logits = weights["model"] * logits.float() + weights["ngrams"] * log_p
        loss = None
        if labels is not None:
            rows = logits[:, :-1].flatten(0, 1).float()
            loss = F.cross_entropy(rows, labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)
