"""Folio's names of tensors -> those of another program, and back, by one table a graph.

A table has a row for each module: ours, theirs, and in which way its weights lie there. `{i}` is
the number of a block. Nothing else knows a foreign name of a tensor.

Shapes:  H heads · K heads of keys and values · D head dimension
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from folio.errors import UserError
from folio.export.forms import Tensors, shapes_of
from folio.model.config import ModelConfig


class Way(NamedTuple):
    """Says how the rows of one module of ours lie in those of theirs."""

    there: Callable[[Tensor, ModelConfig], tuple[Tensor, ...]]
    back: Callable[[tuple[Tensor, ...], ModelConfig], Tensor]


class Row(NamedTuple):
    """Says under which names a module's tensors stand on either side."""

    ours: str
    theirs: str
    """One foreign name, or one for each letter in brackets."""
    way: Way


def _pairs(x: Tensor, n_heads: int) -> Tensor:
    """Put rotary dimension i beside i + D/2, as llama.cpp's llama wants them."""
    return x.unflatten(0, (n_heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _halves(x: Tensor, n_heads: int) -> Tensor:
    """Bring rows in pairs back to halves: undoes `_pairs`."""
    return x.unflatten(0, (n_heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _split(x: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    kv = config.key_value_heads * config.head_width
    return x.split((config.attention_width, kv, kv))


def _split_in_pairs(x: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    q, k, v = _split(x, config)
    return _pairs(q, config.n_heads), _pairs(k, config.key_value_heads), v


def _join_pairs(parts: tuple[Tensor, ...], config: ModelConfig) -> Tensor:
    q, k, v = parts
    return torch.cat((_halves(q, config.n_heads), _halves(k, config.key_value_heads), v))


def _by_head(x: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    return (x.unflatten(0, (3, config.n_heads, -1)).transpose(0, 1).flatten(0, 2),)


def _by_part(parts: tuple[Tensor, ...], config: ModelConfig) -> Tensor:
    return parts[0].unflatten(0, (config.n_heads, 3, -1)).transpose(0, 1).flatten(0, 2)


def _transposed(x: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    return (x.t(),)  # a bias is its own


SAME = Way(lambda x, config: (x,), lambda parts, config: parts[0])
TRANSPOSED = Way(_transposed, lambda parts, config: parts[0].t())
"""Transposed as in GPT-2's Conv1D: inputs first."""
SPLIT = Way(_split, lambda parts, config: torch.cat(parts))
"""Queries, keys and values are three modules."""
SPLIT_IN_PAIRS = Way(_split_in_pairs, _join_pairs)
BY_HEAD = Way(_by_head, _by_part)
"""Query, key and value of head 0, then of head 1."""


def table(text: str) -> tuple[Row, ...]:
    """Read a table: a line for each module."""
    ways = {"split": SPLIT, "split-in-pairs": SPLIT_IN_PAIRS, "by-head": BY_HEAD}
    ways |= {"same": SAME, "transposed": TRANSPOSED}
    rows = (line.split() for line in text.splitlines() if line)
    return tuple(Row(ours, theirs, ways[way]) for ours, theirs, way in rows)


def to_theirs(rows: tuple[Row, ...], config: ModelConfig, tensors: Tensors) -> Tensors:
    """Give the tensors of a model by their names, in the order of the table and the blocks."""
    found: Tensors = {}
    for ours, theirs, way in _parameters(rows, config):
        if ours in tensors:
            parts = way.there(tensors[ours], config)
            found |= {name: part.contiguous() for name, part in zip(theirs, parts, strict=True)}
    return found


def to_ours(
    rows: tuple[Row, ...], config: ModelConfig, theirs: Mapping[str, Tensor], source: str
) -> Tensors:
    """Give the tensors of a model by our names; biases that are not there are zeros.

    Args:
        rows: the table.
        config: of the model.
        theirs: by their names.
        source: how errors call it.

    Raises:
        UserError: one is missing, has another shape, or is not known.
    """
    shapes, found, used = shapes_of(config), {}, set()
    for ours, names, way in _parameters(rows, config):
        if ours not in shapes:
            continue
        missing = [name for name in names if name not in theirs]
        if missing and ours.endswith(".bias"):
            found[ours] = torch.zeros(shapes[ours])
            continue
        if missing:
            raise UserError(f"{source} lacks the tensor {missing[0]}; it may be cut short.")
        used.update(names)
        try:
            found[ours] = way.back(tuple(theirs[name].float() for name in names), config)
        except RuntimeError:
            found[ours] = torch.empty(0)
        if found[ours].shape != shapes[ours]:
            sizes = ", ".join(str(tuple(theirs[name].shape)) for name in names)
            raise UserError(
                f"{source}: {' and '.join(names)} of {sizes} do not fit the shape that its config "
                f"says ({ours} of {shapes[ours]})."
            )
        found[ours] = found[ours].contiguous()
    if unknown := sorted(theirs.keys() - used):
        raise UserError(
            f"{source} has {len(unknown)} tensors that this graph does not have, such as "
            f"{unknown[0]!r}: it computes something else."
        )
    return found


def require_shapes(config: ModelConfig, tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors, by our names, that are not those of a config.

    Raises:
        UserError: one is missing, has another shape, or is not known.
    """
    shapes = shapes_of(config)
    for name in sorted(shapes.keys() | tensors.keys()):
        if name not in tensors:
            raise UserError(f"{source} lacks the tensor {name}; it may be cut short.")
        if name not in shapes:
            raise UserError(f"{source} has the tensor {name}, which its config does not have.")
        if tensors[name].shape != shapes[name]:
            raise UserError(
                f"{source}: {name} of {tuple(tensors[name].shape)} does not fit the shape that its "
                f"config says, {tuple(shapes[name])}."
            )


def _parameters(
    rows: tuple[Row, ...], config: ModelConfig
) -> Iterator[tuple[str, tuple[str, ...], Way]]:
    """List each weight and bias that a model of any such shape may have."""
    once = [row for row in rows if "{i}" not in row.ours]
    blocks = [row for row in rows if "{i}" in row.ours]
    numbered = [(row, i) for i in range(config.n_layers) for row in blocks]
    for row, i in [*((row, 0) for row in once), *numbered]:
        for kind in ("weight", "bias"):
            theirs = tuple(f"{name.format(i=i)}.{kind}" for name in each_name(row.theirs))
            yield f"{row.ours.format(i=i)}.{kind}", theirs, row.way


def each_name(name: str) -> list[str]:
    """List the modules that a name in a table stands for.

    >>> each_name("blk.{i}.attn_[qkv]")
    ['blk.{i}.attn_q', 'blk.{i}.attn_k', 'blk.{i}.attn_v']
    """
    before, _, rest = name.partition("[")
    letters, _, after = rest.partition("]")
    return [f"{before}{letter}{after}" for letter in letters] or [name]
