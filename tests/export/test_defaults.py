"""What a file does not say is taken as the program that wrote it takes it, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from folio.errors import UserError
from folio.export.gguf_file import F32, read_gguf, write_gguf
from folio.export.gguf_graphs import QWEN2_GRAPH
from folio.export.names import to_theirs
from folio.export.quantize import pack
from folio.export.target import weights_of
from folio.export.targets import export_run
from folio.generation.sampling import SamplingConfig
from folio.run.directory import Run
from folio.storage import read_json, write_json
from tests.export.conftest import BY_TRANSFORMERS
from tests.export.making import MODERN, random_run
from tests.export.test_gguf import their_log_probabilities
from tests.export.test_hf import some_ids
from tests.export.test_importing import LLAMA_SHAPE, imported, theirs

pytestmark = BY_TRANSFORMERS


def changed(path: Path, **settings: Any) -> None:
    table = read_json(path) | settings
    write_json(path, {name: value for name, value in table.items() if value is not None})


# ---- folders of transformers -------------------------------------------------------------


@pytest.mark.parametrize("rope", [None, {"rope_type": "default", "rope_theta": 50.0}])
def test_gpt_neox_rotates_a_quarter_of_each_head_where_nothing_is_said(tmp_path: Path, rope: Any):
    (tmp_path / "theirs").mkdir()
    shape = {name: n for name, n in LLAMA_SHAPE.items() if name != "num_key_value_heads"}
    theirs("GPTNeoX", tmp_path / "theirs", use_parallel_residual=False, **shape)
    changed(tmp_path / "theirs/config.json", rope_parameters=rope, rotary_pct=None)
    with pytest.raises(UserError, match=r"rotates a part of each head only \(rotary_pct = 0\.25"):
        imported(tmp_path / "theirs", tmp_path)


def test_a_null_is_no_setting(folder: Path, tmp_path: Path):
    write_json(folder / "config.json", read_json(folder / "config.json") | {"rotary_pct": None})
    imported(folder, tmp_path)


def test_a_context_of_fewer_than_no_positions_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match="--context must be 1 to"):
        imported(folder, tmp_path, context=-5)


def test_a_head_stands_for_the_embedding_where_both_are_one(tmp_path: Path):
    (tmp_path / "theirs").mkdir()
    model = theirs("Llama", tmp_path / "theirs", tie_word_embeddings=True, **LLAMA_SHAPE)
    path = tmp_path / "theirs/model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, path)
    opened = imported(tmp_path / "theirs", tmp_path)
    assert torch.equal(opened.model.token_embedding.weight, model.model.embed_tokens.weight)


def test_one_file_of_weights_counts_more_than_an_index_that_was_left(folder: Path, tmp_path: Path):
    index = {"weight_map": {"model.embed_tokens.weight": "model-00001-of-00005.safetensors"}}
    write_json(folder / "model.safetensors.index.json", index)
    imported(folder, tmp_path)


def test_a_name_puts_no_token_before_a_text(tmp_path: Path):
    opened = random_run(tmp_path, "lines", **MODERN)
    folder, _, _ = export_run(opened, "hf")
    assert imported(folder, tmp_path, "said").tokenizer.begin is not None
    changed(folder / "tokenizer.json", post_processor=None)
    assert imported(folder, tmp_path).tokenizer.begin is None
    around = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}
    changed(folder / "tokenizer.json", post_processor=around)
    with pytest.raises(UserError, match="before and behind each text"):
        imported(folder, tmp_path, "around")


def test_two_files_are_the_vocabulary_of_gpt2_alone(tmp_path: Path):
    opened = random_run(tmp_path, "bpe-gpt2", **MODERN)
    folder, _, _ = export_run(opened, "hf")
    model = read_json(folder / "tokenizer.json")["model"]
    write_json(folder / "vocab.json", model["vocab"])
    (folder / "merges.txt").write_text("\n".join(" ".join(merge) for merge in model["merges"]))
    (folder / "tokenizer.json").unlink()
    write_json(folder / "added_tokens.json", {"<|endoftext|>": opened.tokenizer.end_of_document})
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"})
    tokenizer = imported(folder, tmp_path).tokenizer
    assert tokenizer.end_of_document == opened.tokenizer.end_of_document
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer"})
    with pytest.raises(UserError, match="how a Qwen2Tokenizer splits a text"):
        imported(folder, tmp_path, "other")


def test_each_of_several_ends_ends_a_text_and_is_exported(tmp_path: Path):
    folder = export_run(random_run(tmp_path, "lines", **MODERN), "hf")[0]
    table = read_json(folder / "tokenizer.json")
    ids = [t["id"] for t in table["added_tokens"] if t["special"]][:3]
    changed(folder / "generation_config.json", eos_token_id=ids)
    opened = imported(folder, tmp_path)
    assert opened.tokenizer.ends == tuple(ids)
    assert opened.request([0], SamplingConfig()).stop_tokens == tuple(ids)
    again = export_run(opened, "hf")[0]
    assert read_json(again / "generation_config.json")["eos_token_id"] == ids
    assert imported(again, tmp_path, "again").tokenizer.ends == tuple(ids)
    by_gguf = imported(export_run(opened, "gguf")[0], tmp_path, "by-gguf")
    assert by_gguf.tokenizer.ends == tuple(ids)


@pytest.mark.parametrize("change", ["d_ff", "n_layers", "missing", "transposed"])
def test_weights_of_our_own_class_that_do_not_fit_leave_nothing(tmp_path: Path, change: str):
    opened = random_run(tmp_path, **MODERN | {"activation": "relu2"})
    folder, _, _ = export_run(opened, "hf")
    table = read_json(folder / "config.json")
    assert table["model_type"] == "folio"
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name, x in tensors.items() if x.ndim == 2 and len(set(x.shape)) == 2)
    if change == "missing":
        del tensors[name]
    elif change == "transposed":
        tensors[name] = tensors[name].T.contiguous()
    else:
        own = table["folio"]
        write_json(
            folder / "config.json", table | {"folio": own | {change: max(own[change] - 1, 1)}}
        )
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"does not fit the shape|lacks|does not have|tensors hold"):
        imported(folder, tmp_path)
    assert not Run(tmp_path / "back").exists()


# ---- GGUF --------------------------------------------------------------------------------


def rewritten(exported: Path, path: Path, **settings: Any) -> Path:
    said, packed = read_gguf(exported / "m.gguf")
    said = {name: value for name, value in (said | settings).items() if value is not None}
    tensors = {name: (tensor.shape, tensor.kind) for name, tensor in packed.items()}
    write_gguf(path, said, tensors, lambda name: packed[name].data)
    return path


@pytest.mark.parametrize("key", ["scaling.factor", "scale_linear"])
def test_a_factor_alone_scales_positions(exported: Path, tmp_path: Path, key: str):
    path = tmp_path / "scaled.gguf"
    for factor in (1.0, 4.0):
        rewritten(exported, path, **{f"qwen3.rope.{key}": factor})
        if factor == 1:
            imported(path, tmp_path, "plain")
        else:
            with pytest.raises(UserError, match="scales its rotary positions"):
                imported(path, tmp_path)


def test_a_file_of_qwen_2_computes_what_llama_cpp_computes(tmp_path: Path):
    shape: dict[str, Any] = MODERN | {"qk_norm": False, "bias": True}
    opened = random_run(tmp_path, "bpe-qwen2", **shape)
    config, tensors = weights_of(opened)
    named = to_theirs(QWEN2_GRAPH.rows, config, tensors)
    without = [f"blk.{i}.{n}.bias" for i in (0, 1) for n in ("attn_output", "ffn_gate", "ffn_up")]
    for name in (*without, "blk.0.ffn_down.bias", "blk.1.ffn_down.bias"):  # as Qwen 2
        del named[name]
    said, _ = read_gguf(export_run(opened, "gguf")[0])
    said = {name.replace("llama.", "qwen2."): value for name, value in said.items()}
    path = tmp_path / "qwen2.gguf"
    shapes = {name: (tuple(x.shape), F32) for name, x in named.items()}
    write_gguf(
        path, said | {"general.architecture": "qwen2"}, shapes, lambda n: pack(named[n], F32)
    )
    back = imported(path, tmp_path)
    token_ids = some_ids(back, 1, 12)
    theirs = their_log_probabilities(back, path, token_ids[0])
    assert (theirs - back.model(token_ids)[0].log_softmax(1)).abs().max() < 1e-4


def test_a_split_of_llama_3_begins_texts_where_nothing_is_said(exported: Path, tmp_path: Path):
    said, _ = read_gguf(exported / "m.gguf")
    end = said["tokenizer.ggml.eos_token_id"]
    names = {"pre": "llama-bpe", "bos_token_id": end, "add_bos_token": None}
    settings = {f"tokenizer.ggml.{name}": value for name, value in names.items()}
    path = rewritten(exported, tmp_path / "begun.gguf", **settings)
    assert imported(path, tmp_path).tokenizer.begin == end
    rewritten(exported, path, **settings | {"tokenizer.ggml.add_bos_token": False})
    assert imported(path, tmp_path, "unbegun").tokenizer.begin is None


def test_a_file_is_named_as_the_user_named_it(exported: Path, tmp_path: Path):
    from folio.export.importing import import_run

    (tmp_path / "little.gguf").symlink_to(exported / "m.gguf")
    assert import_run(tmp_path / "little.gguf", folder=tmp_path).name == "little"
