"""N-grams beside a model go along, to transformers and back, or stay behind and are missed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from folio.cli.main import main
from folio.errors import UserError
from folio.export.foreign import Foreign
from folio.export.importing import import_run
from folio.export.targets import TARGETS, export_run
from folio.generation.sampling import SamplingConfig
from folio.model.gpt import GPT
from folio.ngrams.gpt import GPTWithNGrams
from folio.ngrams.weights import Weights
from folio.run.model import Model
from folio.run.opening import open_run
from folio.storage import read_json, write_json
from tests.export.conftest import BY_TRANSFORMERS
from tests.export.making import MODERN, SHAPE, random_run, random_run_beside_ngrams, text_of
from tests.export.oracles import quiet, their_logits, their_model, transformers
from tests.export.test_hf import describe, some_ids

pytestmark = BY_TRANSFORMERS

PIECES_OF_THE_TEXT = (
    "which hold the training text up to 5 tokens at a time: whoever gets the export can read "
    "pieces of the text out of it"
)
PADDED = MODERN | {"vocab_size": 320}
SHAPES = [MODERN, SHAPE | {"norm_placement": "post"}, PADDED]


def beside(folder: Path, tokenizer: str = "bpe-gpt2", **settings: Any) -> Model:
    return random_run_beside_ngrams(folder, tokenizer, **MODERN | settings)


def seen_ids(opened: Model) -> torch.Tensor:
    """(2, 35) ids of which the n-grams know the first 15 as a passage, and the others not."""
    known = torch.from_numpy(text_of(opened.tokenizer.vocab_size)[-15:]).expand(2, -1)
    return torch.cat((known, some_ids(opened, 2, 20)), dim=1)


@pytest.mark.parametrize("settings", SHAPES, ids=describe)
def test_transformers_computes_the_product_of_the_model_and_the_n_grams(
    settings: dict[str, Any], tmp_path: Path
):
    opened = beside(tmp_path, **settings)
    folder, exported, verified = export_run(opened, "hf")
    assert exported.graph == "folio" and verified.logit_difference < 1e-4
    token_ids, n = seen_ids(opened), opened.tokenizer.vocab_size
    ours = opened.model(token_ids)[:, :, :n]
    assert (ours - GPT.forward(opened.model, token_ids)[:, :, :n]).abs().max() > 0.1
    theirs = their_logits(folder, token_ids, trust=True)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-4)


def test_counts_are_not_rounded_where_weights_are(tmp_path: Path):
    opened = beside(tmp_path)
    folder, _, _ = export_run(opened, "hf", "bf16")
    with quiet():
        model = (
            transformers()
            .AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.bfloat16, trust_remote_code=True
            )
            .to(torch.bfloat16)
        )
    assert model.lm_head.weight.dtype == torch.bfloat16
    token_ids, n = seen_ids(opened), opened.tokenizer.vocab_size
    assert isinstance(opened.model, GPTWithNGrams)
    expected = torch.from_numpy(opened.model.ngrams.probabilities(token_ids.numpy()))
    torch.testing.assert_close(model.ngrams(token_ids), expected, rtol=1e-5, atol=0)
    ours = opened.model(token_ids)[:, :, :n]
    torch.testing.assert_close(model(token_ids).logits, ours, rtol=0, atol=0.1)


def test_transformers_writes_what_folio_writes_beside_n_grams(tmp_path: Path):
    opened = beside(tmp_path, "character")
    prompt = opened.prompt_ids("The cat")
    with quiet():
        made = their_model(export_run(opened, "hf")[0], trust=True).generate(
            torch.tensor([prompt]), max_new_tokens=25, do_sample=False, temperature=None, top_k=None
        )
    steps = opened.generate_ids("The cat", SamplingConfig(temperature=0.0), 1, 25, stop=True)
    assert made[0].tolist()[len(prompt) :] == [step[0] for step in steps if step[0] >= 0]


@pytest.mark.parametrize("settings", SHAPES, ids=describe)
def test_an_import_brings_the_n_grams_back(settings: dict[str, Any], tmp_path: Path):
    opened = beside(tmp_path, **settings)
    one, _, _ = export_run(opened, "hf")
    told: list[str] = []
    back = open_run(import_run(one, "back", folder=tmp_path, tell=told.append))
    n = read_json(opened.run.ngram_weights_file)["ngrams"]
    assert told == [f"n-grams: {n:,} beside the model come with it"]
    assert read_json(back.run.ngram_weights_file) == read_json(opened.run.ngram_weights_file)
    token_ids, n = seen_ids(opened), opened.tokenizer.vocab_size
    torch.testing.assert_close(back.model(token_ids), opened.model(token_ids)[:, :, :n])
    text = SamplingConfig(temperature=0.0)
    assert list(back.generate_ids("The", text, 1, 8)) == list(
        opened.generate_ids("The", text, 1, 8)
    )
    two, _, _ = export_run(back, "hf")
    for name in ("model.safetensors", "config.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_an_import_that_was_killed_before_its_recipe_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    exported, _, _ = export_run(beside(tmp_path), "hf")
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "lock").touch()
    with monkeypatch.context() as patched:
        patched.setattr("folio.export.importing.save_recipe", killed)
        patched.setattr("folio.recipe.reserve._give_up", lambda run: None)
        with pytest.raises(KeyboardInterrupt):
            import_run(exported, "back", folder=tmp_path)
    assert (tmp_path / "back" / "ngrams.json").exists()
    assert import_run(exported, "back", folder=tmp_path).exists()


def damaged(key: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Changes a setting of the n-grams, or a tensor, of a folder."""

    def of(folder: Path) -> None:
        config = read_json(folder / "config.json")
        tensors = load_file(folder / "model.safetensors")
        if key in config["ngrams"]:
            config["ngrams"][key] = change(config["ngrams"][key])
            write_json(folder / "config.json", config)
        else:
            tensors[f"ngrams.{key}"] = change(tensors[f"ngrams.{key}"])
            save_file(tensors, folder / "model.safetensors")

    return of


def without_settings(folder: Path) -> None:
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {k: v for k, v in config.items() if k != "ngrams"})


def without_the_last_level(folder: Path) -> None:
    for name in ("tokens_5", "counts_5", "children_5"):
        damaged(name, lambda x: x[:0].clone())(folder)
    damaged("children_4", torch.zeros_like)(folder)


DAMAGES = [
    (without_settings, "they lack 'vocab_size'"),
    (without_the_last_level, "a level is empty"),
    (damaged("vocab_size", lambda x: 1 << 40), "of 1,099,511,627,776 ids, and the model of"),
    (damaged("vocab_size", lambda x: x - 1), "ids, and the model of"),
    (damaged("discounts", lambda x: x[:-1]), "the last level promises another"),
    (damaged("discounts", lambda x: [*x, x[0]]), "they lack"),
    (damaged("discounts", lambda x: [[0, 0, 0]] * 5), "a discount is 0 or above the count"),
    (damaged("discounts", lambda x: "none"), "could not convert"),
    (damaged("weights", lambda x: {"model": "1e999", "ngrams": 1}), "not finite"),
    (damaged("tokens_2", lambda x: x.flip(0)), "do not ascend"),
    (damaged("tokens_2", lambda x: x + 1000), "do not ascend below the number of ids"),
    (damaged("tokens_2", lambda x: x.float()), "not of whole numbers"),
    (damaged("tokens_2", lambda x: x[:-1].clone()), "not of one length"),
    (damaged("counts_3", lambda x: x - 1000), "a count is below 1"),
    (damaged("children_3", lambda x: x + 1), "not as many n-grams as the one before promises"),
    (damaged("children_3", lambda x: -x), "not as many n-grams as the one before promises"),
]


@pytest.mark.parametrize("case", range(len(DAMAGES)))
def test_n_grams_that_are_no_tree_are_refused_in_a_line(case: int, tmp_path: Path):
    damage, words = DAMAGES[case]
    folder, _, _ = export_run(beside(tmp_path), "hf")
    damage(folder)
    with pytest.raises(UserError, match=words) as caught:
        import_run(folder, "back", folder=tmp_path)
    assert "n-grams that are damaged" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("to", ["hf", "html"])
def test_n_grams_that_are_written_wrong_are_found(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = TARGETS[to]

    def read(path: Path) -> Foreign:
        foreign = target.read(path)
        assert foreign.counted is not None
        return replace(foreign, counted=foreign.counted._replace(weights=Weights(0.7, 0.2)))

    monkeypatch.setitem(TARGETS, to, replace(target, read=read))
    with pytest.raises(UserError, match="computes something else than the run"):
        export_run(beside(tmp_path), to)


def test_the_card_and_the_notes_say_that_pieces_of_the_text_go_along(tmp_path: Path):
    opened = beside(tmp_path)
    folder, exported, _ = export_run(opened, "hf")
    n = read_json(opened.run.ngram_weights_file)["ngrams"]
    said = f"{n:,} n-grams go along, {PIECES_OF_THE_TEXT}"
    assert said in exported.notes
    assert f"- {said}." in (folder / "README.md").read_text(encoding="utf-8")
    page, exported, _ = export_run(opened, "html")
    assert said in exported.notes and said in page.read_text(encoding="utf-8")


def test_llama_cpp_gets_no_n_grams_and_the_way_out_is_named(tmp_path: Path):
    opened = beside(tmp_path)
    with pytest.raises(
        UserError, match=r"n-grams.*of them\. Give --alone .*, or --to hf"
    ) as caught:
        export_run(opened, "gguf")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("to", "graph"), [("hf", "qwen3"), ("gguf", "qwen3"), ("html", "a page")])
def test_a_model_alone_leaves_as_one_without_n_grams(to: str, graph: str, tmp_path: Path):
    opened = beside(tmp_path)
    for file in (opened.run.held_out_file, opened.run.by_heart_file):
        write_json(file, [])  # what was measured beside n-grams
    path, exported, _ = export_run(opened, to, alone=True)
    n = read_json(opened.run.ngram_weights_file)["ngrams"]
    lost = f"the {n:,} n-grams beside the model are left out: validation 2.5000 nats per token"
    assert exported.graph == graph
    assert exported.notes[0] == f"{lost} without them, 1.7500 with them"
    assert not any("go along" in note for note in exported.notes)
    plain = random_run(tmp_path, "bpe-gpt2", "plain", **MODERN)
    path_of_plain, _, _ = export_run(plain, to)
    model, expected = TARGETS[to].read(path).model(), TARGETS[to].read(path_of_plain).model()
    token_ids = some_ids(opened)
    assert torch.equal(model(token_ids), expected(token_ids))
    if to == "hf":
        card = (path / "README.md").read_text(encoding="utf-8")
        row = "| loss, validation (without n-grams) | 2.5000 nats per token over 4,096 targets |"
        assert row in card and "known by heart" not in card


def test_the_verb_leaves_them_out_and_says_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    opened = beside(tmp_path)
    with pytest.raises(SystemExit):
        main(["export", str(opened.run.path), "--to", "gguf"])
    assert "Give --alone" in capsys.readouterr().err
    main(["export", str(opened.run.path), "--to", "gguf", "--alone", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["graph"] == "qwen3"
    assert record["notes"][0].endswith("2.5000 nats per token without them, 1.7500 with them")
