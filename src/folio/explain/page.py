"""A look as one HTML file that needs no server and no other file."""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from folio.explain.look import Look, look_at, map_embeddings, position_tables
from folio.run.opening import OpenRun
from folio.storage import atomic_write

ATTENTION_POSITIONS = 64
"""Positions of the text whose attention is on the page: its size grows with their square."""
PICTURE_SIDE = 384
"""Most places and dimensions of a picture of positions."""


def write_page(opened: OpenRun, text: str, path: Path) -> Look:
    """Look at a text and write the page.

    Raises:
        UserError: as `look_at`, or the file cannot be written.
    """
    look = look_at(opened, text)
    data = json.dumps(page_data(opened, look), ensure_ascii=False, separators=(",", ":"))
    template = files("folio.explain").joinpath("page.html").read_text(encoding="utf-8")
    with atomic_write(path) as file:
        # "</script>" inside a text must not end the data.
        file.write(template.replace("__DATA__", data.replace("</", "<\\/")))
    return look


def page_data(opened: OpenRun, look: Look) -> dict[str, Any]:
    """Everything on the page. Losses in nats, probabilities as shares."""
    decode = opened.tokenizer.decode
    surprisal = look.surprisal
    mean = sum(s for s in surprisal if s is not None) / (len(surprisal) - 1)
    mapped = map_embeddings(opened, look.token_ids)
    n = min(ATTENTION_POSITIONS, len(look.token_ids))
    return {
        "about": (
            f"{opened.run.name}, {opened.checkpoint.path.name}: {len(look.token_ids)} tokens, "
            f"{mean:.3f} nats per token on the mean."
        ),
        "token_ids": look.token_ids,
        "pieces": look.pieces,
        "surprisal": [None if s is None else _short(s) for s in surprisal],
        "alternatives": [
            [[decode([token_id]), _short(p), token_id] for token_id, p in look.alternatives(i)]
            for i in range(len(look.token_ids) - 1)
        ],
        "attention": [
            {
                "scores": _matrices(layer.scores[:, :n, :n]),
                "weights": _matrices(layer.weights[:, :n, :n]),
            }
            for layer in look.attention
        ],
        "map": {
            "token_ids": mapped.token_ids,
            "pieces": [decode([token_id]) for token_id in mapped.token_ids],
            "points": [[_short(x), _short(y)] for x, y in mapped.points.tolist()],
            "explained": _short(mapped.explained),
            "neighbours": [
                [[decode([token_id]), _short(cosine), token_id] for token_id, cosine in row]
                for row in mapped.neighbours
            ],
        },
        "positions": [
            _picture(name, table) for name, table in position_tables(opened.model).items()
        ],
    }


def _short(value: float) -> float:
    """Four digits: half the bytes, and more than can be seen."""
    return float(f"{value:.4g}")


def _matrices(values: Tensor) -> list[list[list[float]]]:
    return [[[_short(v) for v in row] for row in matrix] for matrix in values.tolist()]


def _picture(name: str, table: Tensor) -> dict[str, Any]:
    """A table as one byte a value: 128 is 0, 1 and 255 are the largest there is."""
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
