"""Keeps everything that happens in one forward pass.

Shapes:  B batch · T positions · L layers · H heads · C = d_model · V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from folio.console import amount
from folio.errors import UserError
from folio.model.attention import Attention, causal_mask
from folio.model.gpt import GPT
from folio.run.model import Model

ALTERNATIVES = 10
NEIGHBOURS = 6
MAPPED = 300
"""Tokens on the map of embeddings, in addition to those of the text."""
COUNTED = 10_000_000
"""How many tokens of the training text are counted to find the frequent ones."""


@dataclass(frozen=True)
class LayerAttention:
    """The attention of one layer's heads."""

    scores: Tensor
    """(H, T, T) query times key over sqrt(D), before the mask."""
    weights: Tensor
    """(H, T, T) after mask and softmax; each row sums to 1."""

    @property
    def masked(self) -> Tensor:
        """(H, T, T) scores, -inf where a position would see later ones."""
        t = self.scores.shape[1]
        return self.scores.masked_fill(~causal_mask(t, t, self.scores.device), float("-inf"))


@dataclass(frozen=True)
class ForwardTrace:
    """The result of one forward pass over a text."""

    token_ids: list[int]
    """(T,) the text as token ids."""
    pieces: list[str]
    """(T,) the text of each token."""
    log_probabilities: Tensor
    """(T, V) log probability of every token as the next one, in nats."""
    attention: list[LayerAttention]
    """One entry per layer."""
    left_out: int = 0
    """Tokens after the first T, which the model cannot read at once."""

    @property
    def surprisal(self) -> list[float | None]:
        """(T,) -log(probability) of each token given those before it, in nats; None for the
        first.
        """
        rows = zip(self.log_probabilities, self.token_ids[1:])
        return [None, *(-row[token_id].item() for row, token_id in rows)]

    def alternatives(self, position: int) -> list[tuple[int, float]]:
        """The likeliest next tokens at a position, with their probabilities."""
        n = min(ALTERNATIVES, self.log_probabilities.shape[1])
        best = self.log_probabilities[position].exp().topk(n)
        return list(zip(best.indices.tolist(), best.values.tolist()))


@torch.no_grad()
def look_at(opened: Model, text: str) -> ForwardTrace:
    """Run one forward pass over a text and keep its inner values.

    Raises:
        UserError: a text of fewer than two tokens, or with unknown characters.
    """
    model, tokenizer = opened.model, opened.tokenizer
    token_ids = tokenizer.encode_prompt(text).tolist()
    if len(token_ids) < 2:
        raise UserError(
            f"The text has {amount(len(token_ids), 'token')}; a second one is needed to be "
            f"predicted."
        )
    left_out = max(0, len(token_ids) - model.config.context_length)
    token_ids = token_ids[: model.config.context_length]
    device = next(model.parameters()).device
    with attention_seen(model) as layers:
        logits = model(torch.tensor([token_ids], device=device))[0]  # (T, V)
    # Rows that only pad the head share in the probabilities, and are no tokens.
    log_probabilities = logits.float().log_softmax(dim=1)[:, : tokenizer.vocab_size].cpu()
    pieces = [tokenizer.decode([token_id]) for token_id in token_ids]
    return ForwardTrace(token_ids, pieces, log_probabilities, layers, left_out)


@contextmanager
def attention_seen(model: GPT) -> Iterator[list[LayerAttention]]:
    """A context manager whose list receives one LayerAttention per layer while the model reads one
    text (B = 1).
    """
    seen: list[LayerAttention] = []

    def note(layer: Attention, arguments: tuple[Tensor, ...]) -> None:
        queries, keys, _ = layer.project(arguments[0])  # (1, H, T, D)
        keys = keys.repeat_interleave(layer.n_heads // layer.n_kv_heads, dim=1)
        scores = (queries @ keys.transpose(2, 3) / queries.shape[3] ** 0.5)[0].float().cpu()
        look = LayerAttention(scores, torch.empty(0))
        seen.append(LayerAttention(scores, look.masked.softmax(dim=2)))

    layers = [module for module in model.modules() if isinstance(module, Attention)]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class EmbeddingMap:
    """Some tokens in the plane, near each other if their embeddings are."""

    token_ids: list[int]
    points: Tensor
    """(n, 2) coordinates."""
    explained: float
    """Share of the variance that two dimensions keep."""
    neighbours: list[list[tuple[int, float]]]
    """For each token the nearest ones with their cosine similarity, nearest first."""


@torch.no_grad()
def map_embeddings(opened: Model, token_ids: list[int]) -> EmbeddingMap:
    """Project token embeddings to two principal components: tokens of the text, and frequent ones.

    Tokens that were never trained are left out: they stayed at their initial values, and the two
    dimensions would only separate them from the rest.

    Args:
        opened: the run.
        token_ids: the text; all its tokens are on the map.
    """
    embeddings = opened.model.token_embedding.weight.float().cpu()[: opened.tokenizer.vocab_size]
    special = set(opened.tokenizer.special_tokens.values())
    counts = np.ones(len(embeddings), np.int64)  # without the training text, the first ids
    if opened.has_text:
        counts = np.bincount(opened.training()[:COUNTED], minlength=len(embeddings))
    frequent = [i for i in np.argsort(-counts, kind="stable").tolist() if i not in special]
    shown = sorted({*token_ids, *(i for i in frequent[:MAPPED] if counts[i])})
    centred = embeddings[shown] - embeddings[shown].mean(dim=0)
    _, singular, components = torch.linalg.svd(centred, full_matrices=False)
    points = centred @ components[:2].T  # (n, C) @ (C, 2) -> (n, 2)
    explained = (singular[:2].square().sum() / singular.square().sum()).item()
    directions = torch.nn.functional.normalize(embeddings, dim=1)
    neighbours = []
    for token_id in shown:
        cosines = directions @ directions[token_id]  # (V,)
        cosines[[token_id, *special]] = -2.0
        best = cosines.topk(min(NEIGHBOURS, len(cosines) - 1 - len(special)))
        neighbours.append(list(zip(best.indices.tolist(), best.values.tolist())))
    return EmbeddingMap(shown, points, explained, neighbours)


@torch.no_grad()
def position_tables(model: GPT) -> dict[str, Tensor]:
    """(T, C) tables that encode positions: the model's own, and the sinusoidal one for
    comparison.
    """
    from folio.model.positions import LearnedPositions, SinusoidalPositions

    config = model.config
    tables: dict[str, Tensor] = {}
    if isinstance(model.positions, LearnedPositions):
        tables["learned"] = model.positions.weight.float().cpu()
    width = config.d_model + config.d_model % 2
    even = replace(config, d_model=width, n_heads=1, n_kv_heads=0, head_dim=0)
    tables["sinusoidal"] = SinusoidalPositions(even).table
    return tables
