"""N-grams in a folder of transformers: whole numbers among the weights, all else in config.json.

`modeling_folio.py` derives probabilities from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folio.errors import UserError
from folio.export.forms import Tensors
from folio.export.ngrams import Counted
from folio.ngrams.table import Level, NGrams
from folio.ngrams.weights import Weights

PREFIX = "ngrams."
MOST_IDS = 1 << 24
"""Largest vocabulary of n-grams that is read: one row of probabilities is as long."""
LOSSES = ("targets", "without", "with")
"""What ngrams.json tells of the losses."""


def ngrams_settings(counted: Counted) -> dict[str, Any]:
    """Make the part of config.json that says what the tensors do not."""
    ngrams, weights, record = counted
    return {
        "order": ngrams.order,
        "vocab_size": ngrams.vocab_size,
        "sizes": [len(level.tokens) for level in ngrams.levels],
        "discounts": ngrams.discounts.tolist(),
        "weights": weights._asdict(),
        **{key: record[key] for key in LOSSES},
    }


def ngrams_tensors(ngrams: NGrams) -> Tensors:
    """Give the tree as tensors of whole numbers, three a level."""
    return {
        f"{PREFIX}{name}_{n}": torch.from_numpy(array)
        for n, level in enumerate(ngrams.levels, 1)
        for name, array in level._asdict().items()
    }


def read_ngrams_of(
    settings: Mapping[str, Any], tensors: Mapping[str, Tensor], n_ids: int, source: str
) -> Counted:
    """Make n-grams again, of a file that may say anything.

    Args:
        settings: what `ngrams_settings` made.
        tensors: what `ngrams_tensors` made.
        n_ids: of the model.
        source: how errors call it.

    Raises:
        UserError: they are no tree of such n-grams.
    """
    try:
        return _read(settings, tensors, n_ids)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        why = f"they lack {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{source} has n-grams that are damaged: {why}. Export the run again, or without them: "
            f"--alone."
        ) from None


def _read(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], n_ids: int) -> Counted:
    vocab_size = int(settings["vocab_size"])
    discounts = np.array(settings["discounts"], np.float64)
    weights = Weights.of(settings["weights"])
    losses = {key: float(settings[key]) for key in LOSSES}
    levels = [
        Level(*(_whole(tensors[f"{PREFIX}{name}_{n}"]) for name in Level._fields))
        for n in range(1, len(discounts) + 1)
    ]
    if not all(map(math.isfinite, (*weights, *losses.values()))):
        raise ValueError("a weight or a loss is not finite")
    if not n_ids <= vocab_size <= MOST_IDS:
        raise ValueError(f"they are of {vocab_size:,} ids, and the model of {n_ids:,}")
    if problem := _problem(levels, discounts, n_ids):
        raise ValueError(problem)
    ngrams = NGrams(vocab_size, levels, discounts)
    record = {"order": ngrams.order, "ngrams": len(ngrams), "step": 0}
    record |= {"weights": weights._asdict(), **losses, "targets": int(losses["targets"])}
    return Counted(ngrams, weights, record)


def _whole(tensor: Tensor) -> NDArray[np.int64]:
    if tensor.is_floating_point() or tensor.dim() != 1:
        raise ValueError("a list is not of whole numbers")
    return tensor.numpy().astype(np.int64)


def _problem(levels: list[Level], discounts: NDArray[np.float64], n_ids: int) -> str:
    """Say why levels are no tree; empty if they are one."""
    if not levels or discounts.shape != (len(levels), 3):
        return "three discounts belong to each level"
    if not ((discounts > 0) & (discounts <= (1, 2, 3))).all():
        return "a discount is 0 or above the count that it is taken from"
    children = np.array([len(levels[0].tokens)])
    for tokens, counts, following in levels:
        if not len(tokens) == len(counts) == len(following):
            return "the lists of a level are not of one length"
        if (children < 0).any() or children.sum() != len(tokens):
            return "a level has not as many n-grams as the one before promises"
        keys = np.repeat(np.arange(len(children)), children) * n_ids + tokens
        if (tokens < 0).any() or (tokens >= n_ids).any() or (np.diff(keys) <= 0).any():
            return "tokens do not ascend below the number of ids"
        if not len(tokens) or (counts < 1).any():
            return "a level is empty, or a count is below 1"
        children = following
    return "the last level promises another" if children.any() else ""
