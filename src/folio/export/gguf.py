"""`--to gguf`: one file for llama.cpp and what is built on it, and a Modelfile for Ollama.

Sources: llama.cpp's src/llama-arch.cpp, src/llama-model.cpp and src/llama-vocab.cpp.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from folio.errors import UserError
from folio.export import forms
from folio.export.gguf_file import BF16, F16, F32, Q8_0, write_gguf
from folio.export.gguf_graphs import ERF, GRAPHS, NEOX_GRAPH
from folio.export.gguf_reading import read_gguf_model
from folio.export.gguf_vocabulary import vocabulary_settings
from folio.export.graphs import find_graph, what_would_leave
from folio.export.names import to_theirs
from folio.export.ngrams import ngrams_of
from folio.export.quantize import BLOCK, pack
from folio.export.target import Exported, Target, has_words, weights_of
from folio.run.directory import Run
from folio.run.model import Model
from folio.storage import atomic_write
from folio.tokenizers.chat import END

TYPES = {"f32": (F32, 0), "f16": (F16, 1), "q8_0": (Q8_0, 7), "bf16": (BF16, 32)}
"""Name -> type of a tensor, and of a file."""
CONTEXT_MULTIPLE = 256
"""llama.cpp rounds a context up to it, and ends where learned positions are fewer."""
MODELFILE = "PARAMETER temperature 0.8\nPARAMETER num_ctx"
WRITTEN_BY = "folio.export"
"""A key of each file, near its beginning, by which it is known as one that may be replaced."""


OLLAMA_TEMPLATE = "".join(
    (
        "{{- $open := false }}{{- range .Messages }}",
        '{{- if eq .Role "assistant" }}{{ if $open }}<|end|>{{ end }}{{- $open = false }}',
        "<|assistant|>{{ .Content }}<|end|>",
        '{{- else }}{{ if $open }}{{ "\\n\\n" }}{{ else }}<|user|>{{ end }}{{- $open = true }}',
        "{{- .Content }}{{- end }}",
        "{{- end }}{{ if $open }}<|end|>{{ end }}<|assistant|>",
    )
)
"""Ollama's own templates are of Go. It has no filter that would make names of special tokens
harmless, as `jinja_template` does."""


def write_gguf_file(opened: Model, kind: str, out: Path) -> Exported:
    """Write a file that llama.cpp loads, and a Modelfile beside it.

    Args:
        opened: the run.
        kind: f32, f16, bf16 or q8_0.
        out: the file.

    Raises:
        UserError: llama.cpp has no such graph or tokenizer.
    """
    if (counted := ngrams_of(opened)) is not None:
        raise UserError(
            f"llama.cpp has no graph for a model beside n-grams, and this run is read beside "
            f"{len(counted.ngrams):,} of them. Give --alone to export the model without them, or "
            f"--to hf, which takes both along."
        )
    kind_of_tensor, kind_of_file = TYPES[kind]
    vocabulary = vocabulary_settings(opened.tokenizer)
    config, tensors = forms.without_padding(*weights_of(opened), opened.tokenizer.vocab_size)
    graph = find_graph(GRAPHS, config)
    if graph is None:
        raise UserError(
            f"llama.cpp has no graph for {what_would_leave(GRAPHS, config)}. Or give --to hf, "
            f"which can describe every model."
        )
    known = config.context_length
    notes, tolerance = [], 1e-4
    if config.activation == "gelu":
        notes.append(ERF)
        tolerance = 5e-3
    config, tensors = graph.form(config, tensors)
    config, tensors = forms.with_padded_positions(config, tensors, CONTEXT_MULTIPLE)
    if config.context_length > known:
        notes.append(
            f"llama.cpp reads {config.context_length} positions; the model knows {known}, and the "
            f"others repeat the last one"
        )
    if graph is NEOX_GRAPH and config.tied_head:
        config, tensors = forms.with_own_head(config, tensors)
    named = to_theirs(graph.rows, config, tensors)
    settings: dict[str, Any] = {
        "general.architecture": graph.name,
        "general.name": opened.run.name,
        "general.file_type": kind_of_file,
        WRITTEN_BY: True,
        **{f"{graph.name}.{key}": value for key, value in graph.settings(config).items()},
        **vocabulary,
    }
    kinds = {name: _kind(name, tuple(x.shape), kind_of_tensor) for name, x in named.items()}
    write_gguf(
        out,
        settings,
        {name: (tuple(x.shape), kinds[name]) for name, x in named.items()},
        lambda name: pack(named[name], kinds[name]),
    )
    with atomic_write(_modelfile(out)) as file:
        file.write(f"FROM ./{out.name}\n{MODELFILE} {known}\n")
        if opened.tokenizer.has_chat:
            file.write(f'TEMPLATE """{OLLAMA_TEMPLATE}"""\nPARAMETER stop "{END}"\n')
    return Exported(graph.name, notes, tolerance)


def _kind(name: str, shape: tuple[int, ...], kind: int) -> int:
    """Choose the type of a tensor: vectors and positions stay f32; rows that are no multiple of
    32 stay f16.
    """
    if len(shape) == 1 or name == "position_embd.weight":
        return F32
    return F16 if kind == Q8_0 and shape[-1] % BLOCK else kind


def _name(run: Run, kind: str) -> str:
    return f"{run.name}-{kind}.gguf"


def _modelfile(path: Path) -> Path:
    """Name the Modelfile of a file; each has its own, since a folder may hold several."""
    return path.with_suffix(".Modelfile")


def _is_ours(path: Path) -> bool:
    modelfile = _modelfile(path)
    if modelfile.exists() and not has_words(modelfile, MODELFILE):
        return False
    if not path.is_file():
        return True
    with path.open("rb") as file:
        return WRITTEN_BY.encode() in file.read(4096)


GGUF = Target(
    summary="a file for llama.cpp and Ollama",
    types=tuple(TYPES),
    write=write_gguf_file,
    read=read_gguf_model,
    default_name=_name,
    is_ours=_is_ours,
)
