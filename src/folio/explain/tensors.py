"""Prints the small matrices of a forward trace in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from folio.console import table
from folio.explain.look import ForwardTrace
from folio.tokenizers.comparison import visible

SHOWN = 10
"""Positions that are shown; more do not fit a terminal."""


def print_tensors(trace: ForwardTrace) -> str:
    """Token ids, training examples, and attention of the first positions before the mask, after it,
    and after the softmax.
    """
    n = min(SHOWN, len(trace.token_ids))
    pieces = [visible(piece) for piece in trace.pieces[:n]]
    sections = [
        f"token ids, the first {n} of {len(trace.token_ids)}\n"
        + table(pieces, [[str(token_id) for token_id in trace.token_ids[:n]]]),
        "training examples (input so far -> target)\n"
        + "\n".join(
            f"{trace.token_ids[: i + 1]} -> {trace.token_ids[i + 1]}"
            for i in range(min(n, len(trace.token_ids) - 1))
        ),
    ]
    for i, layer in enumerate(trace.attention):
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
