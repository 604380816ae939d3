"""Which graph says which model, and what is said where none does."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from folio.config import from_table
from folio.export import gguf_graphs, hf_graphs
from folio.export.graphs import find_graph, what_would_leave
from folio.model.config import ModelConfig
from tests.export.making import SHAPE

FIELDS = {
    "positions": ("rope", "learned", "sinusoidal", "none"),
    "normalization": ("rmsnorm", "layernorm"),
    "norm_placement": ("pre", "post", "both", "none"),
    "activation": ("swiglu", "gelu", "gelu_tanh", "relu", "relu2"),
    "qk_norm": (True, False),
    "bias": (True, False),
}
CONFIGS = [
    ModelConfig(vocab_size=64, **SHAPE | dict(zip(FIELDS, values)))
    for values in product(*FIELDS.values())
]


def name_of(graphs: Any, config: ModelConfig) -> str | None:
    graph = find_graph(graphs, config)
    return graph and graph.name


def in_transformers(c: ModelConfig) -> str | None:
    """Read off the modeling files of transformers: what their blocks are made of."""
    if c.norm_placement != "pre":
        return None
    gated = c.positions == "rope" and c.normalization == "rmsnorm" and c.activation == "swiglu"
    if gated and not (c.qk_norm and c.bias):
        return "qwen3" if c.qk_norm else "llama"
    if c.normalization == "layernorm" and c.activation != "swiglu" and not c.qk_norm:
        return "gpt_neox" if c.positions == "rope" else "gpt2"
    return None


def test_transformers_gets_one_of_four_classes_or_our_own():
    found = [name_of(hf_graphs.GRAPHS, config) for config in CONFIGS]
    assert found == [in_transformers(config) for config in CONFIGS]
    # Qwen3 1, Llama 2, GPT-NeoX 4 x 2, GPT-2 3 x 4 x 2
    assert len(found) - found.count(None) == 35


def test_llama_cpp_has_the_same_graphs_where_the_activation_is_theirs():
    for config in CONFIGS:
        expected = in_transformers(config)
        if expected in ("gpt2", "gpt_neox") and not config.activation.startswith("gelu"):
            expected = None
        found = name_of(gguf_graphs.GRAPHS, config)
        assert found == {"gpt_neox": "gptneox"}.get(str(expected), expected), config


@pytest.mark.parametrize("graphs", [hf_graphs.GRAPHS, gguf_graphs.GRAPHS], ids=["hf", "gguf"])
def test_the_settings_that_a_refusal_names_would_leave(graphs: Any):
    for config in (replace(c, head_dim=d) for c in CONFIGS for d in (0, 4)):
        if name_of(graphs, config):
            continue
        words = what_would_leave(graphs, config)
        named = re.findall(r"--model\.([\w-]+) (\w+)", words)
        values: dict[str, Any] = {"true": True, "false": False, "0": 0}
        changes = {name.replace("-", "_"): values.get(v, v) for name, v in named}
        changed = from_table(ModelConfig, vars(config) | changes)
        assert words.endswith(f"would leave (as {name_of(graphs, changed)})"), words
