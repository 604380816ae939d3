"""Whether the compiled decoder can stand in for a model."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import nn

from folio import jit
from folio.fast.accelerate import is_known
from folio.fast.arrays import ModelArrays
from folio.fast.decoder import Decoder
from folio.fast.packing import Precision
from folio.fast.written_for import is_as_written
from folio.model import kv_cache
from folio.model.gpt import GPT
from folio.ngrams.gpt import GPTWithNGrams


def decoder_for(
    model: nn.Module, wanted: bool | None = None, precision: Precision = "float32"
) -> Decoder | None:
    """Make a decoder to generate with, where there can be one; None leaves it to the model.

    Args:
        model: to generate with, in evaluation mode.
        wanted: False makes none.
        precision: of the weights.
    """
    if wanted is False or not applies(model):
        return None
    return Decoder(arrays_of(model), precision, torch.get_num_threads())


def applies(model: nn.Module) -> TypeGuard[GPT]:
    """Whether `Decoder` can stand in for a model.

    That takes a GPT in float32 on the CPU of which no layer was changed, and kernels. It knows
    nothing of n-grams beside a model.
    """
    if (
        type(model) not in (GPT, GPTWithNGrams)
        or not is_known(model)
        or not is_as_written(kv_cache)
    ):
        return False
    if any(p.dtype != torch.float32 or p.device.type != "cpu" for p in model.parameters()):
        return False
    return jit.available()


def arrays_of(model: GPT) -> ModelArrays:
    """The weights of a model as arrays that share its memory."""
    named = model.state_dict()
    return ModelArrays(model.config, {name: x.numpy() for name, x in named.items()})


def versions(model: nn.Module) -> tuple[object, ...]:
    """A value that changes whenever parameters are replaced or written to, except through `.data`;
    always a new one if torch does not count changes.
    """
    return tuple(
        (p.data_ptr(), object() if p.is_inference() else p._version) for p in model.parameters()
    )
