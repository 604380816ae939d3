"""The template goes out with a model, and comes back where it is ours."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from folio.corpus.turns import turns_of
from folio.export.gguf import OLLAMA_TEMPLATE
from folio.export.importing import import_run, with_run
from folio.export.targets import export_run
from folio.run.opening import open_run
from folio.storage import read_json, write_json
from folio.tokenizers.base import CHAT_TOKENS
from folio.tokenizers.chat import encode_turns, harmless
from tests.export.conftest import BY_TRANSFORMERS
from tests.export.making import MODERN, TOKENIZERS, random_run
from tests.export.oracles import LlamaCpp, quiet, their_model, their_tokenizer
from tests.tokenizers.test_chat import HOSTILE

pytestmark = BY_TRANSFORMERS

CHATS = [name for name, tokenizer in TOKENIZERS.items() if tokenizer.has_chat]


def talks() -> list[list[dict[str, str]]]:
    found = [[("user", text)] for text in HOSTILE]
    found += [[("system", text), ("user", text), ("assistant", text)] for text in HOSTILE]
    found += [[("system", text), ("user", text)] for text in HOSTILE]
    found += [
        [("user", "cat"), ("assistant", a), ("user", b)] for a, b in itertools.pairwise(HOSTILE)
    ]
    return [[{"role": role, "content": text} for role, text in talk] for talk in found]


def ours(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    turns = turns_of([(message["role"], message["content"]) for message in messages])
    ids = encode_turns(tokenizer, turns).tolist()
    return [*ids, tokenizer.special_tokens["<|assistant|>"]]


@pytest.mark.parametrize("name", CHATS)
def test_apply_chat_template_gives_the_ids_of_folio(name: str, tmp_path: Path):
    opened = random_run(tmp_path, name, **MODERN)
    folder, _, _ = export_run(opened, "hf")
    theirs = their_tokenizer(folder)
    for messages in talks():
        with quiet():
            ids = theirs.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
        assert ids == ours(opened.tokenizer, messages), messages


def test_an_answer_of_transformers_is_that_of_folio_and_ends_with_its_turn(tmp_path: Path):
    import torch

    opened = random_run(tmp_path, "chat", **MODERN)
    folder, _, _ = export_run(opened, "hf")
    messages = [{"role": "user", "content": "The cat"}]
    prompt = ours(opened.tokenizer, messages)
    model = their_model(folder)
    end = opened.tokenizer.special_tokens["<|end|>"]
    assert end in model.generation_config.eos_token_id
    others = [i for i in opened.tokenizer.special_tokens.values() if i != end]
    with quiet():
        made = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=12,
            do_sample=False,
            temperature=None,
            top_k=None,
            suppress_tokens=others,
        )[0].tolist()[len(prompt) :]
    made = made[: made.index(end)] if end in made else made
    answer = opened.chat(messages, max_tokens=12, temperature=0.0)
    assert opened.tokenizer.decode(made) == answer


@pytest.mark.parametrize("to", ["hf", "gguf"])
@pytest.mark.parametrize("name", CHATS)
def test_the_template_comes_back(to: str, name: str, tmp_path: Path):
    opened = random_run(tmp_path, name, **MODERN)
    path, _, _ = export_run(opened, to)
    back = open_run(import_run(path, "back", folder=tmp_path))
    assert back.tokenizer.has_chat
    assert back.tokenizer.to_json()["model"]["conversations"]
    said = [{"role": "user", "content": "The cat"}]
    settings: Any = {"max_tokens": 12, "temperature": 0.0}
    assert back.chat(said, **settings) == opened.chat(said, **settings)
    assert back.tokenizer.end_of_document == opened.tokenizer.end_of_document


def test_another_template_is_not_taken_for_ours(tmp_path: Path):
    opened = random_run(tmp_path, "chat", **MODERN)
    folder, _, _ = export_run(opened, "hf")
    config = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", config | {"chat_template": "### {{ messages }}"})
    back = open_run(import_run(folder, "back", folder=tmp_path))
    assert not back.tokenizer.has_chat and set(CHAT_TOKENS) <= back.tokenizer.special_tokens.keys()


def test_what_transformers_saves_again_keeps_the_template(tmp_path: Path):
    opened = random_run(tmp_path, "chat", **MODERN)
    folder, _, _ = export_run(opened, "hf")
    with quiet():
        their_tokenizer(folder).save_pretrained(tmp_path / "again")
    saved = tmp_path / "again" / "chat_template.jinja"
    said = saved.read_text(encoding="utf-8") if saved.exists() else ""
    config = read_json(tmp_path / "again" / "tokenizer_config.json")
    assert (said or config["chat_template"]) == read_json(folder / "tokenizer_config.json")[
        "chat_template"
    ]


@pytest.mark.parametrize("name", CHATS)
def test_llama_cpp_writes_the_conversation_that_folio_writes(name: str, tmp_path: Path):
    opened = random_run(tmp_path, name, **MODERN)
    path, _, _ = export_run(opened, "gguf")
    server = LlamaCpp(path)
    for messages in talks():
        if messages[-1]["role"] == "assistant":  # which its server goes on with, as it stands
            continue
        turns = turns_of([(message["role"], message["content"]) for message in messages])
        said = [f"<|{turn.role}|>{harmless(turn.text, opened.tokenizer)}<|end|>" for turn in turns]
        assert server.apply_template(messages) == "".join(said) + "<|assistant|>", messages
    modelfile = path.with_suffix(".Modelfile").read_text(encoding="utf-8")
    assert f'TEMPLATE """{OLLAMA_TEMPLATE}"""' in modelfile
    assert 'PARAMETER stop "<|end|>"' in modelfile


def test_a_model_without_conversations_has_no_template(tmp_path: Path):
    opened = random_run(tmp_path, "bpe-gpt2", **MODERN)
    folder, _, _ = export_run(opened, "hf")
    assert "chat_template" not in read_json(folder / "tokenizer_config.json")
    path, _, _ = export_run(opened, "gguf")
    assert "TEMPLATE" not in path.with_suffix(".Modelfile").read_text(encoding="utf-8")
    assert b"chat_template" not in path.read_bytes()


# ---- files of another program are begun with directly ----------------------------------------


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_a_training_begins_with_files_of_another_program(to: str, tmp_path: Path, book: Path):
    import folio

    opened = random_run(tmp_path, "bpe-gpt2", **MODERN)
    path, _, _ = export_run(opened, to)
    settings: Any = {
        "corpus": {"sources": [str(book)]},
        "training": {"max_steps": 2, "batch_size": 2, "keep_checkpoints": 9},
        "device": {"kind": "cpu", "precision": "float32", "threads": 1},
    }
    result = folio.train(name="tuned", start={"run": str(path)}, **settings)
    first = result.run.checkpoint("0")[0].model_tensors()
    for name, tensor in opened.checkpoint.model_tensors().items():
        assert (first[name] == tensor).all(), name
    told: list[str] = []
    one, two = (with_run({"start": {"run": str(path)}}, told.append) for _ in range(2))
    assert one == two and Path(one["start"]["run"]).is_dir()
    assert json.loads((result.run.path / "start.json").read_text())["run"] == one["start"]["run"]
