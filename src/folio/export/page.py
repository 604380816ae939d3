"""`--to html` and `folio write`: one file to write on with the model, in any browser, offline.

The page is that of `write/`; here the model is put into it. `page_engine.js` asks, and in a worker
`page_worker.js` answers: `page_text.js` makes tokens of a text, `page_reader.js` has
`page_model.js` read what is new of them, with the matrices of `page_weights.js`, int8 with one
scale a row, beside n-grams if there are some (`page_ngrams.js`), and `page_sampling.js` draws.
These scripts are the same in every page, so tests run them; an export compares what is its own, the
weights, the tokenizer and the n-grams.

Shapes:  R rows · K columns, padded with zeros to a multiple of eight
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folio.config import from_table
from folio.corpus.own import has_page
from folio.errors import UserError
from folio.export import forms
from folio.export.card import facts
from folio.export.foreign import Foreign
from folio.export.forms import Tensors
from folio.export.ngrams import go_along, ngrams_of
from folio.export.page_copies import RUN, WINDOW, windows_filter
from folio.export.page_kernel import kernel_bytes
from folio.export.page_ngrams import pack_ngrams, unpack_ngrams
from folio.export.target import Exported, Target, weights_of
from folio.model.config import ModelConfig
from folio.run.model import Model
from folio.run.old_texts import old_texts
from folio.storage import atomic_write
from folio.tokenizers import from_table as tokenizer_from_table
from folio.tokenizers.base import Tokenizer
from folio.tokenizers.bpe.patterns import PATTERNS, with_our_classes
from folio.tokenizers.bpe.tokenizer import BPETokenizer
from folio.tokenizers.word import EXPRESSIONS, WordTokenizer
from folio.write.page import writing_page

MOST_PARAMETERS = 25_000_000
"""Largest model in a page, which is then about 35 MB; browsers still open that at once."""
WORKER = tuple(
    f"page_{part}.js"
    for part in ("weights", "model", "ngrams", "reader", "sampling", "text", "worker")
)
"""Scripts of the page's worker; the last one receives what the page asks."""
COLUMNS = 8
"""Columns that the kernel reads at a time."""


def write_page_file(opened: Model, kind: str, out: Path) -> Exported:
    """Write a page that needs no other file and no network.

    Args:
        opened: the run.
        kind: int8.
        out: the file.

    Raises:
        UserError: the model is too large for a page.
    """
    config, tensors = forms.without_padding(*weights_of(opened), opened.tokenizer.vocab_size)
    if config.n_parameters > MOST_PARAMETERS:
        raise UserError(
            f"The model has {config.n_parameters:,} parameters; a page carries "
            f"{MOST_PARAMETERS:,} at most. Write with it by folio serve {opened.run.word}, or take "
            f"it along with folio export --to gguf or --to hf."
        )
    table, weights = pack_tensors(tensors)
    counted = ngrams_of(opened)
    counts, tree = pack_ngrams(counted, opened.run.word) if counted else (None, b"")
    seen = windows_filter(opened) if opened.has_text and opened.tokenizer.lossless else None
    data = {
        "config": asdict(config),
        "derived": {"head_width": config.head_width, "key_value_heads": config.key_value_heads},
        "tensors": table,
        "ngrams": counts,
        "tokenizer": tokenizer_data(opened.tokenizer),
        "begin": opened.tokenizer.begin,
        "start": opened.start_token,
        "ends": opened.tokenizer.ends,
        "never": [] if opened.tokenizer.unknown is None else [opened.tokenizer.unknown],
        "kernel": _text(kernel_bytes()),
        "copies": None
        if seen is None
        else {"window": WINDOW, "run": RUN, "source": source_of_copies(opened)},
    }
    page = writing_page(
        opened.run.name,
        f"A language model of {config.n_parameters:,} parameters, made with Folio. It runs in this "
        f"page: nothing that you write leaves your device.",
        list(_facts(opened, seen)),
        data,
        engine=_beside("page_engine.js"),
        inert={
            "weights": _text(weights),
            "ngrams": _text(tree),
            "seen": "" if seen is None else _text(seen.tobytes()),
            "worker": "\n" + "".join(map(_beside, WORKER)),
        },
        allowed={"script-src": "'wasm-unsafe-eval'", "worker-src": "blob:"},
    )
    with atomic_write(out) as file:
        file.write(page)
    notes = ["weights are int8, a scale for each row; the page holds the whole model, open it"]
    if counted is not None:
        notes.append(go_along(counted.ngrams))
        notes.append(f"they are {len(_text(tree)) / 1e6:.1f} MB of the page")
    if seen is None:
        notes.append("the page does not say how much of a text is copied from the training text")
    return Exported("a page", notes)


def read_page_file(path: Path) -> Foreign:
    """Read the model that a page holds, its weights and n-grams as the page computes with them."""
    page = path.read_text(encoding="utf-8")

    def part(name: str) -> str:
        found = re.search(f'<script id="{name}" type="[^"]*">([^<]*)</script>', page)
        if found is None:
            raise UserError(f"{path} is not a page of Folio: it has no {name}.")
        return found[1]

    data = json.loads(part("data"))
    tokenizer = tokenizer_from_table(data["tokenizer"]["table"], str(path))
    tensors = unpack_tensors(data["tensors"], b64decode(part("weights")))
    tree, config = b64decode(part("ngrams")), from_table(ModelConfig, data["config"])
    counted = unpack_ngrams(data["ngrams"], tree) if data["ngrams"] else None
    return Foreign(str(path), config, tensors, tokenizer, counted)


def pack_tensors(tensors: Tensors) -> tuple[list[dict[str, Any]], bytes]:
    """Lay weights out as bytes, and say where each lies: name, shape, `at`, and `scales` of a
    matrix.
    """
    table, packed = [], bytearray()

    def add(values: NDArray[Any]) -> int:
        at = len(packed)
        packed.extend(values.tobytes())
        packed.extend(bytes(-len(packed) % COLUMNS))
        return at

    for name, x in tensors.items():
        entry: dict[str, Any] = {"name": name, "shape": list(x.shape)}
        if x.dim() == 1:
            entry["at"] = add(x.numpy())
        else:
            rows, scales = _to_int8(x)
            entry["at"], entry["scales"] = add(rows), add(scales)
        table.append(entry)
    return table, bytes(packed)


def unpack_tensors(table: list[dict[str, Any]], packed: bytes) -> Tensors:
    """Make float32 weights again; those of matrices as near as int8 says them."""

    def take(dtype: Any, at: int, *shape: int) -> NDArray[Any]:
        return np.frombuffer(packed, dtype, int(np.prod(shape)), at).reshape(shape)

    tensors = {}
    for entry in table:
        if len(entry["shape"]) == 1:
            x = take(np.float32, entry["at"], *entry["shape"]).copy()
        else:
            n_rows, n_columns = entry["shape"]
            rows = take(np.int8, entry["at"], n_rows, _padded(n_columns))[:, :n_columns]
            x = rows.astype(np.float32) * take(np.float32, entry["scales"], n_rows, 1)
        tensors[entry["name"]] = torch.from_numpy(x)
    return tensors


def tokenizer_data(tokenizer: Tokenizer) -> dict[str, Any]:
    """Give the tokenizer.json, and its pattern as JavaScript has it."""
    if isinstance(tokenizer, BPETokenizer):
        split = _in_javascript(PATTERNS[tokenizer.pattern])
    elif isinstance(tokenizer, WordTokenizer):
        split = _in_javascript(EXPRESSIONS[tokenizer.punctuation])
    else:
        split = ""
    return {"kind": tokenizer.kind, "table": tokenizer.to_json(), "split": split}


def _in_javascript(expression: str) -> str:
    """Spell classes of characters as Folio's own, since engines differ in Unicode and in white
    space; the long s equals an s in any case.
    """
    spelled = re.sub(
        r"\(\?i:([^)]*)\)",
        lambda group: (
            "(?:" + re.sub("[a-z]", lambda c: f"[{c[0]}{c[0].upper()}]", group[1]) + ")"
        ).replace("[sS]", "[sS\u017f]"),
        expression,
    )
    return re.sub(
        r"\\U([0-9a-f]{8})",
        lambda code: f"\\u{{{int(code[1], 16):x}}}",
        with_our_classes(spelled).pattern,
    )


def _to_int8(x: Tensor) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round to (R, K) bytes and (R,) scales."""
    values = x.numpy()
    scales = np.abs(values).max(axis=1) / np.float32(127)
    inverses = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    rows = np.zeros((len(values), _padded(values.shape[1])), np.int8)
    rows[:, : values.shape[1]] = np.rint(values * inverses[:, None])
    return rows, scales


def source_of_copies(opened: Model) -> str:
    """Say where copied text stands, as far as is known: windows are, and not their places."""
    if old_texts(opened.run).files:
        return "in what it learned from"
    sources = [Path(source["source"]).name for source in opened.run.corpus()["sources"]]
    return sources[0] if len(sources) == 1 else f"in one of {len(sources):,} documents"


def _facts(opened: Model, seen: NDArray[np.uint8] | None) -> Iterator[tuple[str, str]]:
    yield from facts(opened)
    yield "weights", "int8, one scale a row"
    if (counted := ngrams_of(opened)) is not None:
        yield "n-grams", go_along(counted.ngrams)
    if seen is not None:
        share = float(np.unpackbits(seen).mean())
        wrong = max(share ** (RUN - WINDOW + 1), 1e-12)
        missing = old_texts(opened.run).missing
        yield (
            "copied text",
            f"found by a filter of its windows of {WINDOW} characters: it never overlooks a "
            f"run of {RUN} or more, and takes a place for copied that is not about once in "
            f"{_two_digits(1 / wrong)} places"
            f"{f'; it does not know {missing}' if missing else ''}",
        )


def _two_digits(number: float) -> str:
    """Write a number as people say it.

    >>> _two_digits(87_654.3)
    '88,000'
    """
    return f"{int(float(f'{number:.1e}')):,}"


def _padded(n_columns: int) -> int:
    return -(-n_columns // COLUMNS) * COLUMNS


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _beside(name: str) -> str:
    return files("folio.export").joinpath(name).read_text(encoding="utf-8")


HTML = Target(
    summary="a page that writes with the model, offline",
    types=("int8",),
    write=write_page_file,
    read=read_page_file,
    default_name=lambda run, kind: f"{run.name}.html",
    is_ours=has_page,
)
