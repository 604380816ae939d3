"""`--to hf`: a folder that transformers loads, and everything that reads its files.

Models that no class of transformers says get our own beside them, `modeling_folio.py`; so do those
that are read beside n-grams, of which no class of transformers knows.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from folio.export import forms
from folio.export.card import TAGS, model_card
from folio.export.forms import Tensors
from folio.export.graphs import find_graph
from folio.export.hf_graphs import GRAPHS, graph_settings
from folio.export.hf_ngrams import ngrams_settings, ngrams_tensors
from folio.export.hf_reading import read_folder
from folio.export.names import to_theirs
from folio.export.ngrams import go_along, ngrams_of
from folio.export.target import Exported, Target, has_words, weights_of
from folio.model.config import ModelConfig
from folio.run.model import Model
from folio.storage import atomic_write, write_json
from folio.tokenizers.base import Tokenizer
from folio.tokenizers.chat import END, jinja_template

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def write_hf(opened: Model, kind: str, out: Path) -> Exported:
    """Write a folder that `transformers` loads by its path.

    Args:
        opened: the run.
        kind: f32, f16 or bf16.
        out: the folder.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    tokenizer = opened.tokenizer
    config, tensors = forms.without_padding(*weights_of(opened), tokenizer.vocab_size)
    counted = ngrams_of(opened)
    graph = None if counted else find_graph(GRAPHS, config)
    notes = [go_along(counted.ngrams)] if counted else []
    if graph is None:
        name, settings, named = "folio", own_settings(config), tensors
        notes.append(
            "no class of transformers computes this model: modeling_folio.py lies beside it "
            "(load it with trust_remote_code=True); it has no cache, so it writes slowly"
        )
        with atomic_write(out / "modeling_folio.py") as file:
            file.write(modeling_source())
    else:
        config, tensors = graph.form(config, tensors)
        name, settings = graph.name, graph_settings(graph, config)
        named = to_theirs(graph.rows, config, tensors)
    settings |= {"model_type": name, "use_cache": graph is not None, **special_ids(tokenizer)}
    settings |= {"dtype": NAMES[kind], "torch_dtype": NAMES[kind]}
    tensors = {k: v.to(TYPES[kind]) for k, v in named.items()}
    if counted is not None:
        settings["ngrams"] = ngrams_settings(counted)
        tensors |= ngrams_tensors(counted.ngrams)  # whole numbers, in any type of weights
    write_json(out / "config.json", settings)
    write_safetensors(out / "model.safetensors", tensors)
    write_json(out / "tokenizer.json", standard_tokenizer(tokenizer))
    write_json(out / "tokenizer_config.json", tokenizer_config(tokenizer, config))
    write_json(out / "generation_config.json", generation_config(tokenizer))
    with atomic_write(out / "README.md") as file:
        file.write(model_card(opened, name, notes))
    return Exported(name, notes)


def own_settings(config: ModelConfig) -> dict[str, Any]:
    """Make the config.json of a model that only our own class computes."""
    return {
        "architectures": ["FolioForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_folio.FolioConfig",
            "AutoModelForCausalLM": "modeling_folio.FolioForCausalLM",
        },
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "max_position_embeddings": config.context_length,
        "tie_word_embeddings": config.tied_head,
        "folio": asdict(config),
    }


def modeling_source() -> str:
    """Read the file that computes any of our models in transformers."""
    return files("folio.export").joinpath("modeling_folio.py").read_text(encoding="utf-8")


def special_ids(tokenizer: Tokenizer) -> dict[str, int | None]:
    """Name the ids that begin and end a text."""
    end, begin = tokenizer.end_of_document, tokenizer.begin
    return {"bos_token_id": end if begin is None else begin, "eos_token_id": end}


def standard_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Make the tokenizer.json; where Folio begins each text with a special token, so does it."""
    table = tokenizer.to_json()
    if tokenizer.begin is None:
        return table
    name = tokenizer.begin_name
    special = {"SpecialToken": {"id": name, "type_id": 0}}
    first, second = ({"Sequence": {"id": part, "type_id": 0}} for part in "AB")
    return table | {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special, first],
            "pair": [special, first, second],
            "special_tokens": {name: {"id": name, "ids": [tokenizer.begin], "tokens": [name]}},
        }
    }


def tokenizer_config(tokenizer: Tokenizer, config: ModelConfig) -> dict[str, Any]:
    """The content of tokenizer_config.json."""
    names = {token_id: name for name, token_id in tokenizer.special_tokens.items()}
    end = names.get(tokenizer.end_of_document)  # type: ignore[arg-type]
    begin = names.get(tokenizer.begin, end)  # type: ignore[arg-type]
    unknown = names.get(tokenizer.unknown)  # type: ignore[arg-type]
    tokens = {"bos_token": begin, "eos_token": end, "pad_token": end, "unk_token": unknown}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context_length,
        "clean_up_tokenization_spaces": False,
        **({"chat_template": jinja_template(tokenizer)} if tokenizer.has_chat else {}),
        **{key: name for key, name in tokens.items() if name is not None},
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Make the generation_config.json: it draws as `folio sample` does, and never the unknown
    token; an answer ends with its turn.
    """
    never = {} if tokenizer.unknown is None else {"suppress_tokens": [tokenizer.unknown]}
    ids: dict[str, Any] = special_ids(tokenizer)
    ends = [*tokenizer.ends, *([tokenizer.special_id(END)] if tokenizer.has_chat else [])]
    if len(ends) > 1 or tokenizer.has_chat:
        ids["eos_token_id"] = ends
    return {**ids, "do_sample": True, "temperature": 0.8, "top_k": 0, **never}


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """Write weights; the same weights give the same bytes."""
    from safetensors.torch import save

    with atomic_write(path, "wb") as file:
        file.write(save({k: v.contiguous() for k, v in tensors.items()}, {"format": "pt"}))


HF = Target(
    summary="a folder for transformers",
    types=tuple(TYPES),
    write=write_hf,
    read=read_folder,
    default_name=lambda run, kind: "hf",
    is_ours=lambda path: has_words(path / "README.md", TAGS),
)
