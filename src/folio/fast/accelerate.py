"""`accelerate`: the same model of the same parameters, with fast layers in place of plain ones."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from folio.fast.attention import FastAttention, FastRotaryPositions
from folio.fast.layers import (
    FastBlock,
    FastDropout,
    FastEmbedding,
    FastFeedForward,
    FastGatedFeedForward,
    FastLayerNorm,
    FastLearnedPositions,
    FastLinear,
    FastRMSNorm,
)
from folio.fast.untouched import is_untouched
from folio.model.attention import Attention
from folio.model.block import Block
from folio.model.dropout import Dropout
from folio.model.feed_forward import FeedForward, GatedFeedForward
from folio.model.gpt import GPT
from folio.model.positions import (
    LearnedPositions,
    NoPositions,
    RotaryPositions,
    SinusoidalPositions,
)
from folio.ngrams.gpt import GPTWithNGrams

FAST: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: FastLinear,
    nn.Embedding: FastEmbedding,
    nn.LayerNorm: FastLayerNorm,
    nn.RMSNorm: FastRMSNorm,
    Dropout: FastDropout,
    LearnedPositions: FastLearnedPositions,
    RotaryPositions: FastRotaryPositions,
    Attention: FastAttention,
    FeedForward: FastFeedForward,
    GatedFeedForward: FastGatedFeedForward,
    Block: FastBlock,
}
"""Plain layer -> the same for processors."""

AS_FAST_AS_PLAIN = (
    GPT,
    GPTWithNGrams,
    nn.ModuleList,
    nn.Identity,
    NoPositions,
    SinusoidalPositions,
)
"""Layers that need no twin."""

KNOWN = frozenset((*FAST, *AS_FAST_AS_PLAIN))
"""All layers that Folio makes models of."""

Model = TypeVar("Model", bound=nn.Module)


def accelerate(model: Model) -> Model:
    """Build a twin of a model that shares its parameters and buffers, with fast layers.

    A layer is replaced only if its class is exactly one of FAST and nobody changed it: subclasses,
    edited files, functions that were replaced and layers with hooks stay, and run as they are. So
    do tensors that the kernels do not take: small ones, and those on accelerators.
    """
    return _twin(model, {})


def accelerated_on_cpu(model: Model) -> Model:
    """`accelerate` a model on a processor; one on an accelerator is the same as before."""
    on_processor = next(model.parameters()).device.type == "cpu"
    return accelerate(model) if on_processor else model


def is_known(model: nn.Module) -> bool:
    """Whether every layer computes what Folio wrote, and nobody listens."""
    return all(type(layer) in KNOWN and is_untouched(layer) for layer in model.modules())


def not_accelerated(model: nn.Module) -> list[str]:
    """Name the layers of a model that run as they are written, by their first place: since they
    are somebody's own, were edited, or have hooks.
    """
    first: dict[str, str] = {}
    for name, layer in model.named_modules():
        if not (type(layer) in KNOWN and is_untouched(layer)):
            first.setdefault(type(layer).__name__, name or "the model itself")
    return [f"{kind} ({place})" for kind, place in first.items()]


def _twin(layer: Model, done: dict[int, nn.Module]) -> Model:
    if id(layer) not in done:
        twin = done[id(layer)] = copy.copy(layer)
        children = {
            name: _twin(child, done) if child is not None else None
            for name, child in layer._modules.items()
        }
        vars(twin)["_modules"] = children
        if type(layer) in FAST and is_untouched(layer):
            twin.__class__ = FAST[type(layer)]  # type: ignore[assignment]
    return done[id(layer)]  # type: ignore[return-value]
