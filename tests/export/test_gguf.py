"""llama.cpp computes what the run computes, from one file that we write ourselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from folio.config import merge
from folio.errors import UserError
from folio.export.gguf import WRITTEN_BY
from folio.export.gguf_file import read_gguf
from folio.export.gguf_graphs import GRAPHS
from folio.export.targets import export_run
from folio.export.verify import HOSTILE
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.character import CharacterTokenizer
from tests.export.making import LLAMA, MODERN, NEOX, SHAPE, TOKENIZERS, random_run
from tests.export.oracles import LlamaCpp
from tests.export.test_hf import describe, some_ids

TANH = {"activation": "gelu_tanh"}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("qwen3", MODERN),
    ("qwen3", MODERN | {"n_kv_heads": 2, "tied_head": False, "head_dim": 12, "rope_base": 500.0}),
    ("qwen3", MODERN | {"vocab_size": 320, "scale_embeddings": True}),
    ("llama", LLAMA | {"n_kv_heads": 2}),
    ("llama", LLAMA | {"bias": True, "n_kv_heads": 1, "head_dim": 12}),
    ("gpt2", SHAPE),
    ("gpt2", SHAPE | TANH | {"positions": "sinusoidal", "bias": False, "n_kv_heads": 2}),
    ("gpt2", SHAPE | TANH | {"positions": "none", "tied_head": False, "scale_embeddings": True}),
    ("gptneox", NEOX | {"rope_base": 33.0}),
    ("gptneox", NEOX | TANH | {"n_kv_heads": 2, "bias": False, "tied_head": False}),
]
VOCABULARIES = [name for name in TOKENIZERS if name != "word"]


def their_log_probabilities(opened: Any, path: Path, token_ids: torch.Tensor) -> torch.Tensor:
    return LlamaCpp(path).log_probabilities(token_ids.tolist(), opened.tokenizer.vocab_size)


@pytest.mark.parametrize(("graph", "settings"), CASES, ids=describe)
def test_llama_cpp_computes_the_probabilities_of_the_run(
    graph: str, settings: dict[str, Any], tmp_path: Path
):
    opened = random_run(tmp_path, "bpe-gpt2", **settings)
    path, exported, verified = export_run(opened, "gguf")
    # Of GPT-2 and GPT-NeoX it computes GELU from a table of float16, by tanh.
    tolerance = 1e-4 if graph in ("qwen3", "llama") else 5e-3
    assert exported.graph == graph and verified.logit_difference < tolerance
    token_ids = some_ids(opened, 1, 12)
    ours = opened.model(token_ids)[0, :, : opened.tokenizer.vocab_size].log_softmax(1)
    theirs = their_log_probabilities(opened, path, token_ids[0])
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=tolerance)
    targets = token_ids[0, 1:, None]
    losses = [-of[:-1].gather(1, targets).mean() for of in (ours, theirs)]
    assert abs(losses[0] - losses[1]) < 1e-3


def test_every_graph_has_a_case():
    assert {graph for graph, _ in CASES} == {graph.name for graph in GRAPHS}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_llama_cpp_gives_the_ids_of_the_run(name: str, tmp_path: Path):
    opened = random_run(tmp_path, name, **MODERN)
    tokenizer = opened.tokenizer
    path, _, _ = export_run(opened, "gguf")
    server = LlamaCpp(path)
    texts = [*HOSTILE, *(tokenizer.decode([i]) for i in range(tokenizer.vocab_size))]
    for text in texts:
        if isinstance(tokenizer, CharacterTokenizer):  # others are an error in a prompt
            text = "".join(c for c in text if c in tokenizer.characters)
        if "\ufffd" not in text:  # bytes that are not a character
            assert server.encode(text) == tokenizer.encode(text).tolist(), repr(text)
    begin = [] if tokenizer.begin is None else [tokenizer.begin]
    assert server.encode("The cat", begin=True) == [*begin, *tokenizer.encode("The cat").tolist()]


@pytest.mark.parametrize("name", ["character", "renamed", "lines"])
def test_the_end_of_a_document_ends_the_text_and_a_letter_does_not(name: str, tmp_path: Path):
    opened = random_run(tmp_path, name, **MODERN)
    path, _, _ = export_run(opened, "gguf")
    server, end = LlamaCpp(path), opened.tokenizer.end_of_document
    reasons = {
        token_id: server.complete([2, 3], n_predict=4, logit_bias=[[token_id, 1000]])
        for token_id in (end, 1, 11)
    }
    assert reasons[end]["finish_reason"] == "stop" and reasons[end]["text"] == ""
    assert reasons[1]["finish_reason"] == reasons[11]["finish_reason"] == "length"


def test_positions_are_padded_so_that_a_longer_text_ends_nothing(tmp_path: Path):
    opened = random_run(tmp_path, "bpe-gpt2", **SHAPE | TANH)
    path, exported, _ = export_run(opened, "gguf")
    assert exported.notes == [
        "llama.cpp reads 256 positions; the model knows 40, and the others repeat the last one"
    ]
    assert LlamaCpp(path).complete([5] * 60, n_predict=1)["finish_reason"] == "length"
    assert "PARAMETER num_ctx 40" in path.with_suffix(".Modelfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_llama_cpp_reads_every_type_as_we_do(kind: str, tmp_path: Path):
    opened = random_run(tmp_path, "bpe-gpt2", **merge(MODERN, {"d_model": 64}))
    path, _, verified = export_run(opened, "gguf", kind)
    assert path.name == f"made-{kind}.gguf"
    token_ids = some_ids(opened, 1, 12)
    ours = opened.model(token_ids)[0].log_softmax(1)
    theirs = their_log_probabilities(opened, path, token_ids[0])
    far = {"f32": 1e-4, "f16": 0.02, "bf16": 0.15, "q8_0": 0.4}[kind]
    assert (theirs - ours).abs().max() < far
    assert verified.logit_difference < far


def test_rows_that_are_no_whole_blocks_stay_f16_and_vectors_f32(tmp_path: Path):
    opened = random_run(tmp_path, "bpe-gpt2", **merge(MODERN, {"d_model": 48, "d_ff": 64}))
    path, _, _ = export_run(opened, "gguf", "q8_0")
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}
    assert kinds["blk.0.ffn_down.weight"] == "Q8_0"  # rows of 64
    assert kinds["blk.0.ffn_up.weight"] == kinds["token_embd.weight"] == "F16"  # of 48
    assert kinds["blk.0.attn_norm.weight"] == "F32"


MODEL_KEYS = {
    *("vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length"),
    "attention.head_count",
}
GATED_KEYS = MODEL_KEYS | {
    *("attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base"),
}
TOKEN_KEYS = {
    *("model", "tokens", "token_type", "bos_token_id", "eos_token_id", "padding_token_id"),
    *("add_bos_token", "add_eos_token"),
}
UNIGRAM_KEYS = {"scores", "unknown_token_id", "add_space_prefix", "remove_extra_whitespaces"}
ROPE_KEYS = {"attention.layer_norm_epsilon", "rope.dimension_count", "rope.freq_base"}
KEYS: dict[str, tuple[dict[str, Any], str, set[str], set[str]]] = {
    "qwen3": (MODERN, "bpe-gpt2", GATED_KEYS, {"pre", "merges"}),
    "llama": (LLAMA, "character", GATED_KEYS, UNIGRAM_KEYS),
    "gpt2": (SHAPE, "character", MODEL_KEYS | {"attention.layer_norm_epsilon"}, UNIGRAM_KEYS),
    "gptneox": (
        NEOX,
        "lines",
        MODEL_KEYS | ROPE_KEYS | {"use_parallel_residual"},
        {"pre", "merges"},
    ),
}
"""What llama.cpp asks for; where a key is missing, it fails or reads other tokens in silence."""


@pytest.mark.parametrize("graph", KEYS)
def test_all_keys_that_llama_cpp_asks_for_are_there(graph: str, tmp_path: Path):
    settings, tokenizer, of_model, of_tokenizer = KEYS[graph]
    opened = random_run(tmp_path, tokenizer, **settings)
    said, _ = read_gguf(export_run(opened, "gguf")[0])
    general = {f"general.{key}" for key in ("architecture", "name", "file_type")} | {WRITTEN_BY}
    expected = {f"{graph}.{key}" for key in of_model}
    assert said.keys() == general | expected | {
        f"tokenizer.ggml.{key}" for key in TOKEN_KEYS | of_tokenizer
    }


def test_tokens_have_the_types_of_llama_cpp(tmp_path: Path):
    normal, unknown, control, user_defined, unused = range(1, 6)
    for name, expected in {
        "character": {"c": normal, "<unk>": unknown, "<|endoftext|>": control, "\u2581": normal},
        "found": {"c": normal, "<think>": user_defined, "<|endoftext|>": control},
        "lacking": {"c": normal, "<unused7>": unused},
    }.items():
        opened = random_run(tmp_path, name, name, **MODERN)
        said, _ = read_gguf(export_run(opened, "gguf")[0])
        kinds = dict(zip(said["tokenizer.ggml.tokens"], said["tokenizer.ggml.token_type"]))
        assert {token: kinds[token] for token in expected} == expected


def test_the_reader_of_ggml_finds_what_was_written(tmp_path: Path):
    opened = random_run(tmp_path, "lines", **MODERN)
    path, _, _ = export_run(opened, "gguf")
    reader = gguf.GGUFReader(path)
    said = {key: field.contents() for key, field in reader.fields.items()}
    assert said["general.architecture"] == "qwen3" and said["general.name"] == "made"
    assert said["qwen3.context_length"] == 40 and said["qwen3.rope.freq_base"] == 10_000.0
    assert said["qwen3.attention.key_length"] == said["qwen3.attention.value_length"] == 8
    assert said["tokenizer.ggml.pre"] == "gpt-2" and said["tokenizer.ggml.add_bos_token"] is True
    tokens = said["tokenizer.ggml.tokens"]
    assert tokens[said["tokenizer.ggml.eos_token_id"]] == "<|endoftext|>"
    weights = dict(opened.model.named_parameters())
    found = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    np.testing.assert_array_equal(
        found["token_embd.weight"], weights["token_embedding.weight"].numpy()
    )
    q = weights["blocks.1.attention.qkv_proj.weight"][:32].numpy()
    np.testing.assert_array_equal(found["blk.1.attn_q.weight"], q)
    assert all(tensor.data_offset % 32 == 0 for tensor in reader.tensors)


@pytest.mark.parametrize(("graph", "settings"), dict(CASES).items(), ids=describe)
def test_the_same_run_gives_the_same_bytes(graph: str, settings: dict[str, Any], tmp_path: Path):
    opened = random_run(tmp_path, "bpe-qwen2", **settings)
    one, two = (export_run(opened, "gguf", "q8_0", tmp_path / n / "m.gguf")[0] for n in "ab")
    assert one.read_bytes() == two.read_bytes()
    assert one.with_suffix(".Modelfile").read_text() == two.with_suffix(".Modelfile").read_text()


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("word", MODERN, "whole words. Give --to hf, or train with --tokenizer.kind bpe"),
    ("character", SHAPE | {"activation": "relu"}, "activation = relu; a run with --model.activ"),
    ("character", NEOX | {"activation": "relu2"}, "would leave .as gptneox"),
    ("character", MODERN | {"norm_placement": "both"}, "--model.norm-placement pre would leave"),
    ("character", MODERN | {"positions": "none"}, "--model.positions rope would leave .as qwen3"),
    ("character", SHAPE | {"norm_placement": "none", "qk_norm": True}, "--model.qk-norm false"),
    ("character", SHAPE | {"head_dim": 4}, "--model.head-dim 0 would leave .as gpt2"),
    ("character", NEOX | {"normalization": "rmsnorm"}, "--model.activation swiglu would leave"),
    ("character", NEOX | {"activation": "swiglu"}, "would leave .as "),  # StableLM's
    ("character", NEOX | {"qk_norm": True}, "--model.qk-norm false would leave"),  # Persimmon's
    ("character", SHAPE | {"norm_placement": "post"}, "--model.norm-placement pre"),  # OPT's
    ("character", MODERN | {"activation": "relu"}, "--model.activation swiglu"),  # Apertus's
]


@pytest.mark.parametrize(("tokenizer", "settings", "words"), REFUSED)
def test_what_llama_cpp_cannot_say_is_refused_with_the_settings_that_would_leave(
    tokenizer: str, settings: dict[str, Any], words: str, tmp_path: Path
):
    opened = random_run(tmp_path, tokenizer, **settings)
    with pytest.raises(UserError, match=words) as caught:
        export_run(opened, "gguf", out=tmp_path / "out" / "x.gguf")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []  # nothing is left behind


def test_vocabularies_that_llama_cpp_would_read_as_others_are_refused(tmp_path: Path):
    refused = {
        "U.2581": CharacterTokenizer("ab\u2581"),
        "ends a text": BPETokenizer.from_merges([], special_tokens=()),
        "normalizes": BPETokenizer.from_json(
            TOKENIZERS["bpe-qwen2"].to_json() | {"normalizer": {"type": "NFC"}}
        ),
    }
    for number, (words, tokenizer) in enumerate(refused.items()):
        opened = random_run(tmp_path, tokenizer, f"run{number}", **MODERN)
        with pytest.raises(UserError, match=words):
            export_run(opened, "gguf")


def test_a_weight_beyond_f16_is_refused(tmp_path: Path):
    opened = random_run(tmp_path, **MODERN)
    opened.model.get_parameter("blocks.0.feed_forward.up_proj.weight")[0, 0] = 1e5
    with pytest.raises(UserError, match="beyond f16"):
        export_run(opened, "gguf", "f16")
