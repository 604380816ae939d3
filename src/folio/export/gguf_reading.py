"""Read a model from a GGUF file."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from folio.errors import UserError
from folio.export.foreign import Foreign, read_config
from folio.export.gguf_file import read_gguf
from folio.export.gguf_graphs import GPT2_GRAPH, NEOX_GRAPH, READ
from folio.export.gguf_vocabulary import read_vocabulary
from folio.export.names import to_ours
from folio.export.quantize import unpack


def read_gguf_model(path: Path) -> Foreign:
    """Read config, weights and tokenizer.

    Raises:
        UserError: damaged, or not what Folio computes.
    """
    source = str(path)
    settings, packed = read_gguf(path)
    if (n_parts := settings.get("split.count", 1)) not in (0, 1):
        raise UserError(
            f"{source} is one of {n_parts!r} parts of a model. Make one file of them first: "
            f"llama-gguf-split --merge FIRST_PART OUT.gguf"
        )
    name = settings.get("general.architecture")
    graph = next((graph for graph in READ if graph.name == name), None)
    if graph is None:
        known = ", ".join(graph.name for graph in READ)
        raise UserError(f"{source} is a model of type {name!r}. Folio computes {known}.")
    table = _settings(graph.name, settings)
    _refuse_others(table, source)
    tokenizer = read_vocabulary(settings, source)
    n_numbers = sum(math.prod(tensor.shape) for tensor in packed.values())
    embedding = packed.get("token_embd.weight")
    if embedding is None:
        raise UserError(f"{source} lacks the tensor token_embd.weight; it may be cut short.")
    table["vocab_size"] = embedding.shape[0]
    others: dict[str, Any] = {"tied_head": "output.weight" not in packed}
    if graph in (GPT2_GRAPH, NEOX_GRAPH):
        others |= {"activation": "gelu_tanh", "bias": True}
    else:
        others["bias"] = any(name.endswith(".bias") for name in packed)
        table.setdefault("attention.head_count_kv", 0)
        table.setdefault("attention.key_length", 0)
        table.setdefault("attention.value_length", table["attention.key_length"])
    table.setdefault("rope.freq_base", 10_000.0)
    turned = table.get("rope.dimension_count")
    table["rope.dimension_count"] = table.get("attention.key_length", 0)  # the same field
    config = read_config(graph, table, others, n_numbers, source)
    if config.positions == "rope" and turned not in (None, config.head_width):
        raise UserError(
            f"{source} rotates {turned!r} of the {config.head_width} dimensions of each head; "
            f"Folio rotates all of them."
        )
    tensors = to_ours(
        graph.rows, config, {name: unpack(tensor) for name, tensor in packed.items()}, source
    )
    head = tensors.get("lm_head.weight")
    if head is not None and torch.equal(head, tensors["token_embedding.weight"]):
        config = replace(config, tied_head=True)
        del tensors["lm_head.weight"]
    return Foreign(source, config, tensors, tokenizer)


def _settings(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): v for key, v in settings.items() if key.startswith(prefix)}


def _refuse_others(table: dict[str, Any], source: str) -> None:
    kind = table.get("rope.scaling.type")
    factors = [table.get(key, 1.0) for key in ("rope.scaling.factor", "rope.scale_linear")]
    if kind not in (None, "none") or (kind is None and any(x not in (0, 1) for x in factors)):
        raise UserError(
            f"{source} scales its rotary positions ({kind or 'linear'!r}), which Folio does not "
            f"compute."
        )
    if table.get("use_parallel_residual"):
        raise UserError(f"{source} has a parallel residual, which Folio does not compute.")
    if table.get("expert_count"):
        raise UserError(f"{source} is a mixture of experts, which Folio does not compute.")
    if table.get("attention.value_length") != table.get("attention.key_length"):
        raise UserError(
            f"{source} has values of another width than keys, which Folio does not compute."
        )
