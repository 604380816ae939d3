"""The graphs of llama.cpp that say our models."""

from __future__ import annotations

from folio.export import forms
from folio.export.graphs import GPT2, LLAMA, NEOX, QWEN3, Graph
from folio.export.names import table

ERF = "llama.cpp computes GELU by tanh, so logits differ by some thousandths"

COMMON_ROWS = """
token_embedding                     token_embd                              same
blocks.{i}.attention_norm           blk.{i}.attn_norm                       same
blocks.{i}.attention.out_proj       blk.{i}.attn_output                     same
blocks.{i}.feed_forward_norm        blk.{i}.ffn_norm                        same
blocks.{i}.feed_forward.up_proj     blk.{i}.ffn_up                          same
blocks.{i}.feed_forward.down_proj   blk.{i}.ffn_down                        same
final_norm                          output_norm                             same
lm_head                             output                                  same
"""
GATED_ROWS = """
blocks.{i}.attention.q_norm         blk.{i}.attn_q_norm                     same
blocks.{i}.attention.k_norm         blk.{i}.attn_k_norm                     same
blocks.{i}.feed_forward.gate_proj   blk.{i}.ffn_gate                        same
"""
QWEN3_ROWS = f"""{COMMON_ROWS}{GATED_ROWS}
blocks.{{i}}.attention.qkv_proj     blk.{{i}}.attn_[qkv]                    split
"""
LLAMA_ROWS = f"""{COMMON_ROWS}{GATED_ROWS}
blocks.{{i}}.attention.qkv_proj     blk.{{i}}.attn_[qkv]                    split-in-pairs
"""
WHOLE_ROWS = f"""{COMMON_ROWS}
positions                           position_embd                           same
blocks.{{i}}.attention.qkv_proj     blk.{{i}}.attn_qkv                      same
"""

COMMON_KEYS = {
    "vocab_size": "vocab_size",
    "context_length": "context_length",
    "embedding_length": "d_model",
    "block_count": "n_layers",
    "feed_forward_length": "feed_forward_width",
    "attention.head_count": "n_heads",
}
LAYER_NORM = {"attention.layer_norm_epsilon": "normalization_epsilon"}
ROTARY = {"rope.dimension_count": "head_width", "rope.freq_base": "rope_base"}
LLAMA_KEYS = (
    COMMON_KEYS
    | ROTARY
    | {
        "attention.head_count_kv": "key_value_heads",
        "attention.key_length": "head_width",
        "attention.value_length": "head_width",
        "attention.layer_norm_rms_epsilon": "normalization_epsilon",
    }
)

GELU_ALONE = {"activation": ("gelu_tanh", "gelu")}
WHOLE = (forms.with_biases, forms.with_learned_positions, forms.with_heads_of_their_own)

QWEN3_GRAPH = Graph("qwen3", QWEN3, table(QWEN3_ROWS), LLAMA_KEYS, {})
LLAMA_GRAPH = Graph("llama", LLAMA, table(LLAMA_ROWS), LLAMA_KEYS, {})
QWEN2_GRAPH = Graph("qwen2", LLAMA, table(QWEN3_ROWS), LLAMA_KEYS, {})
"""Llama without the pairs."""
GPT2_GRAPH = Graph(
    name="gpt2",
    needs=GPT2 | GELU_ALONE,
    rows=table(WHOLE_ROWS),
    keys=COMMON_KEYS | LAYER_NORM,
    fixed={},
    rewrites=WHOLE,
    free_heads=False,
)
NEOX_GRAPH = Graph(
    name="gptneox",
    needs=NEOX | GELU_ALONE,
    rows=table(WHOLE_ROWS),
    keys=COMMON_KEYS | LAYER_NORM | ROTARY,
    fixed={"use_parallel_residual": False},
    rewrites=WHOLE,
    free_heads=False,
)
GRAPHS = (QWEN3_GRAPH, LLAMA_GRAPH, GPT2_GRAPH, NEOX_GRAPH)
"""Known graphs. A tied head is left out of the file except for gptneox, which must have one."""
READ = (*GRAPHS, QWEN2_GRAPH)
"""Graphs that are read; what qwen2 says, llama says too."""
