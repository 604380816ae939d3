"""The fixed opponent: a textbook GPT-2 in a textbook loop, which imports nothing of Folio.

float32, eager, fused AdamW, gradient clipping, random windows, no evaluation: what a good
engineer writes in an afternoon. It stays as it is, so that ratios against it can be compared
over the years. `bench/training.py` shows that it computes the same function as Folio's `gpt2`.

    python bench/plain_loop.py --text input.txt --steps 200
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    vocab_size: int = 67
    context_length: int = 64
    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 128
    dropout: float = 0.0
    batch_size: int = 12


class PlainBlock(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.d_model
        self.n_heads, self.p = shape.n_heads, shape.dropout
        self.norm_1, self.norm_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm_1(x)).split(d, dim=2)
        q, k, v = (z.view(b, t, self.n_heads, -1).transpose(1, 2) for z in (q, k, v))
        p = self.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        x = x + self.dropout(self.out(y.transpose(1, 2).reshape(b, t, d)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm_2(x)))))


class PlainGPT(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocab_size, shape.d_model)
        self.places = nn.Embedding(shape.context_length, shape.d_model)
        self.dropout = nn.Dropout(shape.dropout)
        self.blocks = nn.ModuleList(PlainBlock(shape) for _ in range(shape.n_layers))
        self.norm = nn.LayerNorm(shape.d_model)
        self.head = nn.Linear(shape.d_model, shape.vocab_size, bias=False)
        self.head.weight = self.tokens.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                into_stream = name.endswith(("out.weight", "down.weight"))
                std = 0.02 / math.sqrt(2 * shape.n_layers) if into_stream else 0.02
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, token_ids: Tensor) -> Tensor:
        places = torch.arange(token_ids.shape[1])
        x = self.dropout(self.tokens(token_ids) + self.places(places))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class PlainLoop:
    """A model, its optimizer, and `step`."""

    def __init__(self, shape: Shape, tokens: np.ndarray, steps: int, seed: int = 1337) -> None:
        torch.manual_seed(seed)
        self.shape, self.steps, self.done = shape, steps, 0
        self.tokens = torch.from_numpy(tokens.astype(np.int64))
        self.model = PlainGPT(shape).train()
        matrices = [p for p in self.model.parameters() if p.dim() >= 2]
        vectors = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": 0.1},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)

    def step(self) -> float:
        warmup = max(1, self.steps // 20)
        fallen = min(max((self.done - warmup) / max(self.steps - warmup, 1), 0), 1)
        share = (
            (self.done + 1) / warmup
            if self.done < warmup
            else 0.1 + 0.45 * (1 + math.cos(math.pi * fallen))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-3 * share
        t = self.shape.context_length
        starts = torch.randint(len(self.tokens) - t, (self.shape.batch_size,))
        x = torch.stack([self.tokens[i : i + t] for i in starts])
        y = torch.stack([self.tokens[i + 1 : i + 1 + t] for i in starts])
        logits = self.model(x)
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.done += 1
        return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description="The fixed opponent: a textbook loop.")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    text = arguments.text.read_text(encoding="utf-8")
    symbols = sorted(set(text))
    tokens = np.array([symbols.index(c) for c in text[: int(0.9 * len(text))]])
    loop = PlainLoop(Shape(vocab_size=len(symbols)), tokens, arguments.steps)
    begin = time.perf_counter()
    for step in range(1, arguments.steps + 1):
        loss = loop.step()
        if step % 100 == 0 or step == arguments.steps:
            print(f"step {step}: loss {loss:.4f}, {time.perf_counter() - begin:.1f} s", flush=True)


if __name__ == "__main__":
    main()
