"""The parameters of a model in groups, since not all are trained by the same rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

from torch import nn

from folio.model.attention import Attention

Group = Literal["hidden", "embedding", "vector"]
GROUPS: tuple[Group, ...] = ("hidden", "embedding", "vector")


class Members(NamedTuple):
    """The parameters of one group."""

    parameters: Sequence[nn.Parameter]
    heights: Sequence[tuple[int, ...]]
    """For each parameter the rows R of its matrices, several of which may be stacked in one."""
    weight_decay: float
    """Weight decay, which is multiplied by the learning rate."""


def parameter_groups(model: nn.Module) -> dict[Group, dict[str, nn.Parameter]]:
    """Group -> name -> trainable parameter, for the groups that a model has."""
    groups: dict[Group, dict[str, nn.Parameter]] = {group: {} for group in GROUPS}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[group_of(name, parameter)][name] = parameter
    return {group: members for group, members in groups.items() if members}


def group_of(name: str, parameter: nn.Parameter) -> Group:
    """The group of a parameter.

    Matrices between hidden layers are one kind, gains and biases another; the third are tables from
    or to token ids and positions, and whatever else a layer may have, such as filters.
    """
    if parameter.dim() < 2:
        return "vector"
    return "hidden" if name.startswith("blocks.") and parameter.dim() == 2 else "embedding"


def matrix_heights(model: nn.Module, parameters: Sequence[nn.Parameter]) -> list[tuple[int, ...]]:
    """Rows of each matrix in each parameter: queries, keys and values are three matrices in one."""
    several = {
        m.qkv_proj.weight: m.widths
        for m in model.modules()
        if isinstance(m, Attention) and isinstance(cast(object, m.qkv_proj), nn.Linear)
    }
    return [several.get(p, tuple(p.shape[:1]) or (1,)) for p in parameters]
