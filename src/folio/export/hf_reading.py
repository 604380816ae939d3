"""Read a folder of transformers: its own files only, and nothing in them is run.

Whatever a file says that our graph does not compute is refused by its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from folio.config import from_table
from folio.errors import UserError
from folio.export.foreign import Foreign, read_config, require_file, require_numbers
from folio.export.graphs import Graph
from folio.export.hf_graphs import (
    ALLOWED,
    DEFAULTS,
    GPT2_GRAPH,
    LLAMA_GRAPH,
    NEOX_GRAPH,
    QWEN3_GRAPH,
    READ_AS,
)
from folio.export.hf_ngrams import PREFIX, read_ngrams_of
from folio.export.names import require_shapes, to_ours
from folio.model.config import ModelConfig
from folio.storage import read_json
from folio.tokenizers import from_table as tokenizer_from_table
from folio.tokenizers.base import BEGIN, CHAT_KEY, END_OF_DOCUMENT, OTHER_END, Tokenizer
from folio.tokenizers.chat import END, jinja_template

GRAPH_OF = {
    "qwen3": QWEN3_GRAPH,
    "llama": LLAMA_GRAPH,
    "qwen2": LLAMA_GRAPH,
    "gpt2": GPT2_GRAPH,
    "gpt_neox": NEOX_GRAPH,
}
"""model_type -> graph; Qwen 2 is Llama with biases on queries, keys and values."""
MOST_JSON = 1 << 28
"""Largest JSON file that is read, in bytes."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Supported dtypes of weights; float8 needs scales, which are stored under many different names."""
BUFFERS = re.compile(r"(\.attn\.(masked_)?bias|rotary_emb\.inv_freq|\.attention\.(masked_)?bias)$")
"""Buffers that older versions saved beside the weights."""


def read_folder(folder: Path) -> Foreign:
    """Read config, weights and tokenizer.

    Raises:
        UserError: something is missing, damaged, or not what Folio computes.
    """
    source = str(folder)
    settings = _table(folder / "config.json")
    kind = settings.get("model_type")
    tensors = read_weights(folder)
    n_numbers = sum(tensor.numel() for tensor in tensors.values())
    if kind == "folio" and isinstance(settings.get("folio"), dict):
        return _read_own(folder, settings, tensors)
    if not isinstance(kind, str) or kind not in GRAPH_OF:
        raise UserError(
            f"{source} is a model of type {kind!r}. Folio computes {', '.join(GRAPH_OF)} and its "
            f"own; code that lies beside a model is never run."
        )
    graph = GRAPH_OF[kind]
    _refuse_others(settings, kind, source)
    config = _config(graph, settings, tensors, n_numbers, source)
    named = _renamed(graph, config, tensors, source)
    return Foreign(
        source,
        config,
        to_ours(graph.rows, config, named, source),
        read_tokenizer(folder, settings),
    )


def _read_own(folder: Path, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Foreign:
    """Read what `modeling_folio.py` computes, with the n-grams that may lie beside the weights."""
    source, counted = str(folder), None
    config = from_table(ModelConfig, settings["folio"], "folio.")
    weights = {name: x for name, x in tensors.items() if not name.startswith(PREFIX)}
    require_numbers(config, sum(x.numel() for x in weights.values()), source)
    require_shapes(config, weights, source)
    said = settings.get("ngrams") or {}
    if said or len(weights) < len(tensors):
        counted = read_ngrams_of(said, tensors, config.vocab_size, source)
    return Foreign(source, config, weights, read_tokenizer(folder, settings), counted)


def _config(
    graph: Graph, settings: dict[str, Any], tensors: Mapping[str, Tensor], n: int, source: str
) -> ModelConfig:
    defaults = DEFAULTS | {"tie_word_embeddings": graph is GPT2_GRAPH}
    table = {key: value for key, value in settings.items() if value is not None}
    table = {key: table.get(key, defaults.get(key)) for key in graph.keys}
    table = {key: value for key, value in table.items() if value is not None}
    table |= dict.fromkeys((k for k in graph.keys if k.endswith(("_pdrop", "_dropout"))), 0.0)
    others: dict[str, Any] = {}
    if graph in (GPT2_GRAPH, NEOX_GRAPH):
        key = "activation_function" if graph is GPT2_GRAPH else "hidden_act"
        name = settings.get(key, "gelu_new" if graph is GPT2_GRAPH else "gelu")
        if not isinstance(name, str) or name not in READ_AS:
            raise UserError(f"{source} has {key} = {name!r}; Folio has {', '.join(READ_AS)}.")
        others |= {"activation": READ_AS[name], "bias": True}
    else:
        if settings.get("hidden_act", "silu") not in ("silu", "swish"):
            raise UserError(
                f"{source} has hidden_act = {settings['hidden_act']!r} with a gate; Folio has silu."
            )
        others["bias"] = any(name.endswith(".bias") for name in tensors)
    if "rope" in graph.needs["positions"]:
        others["rope_base"] = _rope_base(settings, 0.25 if graph is NEOX_GRAPH else 1.0, source)
    return read_config(graph, table, others, n, source)


def _rope_base(settings: Mapping[str, Any], usual_part: float, source: str) -> float:
    """The base of the rotary frequencies; refuse what rotates a part of each head, as GPT-NeoX does
    where its settings do not say how much.
    """

    def said(*keys: str, default: float) -> float:
        values = (settings.get(key) for key in keys)
        return next((value for value in values if value is not None), default)

    base = said("rope_theta", "rotary_emb_base", default=10_000.0)
    partial = said("rotary_pct", "partial_rotary_factor", default=usual_part)
    for key in ("rope_parameters", "rope_scaling"):
        rope = settings.get(key)
        if not isinstance(rope, dict):
            continue
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise UserError(
                f"{source} stretches its rotary positions ({key}: {kind!r}), which Folio does not."
            )
        base = rope.get("rope_theta", base)
        partial = rope.get("partial_rotary_factor", partial)
    if partial != 1:
        raise UserError(
            f"{source} rotates a part of each head only (rotary_pct = {partial!r}); Folio rotates "
            f"the whole head."
        )
    return base


def _refuse_others(settings: Mapping[str, Any], kind: str, source: str) -> None:
    """Refuse settings of values that compute something else."""
    for key, allowed in ALLOWED.items():
        value = settings.get(key, allowed[0])
        if value not in allowed:
            raise UserError(
                f"{source} has {key} = {value!r}, which Folio does not compute; it must be "
                f"{allowed[0]}."
            )
    if kind == "gpt_neox" and settings.get("use_parallel_residual", True):
        raise UserError(
            f"{source} has use_parallel_residual, as Pythia: attention and feed-forward side by "
            f"side, which Folio does not compute."
        )


def _renamed(
    graph: Graph, config: ModelConfig, tensors: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Name tensors as today's transformers saves them, without what is no weight."""
    named = {name: tensor for name, tensor in tensors.items() if not BUFFERS.search(name)}
    prefix = {"gpt2": "transformer.", "gpt_neox": "gpt_neox."}.get(graph.name, "model.")
    heads = ("lm_head.", "embed_out.")
    if not any(name.startswith(prefix) for name in named):  # saved without its head
        named = {n if n.startswith(heads) else prefix + n: x for n, x in named.items()}
    if graph is NEOX_GRAPH:
        named = {name.replace("lm_head.", "embed_out."): x for name, x in named.items()}
    if not config.tied_head:
        return named
    (embedding,) = (row.theirs for row in graph.rows if row.ours == "token_embedding")
    for name in [name for name in named if name.startswith(heads)]:
        head = named.pop(name)
        matrix = named.setdefault(f"{embedding}.weight", head)  # one of two equal names was saved
        if not torch.equal(head, matrix):
            raise UserError(
                f"{source} says tie_word_embeddings, but its {name} is another matrix than its "
                f"embedding. Set tie_word_embeddings to false, if the head is meant."
            )
    return named


# ---- weights -----------------------------------------------------------------------------


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder, mapped into memory where they can be.

    Raises:
        UserError: none, pickles only, or damaged.
    """
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    is_one = (folder / names[0]).exists()  # as in transformers, whatever an old index says
    if index.exists() and not is_one:
        shards = _table(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(v, str) for v in shards.values()):
            raise UserError(f"{index} is damaged: it has no weight_map.")
        names = sorted(set(shards.values()))
        if strange := [name for name in names if Path(name).name != name]:
            raise UserError(f"{index} names a file outside of its folder: {strange[0]!r}.")
    elif not is_one:
        if pickles := sorted(path.name for glob in PICKLES for path in folder.glob(glob)):
            raise UserError(
                f"{folder} has its weights as a pickle ({pickles[0]}), which can run any code when "
                f"it is read. Save them as safetensors."
            )
        raise UserError(f"There is no {folder / names[0]}.")
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors |= _read_file(folder / name)
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    require_file(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a complete safetensors file: {error}.") from None
    for name, tensor in tensors.items():
        is_weight = not BUFFERS.search(name) and not name.startswith(PREFIX)
        if is_weight and tensor.dtype not in FLOATS:
            raise UserError(
                f"{path} has {name} as {tensor.dtype}; Folio reads f32, f16 and bf16. Take the "
                f"model as it was before it was quantized."
            )
    return tensors


# ---- tokenizer ---------------------------------------------------------------------------


def read_tokenizer(folder: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """Read tokenizer.json, with the roles of its special tokens from the files beside it."""
    path = folder / "tokenizer.json"
    if path.exists():
        table = _table(path)
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        table = _published_in_two(folder)
    else:
        hint = ": its tokenizer.model is of SentencePiece, which Folio does not run"
        there = (folder / "tokenizer.model").exists()
        raise UserError(f"There is no {path}{hint if there else ''}.")
    try:
        model = table.get("model")
        roles = _roles(folder, settings, table)
        if roles and isinstance(model, dict):
            table = table | {"model": model | {"roles": model.get("roles", {}) | roles}}
        table = _without_other_template(folder, table, str(path))
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}).") from None
    return tokenizer_from_table(table, str(path))


def _without_other_template(folder: Path, table: dict[str, Any], source: str) -> dict[str, Any]:
    """Take tokenizer.json without our template for conversations, where the files beside it have
    another: then the model learned that one.
    """
    model = table.get("model")
    if not isinstance(model, dict) or CHAT_KEY not in model:
        return table
    said = None
    if (folder / "chat_template.jinja").exists():
        said = (folder / "chat_template.jinja").read_text(encoding="utf-8", errors="replace")
    elif (folder / "tokenizer_config.json").exists():
        said = _table(folder / "tokenizer_config.json").get("chat_template")
    if said == jinja_template(tokenizer_from_table(table, source)):
        return table
    return table | {"model": {key: x for key, x in model.items() if key != CHAT_KEY}}


def _published_in_two(folder: Path) -> dict[str, Any]:
    """Read GPT-2's vocab.json and merges.txt as a tokenizer.json."""
    from folio.tokenizers.bpe.standard_json import splitter

    settings = folder / "tokenizer_config.json"
    kind = _table(settings).get("tokenizer_class") if settings.exists() else None
    if kind not in (None, "GPT2Tokenizer", "GPT2TokenizerFast"):
        raise UserError(
            f"{folder} has its tokenizer as vocab.json and merges.txt, which do not say how a "
            f"{kind} splits a text. Load it with transformers' AutoTokenizer and save it again: "
            f"then there is a tokenizer.json, which does."
        )
    vocabulary = _table(folder / "vocab.json")
    _require_settings(folder / "merges.txt")
    lines = (folder / "merges.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    more = folder / "added_tokens.json"
    added = {n: i for n, i in vocabulary.items() if n == END_OF_DOCUMENT}
    added |= _table(more) if more.exists() else {}
    special = [{"content": name, "id": i} for name, i in added.items()]
    merges = [line for line in lines if line and not line.startswith("#version")]
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
    return {"added_tokens": special, "pre_tokenizer": splitter("gpt2"), "model": model}


def _roles(folder: Path, settings: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, str]:
    """Find which special tokens begin and end a text, where they have other names than ours."""
    added = table.get("added_tokens") or []
    name_of = {t["id"]: t["content"] for t in added if t.get("special", True)}
    tables = [settings]
    for name in ("generation_config.json", "tokenizer_config.json"):
        tables += [_table(folder / name)] if (folder / name).exists() else []
    ends: list[str] = []
    for of in reversed(tables):
        if "eos_token" in of:
            token = of["eos_token"]
            ends.append(token["content"] if isinstance(token, dict) else token)
        ids = of.get("eos_token_id")
        ends += [name_of.get(i, "") for i in (ids if isinstance(ids, list) else [ids])]
    if isinstance(table.get("model"), dict) and CHAT_KEY in table["model"]:
        ends = [name for name in ends if name != END]  # of a turn
    ends = list(dict.fromkeys(name for name in ends if name in name_of.values()))
    roles = {"end": ends[0] if ends else END_OF_DOCUMENT}
    roles |= {f"{OTHER_END}{number}": name for number, name in enumerate(ends[1:], 2)}
    begin = _begin(table.get("post_processor"))
    if begin or BEGIN in name_of.values():
        roles["begin"] = begin or ""  # a name alone puts nothing before a text
    defaults = {"end": END_OF_DOCUMENT, "begin": BEGIN}
    return {role: name for role, name in roles.items() if name != defaults.get(role)}


def _begin(processor: Any) -> str | None:
    """Find the special token that a post-processor puts before a text.

    Raises:
        UserError: it puts more around a text than that.
    """
    if not isinstance(processor, dict):
        return None
    kind = processor.get("type")
    if kind == "Sequence":
        return next(filter(None, map(_begin, processor["processors"])), None)
    if kind in ("BertProcessing", "RobertaProcessing"):
        raise UserError(
            f"Its tokenizer.json puts tokens before and behind each text ({kind}), which Folio "
            f"does not do."
        )
    first = (processor.get("single") or [None])[0]
    special = first.get("SpecialToken") if isinstance(first, dict) else None
    return special["id"] if special else None


def _table(path: Path) -> dict[str, Any]:
    _require_settings(path)
    table = read_json(path)
    if not isinstance(table, dict):
        raise UserError(f"{path} is damaged: it is not a table.")
    return table


def _require_settings(path: Path) -> None:
    require_file(path)
    if path.stat().st_size > MOST_JSON:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, too many for settings.")
