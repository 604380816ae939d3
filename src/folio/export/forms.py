"""Other forms of the same model: what one graph says by a setting, another says by its weights.

Each function takes a config and its tensors and gives a config and tensors that compute the same
logits. The names are Folio's own; `names.py` translates them.

Shapes:  C = d_model · H heads · K heads of keys and values · D head dimension · V vocabulary
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.model.positions import SinusoidalPositions

Tensors = dict[str, Tensor]
Form = tuple[ModelConfig, Tensors]


def without_padding(config: ModelConfig, tensors: Tensors, n_ids: int) -> Form:
    """Cut off the rows that only pad the vocabulary: other programs would draw them."""
    rows = {
        name: tensor[:n_ids] if name in ("token_embedding.weight", "lm_head.weight") else tensor
        for name, tensor in tensors.items()
    }
    return replace(config, vocab_size=n_ids), rows


def with_plain_embeddings(config: ModelConfig, tensors: Tensors) -> Form:
    """Multiply the embeddings themselves, where the config does; the head keeps its own rows."""
    if not config.scale_embeddings:
        return config, tensors
    embedding = tensors["token_embedding.weight"]
    changed = dict(tensors)
    changed.setdefault("lm_head.weight", embedding)
    changed["token_embedding.weight"] = embedding * config.d_model**0.5
    return replace(config, scale_embeddings=False, tied_head=False), changed


def with_own_head(config: ModelConfig, tensors: Tensors) -> Form:
    """Write the head out where it is the embedding."""
    head = tensors["token_embedding.weight"]
    return replace(config, tied_head=False), {"lm_head.weight": head} | tensors


def with_learned_positions(config: ModelConfig, tensors: Tensors) -> Form:
    """Write sinusoidal positions as a table, and no positions as a table of zeros."""
    if config.positions in ("learned", "rope"):
        return config, tensors
    table = torch.zeros(config.context_length, config.d_model)
    if config.positions == "sinusoidal":
        table = SinusoidalPositions(config).table
    return replace(config, positions="learned"), tensors | {"positions.weight": table}


def with_padded_positions(config: ModelConfig, tensors: Tensors, multiple: int) -> Form:
    """Repeat the last learned position up to a multiple: a program that rounds a context up reads
    beyond the table.
    """
    padding = -config.context_length % multiple
    if config.positions != "learned" or not padding:
        return config, tensors
    table = tensors["positions.weight"]
    padded = torch.cat((table, table[-1:].expand(padding, -1)))
    longer = replace(config, context_length=len(padded))
    return longer, tensors | {"positions.weight": padded}


def with_heads_of_their_own(config: ModelConfig, tensors: Tensors) -> Form:
    """Repeat the keys and values that a group of query heads shares."""
    h, k, d = config.n_heads, config.key_value_heads, config.head_width
    if h == k:
        return config, tensors
    changed = dict(tensors)
    for name, tensor in tensors.items():
        if ".qkv_proj." in name:
            q, *shared = tensor.split((h * d, k * d, k * d))
            own = [
                z.unflatten(0, (k, d)).repeat_interleave(h // k, 0).flatten(0, 1) for z in shared
            ]
            changed[name] = torch.cat((q, *own))
    return replace(config, n_kv_heads=0), changed


def with_biases(config: ModelConfig, tensors: Tensors) -> Form:
    """Add zeros where a model has no biases and a graph wants them."""
    return filled(replace(config, bias=True), tensors)


def filled(config: ModelConfig, tensors: Tensors) -> Form:
    """Add zeros for every bias that a config asks for and the tensors lack."""
    zeros = {
        name: torch.zeros(shape)
        for name, shape in shapes_of(config).items()
        if name.endswith(".bias") and name not in tensors
    }
    return config, tensors | zeros


@cache
def shapes_of(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Give name -> shape of each parameter of a model, without building it."""
    with torch.device("meta"):
        model = GPT(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
