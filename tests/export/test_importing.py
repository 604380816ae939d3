"""Models of other programs become runs: the same weights, the same logits, the same ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from folio.cli.main import main
from folio.config import merge
from folio.errors import UserError
from folio.export.gguf_file import read_gguf, write_gguf
from folio.export.importing import import_run
from folio.export.targets import export_run
from folio.run.directory import Run
from folio.run.model import Model
from folio.run.opening import open_run
from folio.storage import read_json, write_json
from tests.export import test_gguf, test_hf
from tests.export.conftest import BY_TRANSFORMERS
from tests.export.making import MODERN, SHAPE, TOKENIZERS, random_run
from tests.export.oracles import quiet, transformers

pytestmark = BY_TRANSFORMERS

NATIVE = [settings for _, settings in test_hf.CASES]


def imported(path: Path, tmp_path: Path, name: str = "back", **options: Any) -> Model:
    return open_run(import_run(path, name, folder=tmp_path, **options))


def weights(opened: Model) -> dict[str, torch.Tensor]:
    return dict(opened.model.named_parameters())


@pytest.mark.parametrize("settings", NATIVE, ids=test_hf.describe)
def test_hf_and_back_gives_the_logits_and_again_the_same_files(
    settings: dict[str, Any], tmp_path: Path
):
    opened = random_run(tmp_path, **settings)
    one, _, _ = export_run(opened, "hf")
    back = imported(one, tmp_path)
    n, token_ids = opened.tokenizer.vocab_size, test_hf.some_ids(opened)
    ours, theirs = opened.model(token_ids)[:, :, :n], back.model(token_ids)
    torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-6)
    assert back.tokenizer.fingerprint == opened.tokenizer.fingerprint
    two, _, _ = export_run(back, "hf")
    for name in ("model.safetensors", "tokenizer.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    dropped = {"attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"}
    first, second = (read_json(folder / "config.json") for folder in (one, two))
    assert {k for k in first if first[k] != second[k]} <= dropped


@pytest.mark.parametrize("settings", [MODERN, MODERN | {"qk_norm": False}], ids=test_hf.describe)
def test_a_run_of_the_same_form_comes_back_bit_by_bit_with_its_config(
    settings: dict[str, Any], tmp_path: Path
):
    opened = random_run(tmp_path, "bpe-llama3", **settings)
    for to in ("hf", "gguf"):
        back = imported(export_run(opened, to)[0], tmp_path, f"back-{to}")
        assert back.model.config == opened.model.config
        found, expected = weights(back), weights(opened)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("graph", "settings"), test_gguf.CASES, ids=test_hf.describe)
def test_gguf_and_back_gives_the_weights_that_were_written(
    graph: str, settings: dict[str, Any], tmp_path: Path
):
    opened = random_run(tmp_path, "bpe-gpt2", **settings)
    one, _, _ = export_run(opened, "gguf")
    back = imported(one, tmp_path)
    two, _, _ = export_run(back, "gguf", out=tmp_path / "two" / one.name)
    # All but the name of the run, which stands before the tensors.
    size = sum(p.numel() for p in back.model.parameters()) * 4
    assert one.read_bytes()[-size:] == two.read_bytes()[-size:]


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_weights_in_fewer_bits_are_read_as_they_were_written(kind: str, tmp_path: Path):
    opened = random_run(tmp_path, "bpe-gpt2", **MODERN)
    back = imported(export_run(opened, "gguf", kind)[0], tmp_path)
    again = imported(export_run(back, "gguf", kind)[0], tmp_path, "again")
    found, expected = weights(again), weights(back)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_weights_of_16_bits_become_float32_as_they_are(kind: str, tmp_path: Path):
    opened = random_run(tmp_path, **MODERN)
    back = imported(export_run(opened, "hf", kind)[0], tmp_path)
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}[kind]
    found, expected = weights(back), weights(opened)
    assert all(torch.equal(found[name], expected[name].to(dtype).float()) for name in expected)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_vocabulary_in_a_folder_comes_back(name: str, tmp_path: Path):
    opened = random_run(tmp_path, name)
    back = imported(export_run(opened, "hf")[0], tmp_path).tokenizer
    assert back.fingerprint == opened.tokenizer.fingerprint


@pytest.mark.parametrize("name", [n for n in TOKENIZERS if n != "word"])
def test_a_vocabulary_in_gguf_comes_back(name: str, tmp_path: Path):
    opened = random_run(tmp_path, name, **MODERN)
    back = imported(export_run(opened, "gguf")[0], tmp_path).tokenizer
    assert back.special_tokens == opened.tokenizer.special_tokens
    assert (back.begin, back.end_of_document) == (
        opened.tokenizer.begin,
        opened.tokenizer.end_of_document,
    )
    assert [*back.pieces] == [*opened.tokenizer.pieces]
    assert back.has_chat == opened.tokenizer.has_chat


# ---- models that transformers wrote ------------------------------------------------------


def theirs(kind: str, folder: Path, **settings: Any) -> Any:
    """A random model of transformers, saved with a tokenizer of ours."""
    hf = transformers()
    torch.manual_seed(1)
    TOKENIZERS["bpe-gpt2"].save(folder / "tokenizer.json")
    with quiet():
        config = getattr(hf, f"{kind}Config")(vocab_size=300, initializer_range=0.2, **settings)
        model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        model.save_pretrained(folder)
    return model


LLAMA_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
}
THEIRS: list[tuple[str, dict[str, Any]]] = [
    ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}),
    ("Llama", LLAMA_SHAPE | {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}),  # SmolLM
    ("Llama", LLAMA_SHAPE | {"attention_bias": True, "mlp_bias": True}),
    ("Qwen2", LLAMA_SHAPE),
    ("Qwen3", LLAMA_SHAPE | {"head_dim": 12}),
    (
        "GPTNeoX",
        {k: v for k, v in LLAMA_SHAPE.items() if k != "num_key_value_heads"}
        | {
            "use_parallel_residual": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}
            | {"partial_rotary_factor": 1.0},
        },
    ),
]


@pytest.mark.parametrize(("kind", "settings"), THEIRS, ids=test_hf.describe)
def test_what_transformers_saved_computes_what_transformers_computes(
    kind: str, settings: dict[str, Any], tmp_path: Path
):
    (tmp_path / "theirs").mkdir()
    model = theirs(kind, tmp_path / "theirs", **settings)
    opened = imported(tmp_path / "theirs", tmp_path)
    token_ids = test_hf.some_ids(opened)
    with torch.no_grad(), quiet():
        expected = model(input_ids=token_ids).logits
    torch.testing.assert_close(opened.model(token_ids), expected, rtol=1e-5, atol=1e-4)


def test_shards_and_names_of_older_versions_are_read(tmp_path: Path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    model = theirs("GPT2", folder, **dict(THEIRS)["GPT2"])
    tensors = {
        name.removeprefix("transformer."): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 40, 40)  # the mask, as OpenAI's file has it
    (folder / "model.safetensors").unlink()
    shards = {"a.safetensors": dict(list(tensors.items())[::2])}
    shards["b.safetensors"] = dict(list(tensors.items())[1::2])
    for name, part in shards.items():
        save_file(part, folder / name)
    where = {name: shard for shard, part in shards.items() for name in part}
    write_json(folder / "model.safetensors.index.json", {"weight_map": where})
    opened = imported(folder, tmp_path)
    token_ids = test_hf.some_ids(opened)
    with torch.no_grad(), quiet():
        expected = model(input_ids=token_ids).logits
    torch.testing.assert_close(opened.model(token_ids), expected, rtol=1e-5, atol=1e-4)


def test_a_vocabulary_in_two_files_is_read_as_gpt2_published_it(tmp_path: Path):
    opened = random_run(tmp_path, "bpe-gpt2")
    folder, _, _ = export_run(opened, "hf")
    model = read_json(folder / "tokenizer.json")["model"]
    write_json(folder / "vocab.json", model["vocab"])
    lines = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"]), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert imported(folder, tmp_path).tokenizer.fingerprint == opened.tokenizer.fingerprint
    (folder / "merges.txt").write_text("a b c\n", encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        imported(folder, tmp_path, "damaged")
    (folder / "merges.txt").rename(folder / "tokenizer.model")
    with pytest.raises(UserError, match="is of SentencePiece"):
        imported(folder, tmp_path, "pieces")


def test_a_longer_context_is_cut_and_said(tmp_path: Path):
    opened = random_run(tmp_path, **merge(SHAPE, {"context_length": 60}))
    folder, _, _ = export_run(opened, "hf")
    cut = imported(folder, tmp_path, "cut", context=10)
    assert cut.config.context_length == 10
    token_ids = test_hf.some_ids(opened, t=10)
    torch.testing.assert_close(cut.model(token_ids), opened.model(token_ids))
    with pytest.raises(UserError, match="--context must be 1 to 60, the positions that"):
        imported(folder, tmp_path, "longer", context=61)
    said: list[str] = []
    long = random_run(tmp_path, name="long", **merge(MODERN, {"context_length": 1500}))
    imported(export_run(long, "hf")[0], tmp_path, "capped", tell=said.append)
    assert said == ["context: 1,024 of 1,500 positions; folio import --context takes more"]


def test_roles_come_from_the_files_beside_the_tokenizer(tmp_path: Path):
    opened = random_run(tmp_path, "lines", **MODERN)
    folder, _, _ = export_run(opened, "hf")
    table = read_json(folder / "generation_config.json")
    ids = [opened.tokenizer.special_id("<eos>"), opened.tokenizer.special_id("<bos>")]
    write_json(folder / "generation_config.json", table | {"eos_token_id": ids})
    config = read_json(folder / "tokenizer_config.json")
    kept = {k: v for k, v in config.items() if "eos" not in k}
    write_json(folder / "tokenizer_config.json", kept)
    tokenizer = imported(folder, tmp_path).tokenizer
    assert tokenizer.end_of_document == ids[0] and tokenizer.begin == ids[1]


# ---- what is refused ---------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "gemma3"}, "of type 'gemma3'"),
    ({"model_type": ["qwen3"]}, "of type .'qwen3'."),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "rope_scaling: 'llama3'"),
    ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters: 'yarn'"),
    ({"partial_rotary_factor": 0.5, "rope_parameters": None}, "rotates a part of each head"),
    ({"use_sliding_window": True}, "use_sliding_window = True"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ({"hidden_act": "gelu"}, "hidden_act = 'gelu' with a gate"),
    ({"num_hidden_layers": 3}, "ids, but its tensors hold"),
    ({"num_hidden_layers": 1}, "tensors that this graph does not have"),
    ({"num_hidden_layers": 10**12}, "ids, but its tensors hold"),
    ({"num_hidden_layers": -1}, "an impossible setting: model.n_layers"),
    ({"num_hidden_layers": "2"}, "must be a whole number"),
    ({"num_attention_heads": 2, "head_dim": 16, "num_key_value_heads": 1}, "do not fit the shape"),
    ({"hidden_size": None}, "lacks the setting hidden_size"),
    ({"hidden_size": 16}, "do not fit the shape"),
    ({"vocab_size": 10**9}, "ids, but its tensors hold"),
    ({"vocab_size": 0}, "0 ids, but its tensors hold"),
    ({"rms_norm_eps": 0.0}, "an impossible setting: model.normalization_epsilon"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=lambda x: str(x)[:40])
def test_a_config_that_says_something_else_is_refused_by_its_name(
    changes: dict[str, Any], words: str, folder: Path, tmp_path: Path
):
    write_json(folder / "config.json", read_json(folder / "config.json") | changes)
    with pytest.raises(UserError, match=words) as caught:
        imported(folder, tmp_path)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert not Run(tmp_path / "back").exists()


OTHER_GGUF: list[tuple[str, Any, str]] = [
    ("general.architecture", "gemma3", "of type 'gemma3'"),
    ("split.count", 3, "is one of 3 parts of a model. Make one file of them first: llama-gguf"),
    ("qwen3.rope.scaling.type", "yarn", "scales its rotary positions"),
    ("qwen3.rope.dimension_count", 4, "rotates 4 of the 8 dimensions"),
    ("qwen3.expert_count", 8, "a mixture of experts"),
    ("qwen3.use_parallel_residual", True, "a parallel residual"),
    ("qwen3.attention.value_length", 4, "values of another width"),
    ("tokenizer.ggml.model", "llama", "SentencePiece"),
    ("tokenizer.ggml.pre", "deepseek-llm", "splits text as 'deepseek-llm'; Folio knows gpt-2"),
]


@pytest.mark.parametrize(("key", "value", "words"), OTHER_GGUF, ids=lambda x: str(x)[:40])
def test_a_gguf_that_says_something_else_is_refused_by_its_name(
    key: str, value: Any, words: str, exported: Path, tmp_path: Path
):
    said, packed = read_gguf(exported / "m.gguf")
    tensors = {name: (tensor.shape, tensor.kind) for name, tensor in packed.items()}
    changed = tmp_path / "changed.gguf"
    write_gguf(changed, said | {key: value}, tensors, lambda name: packed[name].data)
    with pytest.raises(UserError, match=words) as caught:
        imported(changed, tmp_path)
    assert "\n" not in str(caught.value) and not Run(tmp_path / "back").exists()


def test_a_head_that_is_no_embedding_is_refused_where_the_config_ties_them(
    folder: Path, tmp_path: Path
):
    tensors = load_file(folder / "model.safetensors")
    for head, same in ((tensors["model.embed_tokens.weight"].clone(), True), (None, False)):
        head = torch.zeros_like(tensors["model.embed_tokens.weight"]) if head is None else head
        save_file(tensors | {"lm_head.weight": head}, folder / "model.safetensors")
        if same:
            imported(folder, tmp_path)
        else:
            with pytest.raises(UserError, match=r"lm_head\.weight is another matrix"):
                imported(folder, tmp_path, "other")


def test_float8_is_refused_since_its_scales_lie_elsewhere(folder: Path, tmp_path: Path):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"norm\.weight as torch\.float8_e4m3fn; Folio reads"):
        imported(folder, tmp_path)


@pytest.mark.parametrize("key", ["single_word", "lstrip", "rstrip"])
def test_a_token_that_is_found_by_what_stands_around_it_is_refused(
    key: str, folder: Path, tmp_path: Path
):
    table = read_json(folder / "tokenizer.json")
    plain = {"id": table["added_tokens"][0]["id"], "content": "<think>", "special": False}
    for more, words in (({}, None), ({key: True}, f"'<think>' in text by .*{key}")):
        table["added_tokens"][0] = plain | more
        write_json(folder / "tokenizer.json", table)
        if words is None:
            imported(folder, tmp_path)
        else:
            with pytest.raises(UserError, match=words):
                imported(folder, tmp_path, "other")


def test_pythias_parallel_residual_is_refused(tmp_path: Path):
    folder, _, _ = export_run(random_run(tmp_path, positions="rope"), "hf")
    config = read_json(folder / "config.json")
    del config["use_parallel_residual"]  # which is then true
    write_json(folder / "config.json", config)
    with pytest.raises(UserError, match="as Pythia"):
        imported(folder, tmp_path)


def test_a_pickle_is_refused_with_the_reason(folder: Path, tmp_path: Path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"a pickle \(pytorch_model.bin\), which can run any code"):
        imported(folder, tmp_path)


def test_code_beside_a_model_is_never_run(tmp_path: Path):
    opened = random_run(tmp_path, **MODERN | {"norm_placement": "both"})
    folder, _, _ = export_run(opened, "hf")
    (folder / "modeling_folio.py").write_text("raise SystemExit('it was run')", encoding="utf-8")
    back = imported(folder, tmp_path)
    assert back.model.config == opened.model.config


def test_paths_that_are_no_models_say_so(tmp_path: Path):
    (tmp_path / "model.pt").write_bytes(b"PK")
    for path, words in (("nothing", "There is no"), ("model.pt", "neither a folder"), (".", "no ")):
        with pytest.raises(UserError, match=words):
            import_run(tmp_path / path, folder=tmp_path)


# ---- verbs -------------------------------------------------------------------------------


def test_the_verbs_work_without_a_training_text(
    tmp_path: Path, book: Path, capsys: pytest.CaptureFixture[str]
):
    opened = random_run(tmp_path / "made", "bpe-gpt2", **merge(MODERN, {"context_length": 128}))
    folder, _, _ = export_run(opened, "hf", out=tmp_path / "there")
    main(["import", str(folder), "--name", "mine"])
    assert "let it write: folio sample mine" in capsys.readouterr().out.lower()
    main(["sample", "mine", "--prompt", "The ", "--max-tokens", "5", "--seed", "1"])
    assert capsys.readouterr().out.startswith("The ")
    main(["evaluate", "mine", str(book), "--json"])
    records = json.loads(capsys.readouterr().out)
    assert records[0]["protocol"] == "exact" and records[0]["targets"] > 1000
    main(["evaluate", "mine", "--text", "The cat sat", "--json"])
    assert json.loads(capsys.readouterr().out)[0]["text"] == ["The cat sat"]
    main(["explain", "mine", "--text", "The cat sat on the mat", "--out", str(tmp_path / "e.html")])
    assert (tmp_path / "e.html").stat().st_size > 10_000
    capsys.readouterr()
    main(["runs", "--json"])
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["text"] == "(there)" and facts["state"] == "imported"
    main(["export", "mine", "--to", "gguf", "--json"])
    assert json.loads(capsys.readouterr().out)["graph"] == "qwen3"


def test_recall_looks_in_the_text_that_the_user_names(
    tmp_path: Path, book: Path, capsys: pytest.CaptureFixture[str]
):
    opened = random_run(tmp_path / "made", "bpe-gpt2", **merge(MODERN, {"context_length": 128}))
    folder, _, _ = export_run(opened, "hf", out=tmp_path / "there")
    main(["import", str(folder), "--name", "mine"])
    options = ["--samples", "2", "--passages", "50", "--length", "20", "--json"]
    capsys.readouterr()
    main(["recall", "mine", "--text", str(book), *options])
    record = json.loads(capsys.readouterr().out)
    assert record["run"].endswith("mine") and record["text_characters"] > 10_000
    assert record["copies"]["model"]["copied"] is not None
    run = Run(Path(record["run"]))
    assert run.recall_text_page.exists() and not run.tokens_file("train").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("evaluate mine", "was imported, so its training text is not known"),
        ("recall mine", "folio recall mine --text FILE"),
        ("recall mine --twin --text x.txt", "--twin trains on the text of the run"),
        ("sample mine --novel 40", "was imported"),
        ("resume mine", "has no training text to go on with"),
        ("evaluate mine --text a", "a second one is needed"),
    ],
)
def test_verbs_that_need_the_training_text_say_what_to_name(
    words: str, reason: str, exported: Path, capsys: pytest.CaptureFixture[str]
):
    import_run(exported / "m.gguf", "mine")
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
