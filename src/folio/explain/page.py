"""Writes a forward trace as one HTML file that needs no server and no other file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from folio.evaluation.matching import Blocks, Query, find_matches, split_at_breaks
from folio.evaluation.passages import pattern_windows
from folio.explain.look import ForwardTrace, look_at, map_embeddings, position_tables
from folio.notebook import html_frame
from folio.run.model import Model
from folio.storage import atomic_write
from folio.tokenizers.base import token_text
from folio.tokens.text import BREAK, TokenText

ATTENTION_POSITIONS = 64
"""Positions whose attention is on the page, which grows with their square."""
COPIED = 20
"""Stretches of so many characters that occur in the training text are underlined."""
PICTURE_SIDE = 384
"""Most positions and dimensions in a picture of positions."""


@dataclass(frozen=True, repr=False)
class Explanation:
    """What a model makes of a text; a notebook shows the page."""

    trace: ForwardTrace
    """The values of the forward pass."""
    page: str
    """The whole page as HTML."""

    def __repr__(self) -> str:
        text = b"".join(self.trace.pieces[self.trace.n_before :]).decode(errors="replace")
        return f"Explanation({text!r})"

    def _repr_html_(self) -> str:
        return html_frame(self.page, "What the model makes of the text", height="44rem")


def explain_text(opened: Model, text: str) -> Explanation:
    """Look at a text and make the page.

    Raises:
        UserError: as `look_at`.
    """
    trace = look_at(opened, text)
    data = json.dumps(page_data(opened, trace), ensure_ascii=False, separators=(",", ":"))
    template = files("folio.explain").joinpath("page.html").read_text(encoding="utf-8")
    # "</script>" in a text must not end the data, nor "<!--<script>" hide its end.
    return Explanation(trace, template.replace("__DATA__", data.replace("<", "\\u003c")))


def write_page(opened: Model, text: str, path: Path) -> ForwardTrace:
    """Look at a text and write the page.

    Raises:
        UserError: as `look_at`, or the file cannot be written.
    """
    explained = explain_text(opened, text)
    with atomic_write(path) as file:
        file.write(explained.page)
    return explained.trace


def page_data(opened: Model, trace: ForwardTrace) -> dict[str, Any]:
    """All data of the page; losses in nats, probabilities between 0 and 1."""
    name = partial(token_text, opened.tokenizer)
    surprisal = trace.surprisal
    mean = sum(s for s in surprisal if s is not None) / (len(surprisal) - 1)
    mapped = map_embeddings(opened, trace.token_ids)
    n = min(ATTENTION_POSITIONS, len(trace.token_ids))
    return {
        "about": (
            f"{opened.run.name}, {opened.checkpoint.path.name}: "
            f"{len(trace.token_ids) - trace.n_before} tokens, "
            f"{mean:.3f} nats per token on the mean."
            + (
                f" The model reads {len(trace.token_ids)} tokens at once; the {trace.left_out} "
                f"after them are left out."
                if trace.left_out
                else ""
            )
            + (f" Attention is that of the first {n}." if n < len(trace.token_ids) else "")
        ),
        "token_ids": trace.token_ids,
        "pieces": [name(token_id) for token_id in trace.token_ids],
        "readable": readable_pieces(trace.pieces),
        "n_before": trace.n_before,
        "copied": copied_pieces(opened, trace.token_ids),
        "surprisal": [None if s is None else _short(s) for s in surprisal],
        "alternatives": [
            [[name(token_id), _short(p), token_id] for token_id, p in trace.alternatives(i)]
            for i in range(len(trace.token_ids) - 1)
        ],
        "attention": [
            {
                "scores": _matrices(layer.scores[:, :n, :n]),
                "weights": _matrices(layer.weights[:, :n, :n]),
            }
            for layer in trace.attention
        ],
        "map": {
            "token_ids": mapped.token_ids,
            "pieces": [name(token_id) for token_id in mapped.token_ids],
            "points": [[_short(x), _short(y)] for x, y in mapped.points.tolist()],
            "explained": _short(mapped.explained),
            "neighbours": [
                [[name(token_id), _short(cosine), token_id] for token_id, cosine in row]
                for row in mapped.neighbours
            ],
        },
        "positions": [
            _picture(name, table) for name, table in position_tables(opened.model).items()
        ],
    }


def readable_pieces(pieces: Iterable[bytes]) -> list[tuple[str, int]]:
    """The text in pieces that can be read, each with its number of tokens: those that are a part of
    a character are one with those that end it.

    >>> readable_pieces([b"a", b"\\xc3", b"\\xa9", b"\\xff", b"b", b"\\xc3"])
    [('a', 1), ('é', 2), ('\ufffd', 1), ('b', 1), ('\ufffd', 1)]
    """
    found, parts = list[tuple[str, int]](), list[bytes]()
    for piece in pieces:
        parts.append(piece)
        data = b"".join(parts)
        try:
            data.decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":  # the next token may complete it
                continue
        found.append((data.decode(errors="replace"), len(parts)))
        parts = []
    if parts:  # a character that the end of the context cuts
        found.append((b"".join(parts).decode(errors="replace"), len(parts)))
    return found


def copied_pieces(opened: Model, token_ids: Sequence[int]) -> list[int]:
    """For each token, the length of the stretch it belongs to that occurs in a training text, the
    run's own or one of the runs before it; 0 if that is shorter than COPIED characters or only a
    pattern, or if the training text is missing.
    """
    if not opened.has_text:
        return [0] * len(token_ids)
    text = TokenText(np.array(token_ids), opened.tokenizer)
    places = np.append(text.places_of(np.arange(len(token_ids))), len(text))
    longest = np.zeros(len(text), np.int64)
    symbols = text.between(0, len(text))
    queries = [Query(part, 0) for part in split_at_breaks(symbols)]
    starts = np.flatnonzero((symbols != BREAK) & (np.append(BREAK, symbols[:-1]) == BREAK))
    for tokens in opened.learned():
        training = TokenText(tokens, opened.tokenizer)
        blocks = Blocks(np.array([len(training)]), np.zeros(1, np.int32))
        for position, match in zip(starts, find_matches(queries, training.chunks(), blocks)):
            begins = np.append(match.starts, len(match.query.symbols))
            flags = pattern_windows(match.codes, COPIED)
            for i in np.flatnonzero(match.lengths >= COPIED).tolist():
                n = int(match.lengths[i])
                if not flags[i + 1 - n : i + 2 - COPIED].all():
                    inside = slice(position + begins[i + 1 - n], position + begins[i + 1])
                    longest[inside] = np.maximum(longest[inside], n)
    return [int(longest[a:b].max(initial=0)) for a, b in pairwise(places.tolist())]


def _short(value: float) -> float:
    """Round to four digits: half the bytes, and more than can be seen."""
    return float(f"{value:.4g}")


def _matrices(values: Tensor) -> list[list[list[float]]]:
    return [[[_short(v) for v in row] for row in matrix] for matrix in values.tolist()]


def _picture(name: str, table: Tensor) -> dict[str, Any]:
    """A table as one byte per value: 128 is 0, 1 and 255 are the largest magnitude."""
    table = table[:PICTURE_SIDE, :PICTURE_SIDE]
    scale = max(table.abs().max().item(), 1e-9)
    levels = (table / scale * 127 + 128).round().to(torch.uint8).contiguous()
    return {
        "name": name,
        "rows": table.shape[0],
        "columns": table.shape[1],
        "scale": scale,
        "bytes": base64.b64encode(levels.numpy().tobytes()).decode("ascii"),
    }
