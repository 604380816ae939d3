"""transformers computes what the run computes, from a folder that it loads by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from folio.config import merge
from folio.export.card import facts, model_card
from folio.export.hf_graphs import GRAPHS
from folio.export.targets import export_run
from folio.export.verify import HOSTILE
from folio.run.fine_tuning import write_start
from folio.run.model import Model
from folio.storage import read_json, write_json
from tests.export.conftest import BY_TRANSFORMERS
from tests.export.making import LLAMA, MODERN, NEOX, SHAPE, TOKENIZERS, random_run
from tests.export.oracles import quiet, their_logits, their_model, their_tokenizer

pytestmark = BY_TRANSFORMERS

CASES: list[tuple[str, dict[str, Any]]] = [
    ("qwen3", MODERN),
    ("qwen3", MODERN | {"n_kv_heads": 2, "tied_head": False, "head_dim": 12, "rope_base": 500.0}),
    ("qwen3", MODERN | {"vocab_size": 320, "scale_embeddings": True}),
    ("llama", LLAMA),
    ("llama", LLAMA | {"bias": True, "n_kv_heads": 1, "scale_embeddings": True}),
    ("gpt2", SHAPE),
    ("gpt2", SHAPE | {"activation": "relu", "positions": "sinusoidal", "bias": False}),
    ("gpt2", SHAPE | {"activation": "relu2", "positions": "none", "tied_head": False}),
    ("gpt2", SHAPE | {"activation": "gelu_tanh", "scale_embeddings": True, "n_kv_heads": 2}),
    ("gpt_neox", NEOX | {"normalization_epsilon": 0.1}),
    ("gpt_neox", NEOX | {"n_kv_heads": 2, "bias": False, "tied_head": False, "rope_base": 33.0}),
    ("gpt_neox", NEOX | {"activation": "relu2", "bias": False}),  # Nemotron's graph
    ("gpt_neox", NEOX | {"activation": "gelu_tanh"}),
    ("folio", MODERN | {"norm_placement": "both"}),
    ("folio", SHAPE | {"norm_placement": "post", "scale_embeddings": True, "n_kv_heads": 1}),
    ("folio", SHAPE | {"norm_placement": "none", "head_dim": 12, "positions": "sinusoidal"}),
    ("folio", NEOX | {"qk_norm": True, "tied_head": False, "activation": "relu2"}),
    ("folio", NEOX | {"normalization": "rmsnorm", "activation": "gelu_tanh", "bias": False}),
    ("folio", NEOX | {"activation": "swiglu", "bias": False}),  # StableLM's
    ("folio", MODERN | {"activation": "relu2"}),  # Apertus's
    ("folio", LLAMA | {"positions": "none"}),  # SmolLM3's
    ("folio", MODERN | {"positions": "none", "activation": "relu", "head_dim": 6}),
]


def some_ids(opened: Model, b: int = 2, t: int = 30) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randint(0, opened.tokenizer.vocab_size, (b, t), generator=draw)


def describe(case: Any) -> str:
    return ",".join(case) if isinstance(case, dict) else str(case)


@pytest.mark.parametrize(("graph", "settings"), CASES, ids=describe)
def test_the_class_that_a_model_gets_computes_its_logits(
    graph: str, settings: dict[str, Any], tmp_path: Path
):
    opened = random_run(tmp_path, **settings)
    folder, exported, verified = export_run(opened, "hf")
    assert exported.graph == graph and verified.logit_difference < 1e-4
    token_ids = some_ids(opened)
    n = opened.tokenizer.vocab_size
    theirs = their_logits(folder, token_ids, trust=graph == "folio")
    assert theirs.shape == (2, 30, n)  # rows that only pad are left out
    torch.testing.assert_close(theirs, opened.model(token_ids)[:, :, :n], rtol=1e-5, atol=1e-4)


def test_every_graph_has_a_case():
    assert {graph for graph, _ in CASES} == {graph.name for graph in GRAPHS} | {"folio"}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_autotokenizer_gives_the_ids_and_the_text_of_the_run(name: str, tmp_path: Path):
    opened = random_run(tmp_path, name)
    folder, _, _ = export_run(opened, "hf")
    tokenizer = their_tokenizer(folder)
    for text in HOSTILE:
        ours = opened.tokenizer.encode(text).tolist()
        assert tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) == ours
        if opened.tokenizer.lossless:
            assert tokenizer.decode(ours) == opened.tokenizer.decode(ours)
    assert tokenizer.encode("The cat") == opened.prompt_ids("The cat")
    assert tokenizer.eos_token_id == opened.tokenizer.end_of_document
    assert tokenizer.unk_token_id == opened.tokenizer.unknown


@pytest.mark.parametrize("kind", ["character", "word", "bpe-gpt2"])
@pytest.mark.parametrize("settings", [MODERN, MODERN | {"norm_placement": "both"}], ids=describe)
def test_transformers_writes_what_folio_writes(kind: str, settings: dict[str, Any], tmp_path: Path):
    opened = random_run(tmp_path, kind, **settings)
    folder, exported, _ = export_run(opened, "hf")
    prompt = opened.prompt_ids("The cat")
    with quiet():
        model = their_model(folder, trust=exported.graph == "folio")
        made = model.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, temperature=None, top_k=None
        )
    steps = opened.generate_ids("The cat", _greedy(), 1, 12, stop=True)
    assert made[0].tolist()[len(prompt) :] == [step[0] for step in steps if step[0] >= 0]
    assert opened.tokenizer.unknown is None or opened.tokenizer.unknown not in made


def test_padding_that_our_own_class_would_read_as_text_is_refused(tmp_path: Path):
    opened = random_run(tmp_path, **MODERN | {"norm_placement": "both"})
    folder, _, _ = export_run(opened, "hf")
    token_ids, whole = some_ids(opened), torch.ones(2, 30, dtype=torch.long)
    left, right = whole.clone(), whole.clone()
    left[0, :3] = right[0, -3:] = 0
    settings: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False}
    settings |= {"temperature": None, "top_k": None}
    with quiet():
        model = their_model(folder, trust=True)
        assert torch.equal(
            model.generate(token_ids, attention_mask=whole, **settings),
            model.generate(token_ids, **settings),
        )
        for mask in (left, right):
            with pytest.raises(ValueError, match="reads no padding"):
                model.generate(token_ids, attention_mask=mask, **settings)
        with pytest.raises(ValueError, match="reads no padding"):
            model(token_ids, attention_mask=left)
        assert torch.equal(  # what stands behind a text is not seen
            model(token_ids, attention_mask=right).logits, model(token_ids).logits
        )


def _greedy() -> Any:
    from folio.generation.sampling import SamplingConfig

    return SamplingConfig(temperature=0.0)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_weights_in_16_bits_are_loaded_in_16_bits(kind: str, tmp_path: Path):
    opened = random_run(tmp_path, **MODERN)
    folder, _, verified = export_run(opened, "hf", kind)
    assert 0 < verified.logit_difference < 0.1
    token_ids = some_ids(opened)
    theirs = their_logits(folder, token_ids)
    torch.testing.assert_close(theirs, opened.model(token_ids), rtol=0, atol=0.1)
    assert (
        read_json(folder / "config.json")["dtype"] == {"f16": "float16", "bf16": "bfloat16"}[kind]
    )


@pytest.mark.parametrize(("graph", "settings"), dict(CASES).items(), ids=describe)
def test_the_same_run_gives_the_same_bytes(graph: str, settings: dict[str, Any], tmp_path: Path):
    opened = random_run(tmp_path, **settings)
    one, _, _ = export_run(opened, "hf", out=tmp_path / "one")
    two, _, _ = export_run(opened, "hf", out=tmp_path / "two")
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in two.iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(names)
    assert ("modeling_folio.py" in names) == (graph == "folio")
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_the_card_says_what_was_read_how_well_and_what_is_known_by_heart(tmp_path: Path):
    opened = random_run(tmp_path)
    run = opened.run
    corpus = run.corpus()
    del corpus["imported"]
    ledger = {"characters_in": 2100, "training": 1800, "validation": 200}
    corpus["ledger"] = ledger | {"dropped": {"not printable": 100}}
    corpus["sources"] = [{"source": "/home/alice/private/book.txt"}]
    write_json(run.corpus_file, corpus)
    loss = {"name": "validation", "protocol": "exact", "nats_per_token": 1.5, "targets": 199}
    write_json(run.held_out_file, [loss])
    write_json(run.by_heart_file, {"known": {"count": 3, "of": 500}})
    folder, _, _ = export_run(opened, "hf")
    card = (folder / "README.md").read_text(encoding="utf-8")
    for words in (
        "| loss, validation (exact) | 1.5000 nats per token over 199 targets |",
        "| passages known by heart | 3 of 500 |",
        "Trained on book.txt.",
        "2,100 in = 1,800 training + 200 validation + 100 dropped (not printable).",
        "read 40 tokens at once; behind them Folio goes on from the last half of its window.",
    ):
        assert words in card
    assert "alice" not in card
    found = {"sentence": "It learned.", "copies": {"model": {"copied": 0.25}}}
    write_json(run.recall_file, found | {"checkpoint": opened.checkpoint.path.name})
    folder, _, _ = export_run(opened, "hf")
    assert "| folio recall | It learned. |" in (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_of_a_fine_tuned_model_names_what_it_began_with(tmp_path: Path):
    origin, opened = (random_run(tmp_path, name=name) for name in ("origin", "tuned"))
    corpus = opened.run.corpus()
    del corpus["imported"]
    corpus["ledger"]["dropped"] = {}
    write_json(opened.run.corpus_file, corpus | {"sources": [{"source": "letters.txt"}]})
    assert "from-scratch" in model_card(opened, "gpt2", [])
    write_start(opened.run, str(origin.run.path), "", None)
    card = model_card(opened, "gpt2", [])
    assert "scratch" not in card and "from the weights of a test." in card
    assert "Trained on letters.txt, after all that a test learned from." in card
    assert ("training text", "letters.txt, after all that a test learned from") in facts(opened)


def test_the_card_says_nothing_that_was_measured_of_another_checkpoint(tmp_path: Path):
    opened = random_run(tmp_path)
    run, step = opened.run, opened.checkpoint.step
    loss = {"name": "validation", "protocol": "exact", "nats_per_token": 1.5, "targets": 199}
    for of, said in ((step, True), (step + 10, False)):
        write_json(run.held_out_file, [loss | {"step": of}])
        write_json(run.by_heart_file, {"step": of, "known": {"count": 3, "of": 500}})
        write_json(run.recall_file, {"checkpoint": f"step-{step + 10:08d}", "sentence": "No."})
        card = model_card(opened, "qwen3", [])
        assert ("1.5000 nats" in card, "3 of 500" in card) == (said, said)
        assert "folio recall" not in card


def test_positions_of_a_model_without_any_are_zeros(tmp_path: Path):
    from safetensors.numpy import load_file

    opened = random_run(tmp_path, positions="none")
    folder, _, _ = export_run(opened, "hf")
    assert not np.any(load_file(folder / "model.safetensors")["transformer.wpe.weight"])


def test_config_says_what_transformers_and_older_readers_ask_for(tmp_path: Path):
    names = ("embedding_dropout", "residual_dropout", "attention_dropout")
    dropouts: dict[str, float] = dict(zip(names, (0.1, 0.2, 0.3)))
    opened = random_run(tmp_path, "lines", **merge(MODERN, {"rope_base": 500.0}))
    config = read_json(export_run(opened, "hf")[0] / "config.json")
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 500.0
    assert config["dtype"] == config["torch_dtype"] == "float32"
    assert config["head_dim"] == 8 and config["layer_types"] == ["full_attention"] * 2
    begin, end = opened.tokenizer.begin, opened.tokenizer.end_of_document
    assert (config["bos_token_id"], config["eos_token_id"]) == (begin, end)
    opened = random_run(tmp_path, name="dropped", **merge(SHAPE, dropouts))
    config = read_json(export_run(opened, "hf")[0] / "config.json")
    assert [config[f"{part}_pdrop"] for part in ("embd", "resid", "attn")] == [0.1, 0.2, 0.3]


def test_labels_bring_the_loss_and_more_tokens_than_positions_an_error(tmp_path: Path):
    opened = random_run(tmp_path, **SHAPE | {"norm_placement": "post", "positions": "learned"})
    folder, _, _ = export_run(opened, "hf")
    assert (folder / "modeling_folio.py").exists()
    theirs = their_model(folder, trust=True)
    length = opened.model.config.context_length
    ids = torch.randint(
        0, opened.tokenizer.vocab_size, (2, length), generator=torch.Generator().manual_seed(1)
    )
    labels = ids.clone()
    labels[0, :5] = -100
    found = theirs(ids, labels=labels)
    expected = F.cross_entropy(found.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(ValueError, match=f"has learned {length} positions, and the text has"):
        theirs(torch.zeros(1, length + 1, dtype=torch.int64))
