"""Prints the small matrices of a look in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from folio.console import table
from folio.explain.look import Look
from folio.tokenizers.comparison import visible

SHOWN = 10
"""Positions that are shown; more do not fit a terminal."""


def print_tensors(look: Look) -> str:
    """Token ids, training examples, and attention of the first positions before the mask, after it,
    and after the softmax.
    """
    n = min(SHOWN, len(look.token_ids))
    pieces = [visible(piece.encode()) for piece in look.pieces[:n]]
    sections = [
        f"token ids, the first {n} of {len(look.token_ids)}\n"
        + table(pieces, [[str(token_id) for token_id in look.token_ids[:n]]]),
        "training examples (input so far -> target)\n"
        + "\n".join(
            f"{look.token_ids[: i + 1]} -> {look.token_ids[i + 1]}"
            for i in range(min(n, len(look.token_ids) - 1))
        ),
    ]
    for i, layer in enumerate(look.attention):
        for head in range(layer.scores.shape[0]):
            for name, values in (
                ("scores, before the mask", layer.scores),
                ("after the mask", layer.masked),
                ("after the softmax", layer.weights),
            ):
                title = f"layer {i + 1}, head {head + 1}: {name}"
                sections.append(f"{title}\n{matrix(values[head, :n, :n], pieces)}")
    return "\n\n".join(sections)


def matrix(values: Tensor, names: Sequence[str]) -> str:
    """A square matrix with a name for each row and column."""
    rows = [[name, *(f"{v:.2f}" for v in row)] for name, row in zip(names, values.tolist())]
    return table(["", *names], rows)
