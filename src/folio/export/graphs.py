"""Which models a graph of another program can represent, and what would have to change
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from folio.export import forms
from folio.export.forms import Form, Tensors
from folio.export.names import Row
from folio.model.config import ModelConfig

Needs = dict[str, tuple[Any, ...]]
"""Field of ModelConfig -> the values that a graph supports; fields that are missing may
have any."""

ROTARY: Needs = {"positions": ("rope",), "norm_placement": ("pre",)}
QWEN3: Needs = ROTARY | {
    "normalization": ("rmsnorm",),
    "activation": ("swiglu",),
    "qk_norm": (True,),
    "bias": (False,),
}
LLAMA: Needs = QWEN3 | {"qk_norm": (False,), "bias": (False, True)}
GPT2: Needs = {
    "positions": ("learned", "sinusoidal", "none"),
    "norm_placement": ("pre",),
    "normalization": ("layernorm",),
    "activation": ("gelu", "gelu_tanh", "relu", "relu2"),
    "qk_norm": (False,),
}
NEOX: Needs = GPT2 | {"positions": ("rope",)}


@dataclass(frozen=True)
class Graph:
    """Says which models of ours a class of another program computes."""

    name: str
    """The graph's name in that program."""
    needs: Needs
    rows: tuple[Row, ...]
    """The names of its tensors."""
    keys: dict[str, str]
    """Its settings -> the fields of ModelConfig that they say; defaults filled in."""
    fixed: dict[str, Any]
    """Its other settings, which are the same for every model."""
    rewrites: tuple[Callable[[ModelConfig, Tensors], Form], ...] = ()
    """Rewrites of the model into the graph's terms, applied after the embeddings."""
    free_heads: bool = True
    """Whether heads may be wider or narrower than their share of d_model."""

    def differences(self, config: ModelConfig) -> dict[str, tuple[Any, ...]]:
        """List the settings that this graph does not have, with those it has."""
        found = {
            name: allowed
            for name, allowed in self.needs.items()
            if getattr(config, name) not in allowed
        }
        if not self.free_heads and config.attention_width != config.d_model:
            found["head_dim"] = (0,)
        return found

    def form(self, config: ModelConfig, tensors: Tensors) -> Form:
        """Rewrite a model as this graph says it."""
        config, tensors = forms.with_plain_embeddings(config, tensors)
        for rewrite in self.rewrites:
            config, tensors = rewrite(config, tensors)
        return config, tensors

    def settings(self, config: ModelConfig) -> dict[str, Any]:
        """Say a config by its keys."""
        return self.fixed | {key: getattr(config, name) for key, name in self.keys.items()}


FIELD_OF = {"feed_forward_width": "d_ff", "key_value_heads": "n_kv_heads", "head_width": "head_dim"}
"""Derived property that is written -> the field that it is read into."""


def find_graph(graphs: Sequence[Graph], config: ModelConfig) -> Graph | None:
    """Find the first graph that can say a config."""
    return next((graph for graph in graphs if not graph.differences(config)), None)


def what_would_leave(graphs: Sequence[Graph], config: ModelConfig) -> str:
    """Name the settings that the nearest graph lacks, and those that it has instead."""
    nearest = min(graphs, key=lambda graph: len(graph.differences(config)))
    differences = nearest.differences(config)
    has = ", ".join(f"model.{name} = {_said(getattr(config, name))}" for name in differences)
    wants = " ".join(
        f"--model.{name.replace('_', '-')} {_said(allowed[0])}"
        for name, allowed in differences.items()
    )
    return f"{has}; a run with {wants} would leave (as {nearest.name})"


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
