"""The four graphs of transformers that say our models, and the settings that a file of them must
have to be one of ours.

Sources: configuration_*.py and modeling_*.py of transformers 5.
"""

from __future__ import annotations

from typing import Any

from folio.export import forms
from folio.export.graphs import GPT2, LLAMA, NEOX, QWEN3, Graph
from folio.export.names import table
from folio.model.config import ModelConfig

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "relu2": "relu2"}
"""Our names -> theirs."""
READ_AS = {theirs: ours for ours, theirs in ACTIVATIONS.items()}
READ_AS |= {"gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}

LLAMA_ROWS = """
token_embedding                     model.embed_tokens                          same
blocks.{i}.attention_norm           model.layers.{i}.input_layernorm            same
blocks.{i}.attention.qkv_proj       model.layers.{i}.self_attn.[qkv]_proj       split
blocks.{i}.attention.q_norm         model.layers.{i}.self_attn.q_norm           same
blocks.{i}.attention.k_norm         model.layers.{i}.self_attn.k_norm           same
blocks.{i}.attention.out_proj       model.layers.{i}.self_attn.o_proj           same
blocks.{i}.feed_forward_norm        model.layers.{i}.post_attention_layernorm   same
blocks.{i}.feed_forward.gate_proj   model.layers.{i}.mlp.gate_proj              same
blocks.{i}.feed_forward.up_proj     model.layers.{i}.mlp.up_proj                same
blocks.{i}.feed_forward.down_proj   model.layers.{i}.mlp.down_proj              same
final_norm                          model.norm                                  same
lm_head                             lm_head                                     same
"""

GPT2_ROWS = """
token_embedding                     transformer.wte                             same
positions                           transformer.wpe                             same
blocks.{i}.attention_norm           transformer.h.{i}.ln_1                      same
blocks.{i}.attention.qkv_proj       transformer.h.{i}.attn.c_attn               transposed
blocks.{i}.attention.out_proj       transformer.h.{i}.attn.c_proj               transposed
blocks.{i}.feed_forward_norm        transformer.h.{i}.ln_2                      same
blocks.{i}.feed_forward.up_proj     transformer.h.{i}.mlp.c_fc                  transposed
blocks.{i}.feed_forward.down_proj   transformer.h.{i}.mlp.c_proj                transposed
final_norm                          transformer.ln_f                            same
lm_head                             lm_head                                     same
"""

NEOX_ROWS = """
token_embedding                     gpt_neox.embed_in                                  same
blocks.{i}.attention_norm           gpt_neox.layers.{i}.input_layernorm                same
blocks.{i}.attention.qkv_proj       gpt_neox.layers.{i}.attention.query_key_value      by-head
blocks.{i}.attention.out_proj       gpt_neox.layers.{i}.attention.dense                same
blocks.{i}.feed_forward_norm        gpt_neox.layers.{i}.post_attention_layernorm       same
blocks.{i}.feed_forward.up_proj     gpt_neox.layers.{i}.mlp.dense_h_to_4h              same
blocks.{i}.feed_forward.down_proj   gpt_neox.layers.{i}.mlp.dense_4h_to_h              same
final_norm                          gpt_neox.final_layer_norm                          same
lm_head                             embed_out                                          same
"""

COMMON = {
    "vocab_size": "vocab_size",
    "tie_word_embeddings": "tied_head",
    "initializer_range": "initialization_std",
}
HIDDEN = COMMON | {
    "hidden_size": "d_model",
    "intermediate_size": "feed_forward_width",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "max_position_embeddings": "context_length",
    "attention_dropout": "attention_dropout",
}
LLAMA_KEYS = HIDDEN | {
    "num_key_value_heads": "key_value_heads",
    "head_dim": "head_width",
    "rms_norm_eps": "normalization_epsilon",
}
GPT2_KEYS = COMMON | {
    "n_embd": "d_model",
    "n_layer": "n_layers",
    "n_head": "n_heads",
    "n_positions": "context_length",
    "n_inner": "feed_forward_width",
    "layer_norm_epsilon": "normalization_epsilon",
    "resid_pdrop": "residual_dropout",
    "embd_pdrop": "embedding_dropout",
    "attn_pdrop": "attention_dropout",
}
NEOX_KEYS = HIDDEN | {"layer_norm_eps": "normalization_epsilon"}

QWEN3_GRAPH = Graph(
    name="qwen3",
    needs=QWEN3,
    rows=table(LLAMA_ROWS),
    keys=LLAMA_KEYS,
    fixed={
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_act": "silu",
        "attention_bias": False,
        "use_sliding_window": False,
        "sliding_window": None,
    },
)
LLAMA_GRAPH = Graph(
    name="llama",
    needs=LLAMA,
    rows=table(LLAMA_ROWS),
    keys=LLAMA_KEYS | {"attention_bias": "bias", "mlp_bias": "bias"},
    fixed={"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "pretraining_tp": 1},
)
GPT2_GRAPH = Graph(
    name="gpt2",
    needs=GPT2,
    rows=table(GPT2_ROWS),
    keys=GPT2_KEYS,
    fixed={
        "architectures": ["GPT2LMHeadModel"],
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    rewrites=(forms.with_biases, forms.with_learned_positions, forms.with_heads_of_their_own),
    free_heads=False,
)
NEOX_GRAPH = Graph(
    name="gpt_neox",
    needs=NEOX,
    rows=table(NEOX_ROWS),
    keys=NEOX_KEYS,
    fixed={
        "architectures": ["GPTNeoXForCausalLM"],
        "use_parallel_residual": False,
        "attention_bias": True,
        "hidden_dropout": 0.0,
    },
    rewrites=(forms.with_biases, forms.with_heads_of_their_own),
    free_heads=False,
)
GRAPHS = (QWEN3_GRAPH, LLAMA_GRAPH, GPT2_GRAPH, NEOX_GRAPH)

DEFAULTS: dict[str, Any] = {
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
    "num_key_value_heads": 0,
    "head_dim": 0,
    "n_inner": 0,
    "rms_norm_eps": 1e-6,
    "layer_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
}
"""Defaults of settings that a config.json may omit or have as null, except for GPT-2's tied
head."""


ALLOWED: dict[str, tuple[Any, ...]] = {
    "use_sliding_window": (False, None),
    "pretraining_tp": (1, None),
    "quantization_config": (None,),
    "scale_attn_weights": (True, None),
    "scale_attn_by_inverse_layer_idx": (False, None),
    "add_cross_attention": (False, None),
}
"""Settings that a config.json of any of these may have, and the values that mean nothing new."""


def graph_settings(graph: Graph, config: ModelConfig) -> dict[str, Any]:
    """Make what config.json says of a model."""
    settings = graph.settings(config)
    if config.activation in ACTIVATIONS:
        name = "activation_function" if graph is GPT2_GRAPH else "hidden_act"
        settings[name] = ACTIVATIONS[config.activation]
    if config.positions == "rope":  # transformers 5 reads the table, older readers the number
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_base}
        settings["rope_theta"] = config.rope_base
        if graph is NEOX_GRAPH:
            rope["partial_rotary_factor"] = 1.0
            settings |= {"rotary_pct": 1.0, "rotary_emb_base": config.rope_base}
        settings["rope_parameters"] = rope
    if graph is QWEN3_GRAPH:
        n = config.n_layers
        settings |= {"max_window_layers": n, "layer_types": ["full_attention"] * n}
    if graph is GPT2_GRAPH:
        settings["n_ctx"] = config.context_length
    return settings
