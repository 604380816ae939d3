"""Passages that a model goes on with by heart: which kinds, how often they stand, where."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from folio.console import duration
from folio.evaluation.passages import Passages, patterns_of, read_passages
from folio.evaluation.repeats import OFTEN, count_repeats
from folio.evaluation.shares import Share, share_of
from folio.recall.blocks import blocks_of, color_at
from folio.recall.config import RecallConfig
from folio.recall.sources import Sources
from folio.run.held_out import counted_targets
from folio.run.model import Model
from folio.tokenizers.base import TokenIds, Tokenizer
from folio.tokens.text import TokenText, characters, text_of

TRIES = {"at once": 1, "in 100 tries": 100, "in a million": 1_000_000}
REPEATS = ((1, 1), (2, 2), (3, 5), (6, 1 << 62))
"""Ranges of how often a passage occurs, for which results are reported separately."""
FEWEST_COMPARED = 20
"""With fewer passages of either text, the two are not compared."""
WORST = 40
"""Passages that are told one by one."""


@dataclass(frozen=True)
class Known:
    """A passage of the training text that the model knows."""

    place: int
    """Where its suffix begins, in symbols of the text."""
    bits: float
    at_once: bool
    repeats: int
    prefix: str
    suffix: str


@dataclass(frozen=True)
class ByHeart:
    """How many passages of the training text, and of new text, the model knows by heart."""

    prefix_characters: float
    """Characters of the shortest prefix, half a context, on the average."""
    suffix_characters: float
    n_patterns: int
    """Number of passages of the training text that are left out as patterns: rules, columns."""
    patterns: dict[str, Share]
    """Share of those patterns that come within so many tries."""
    text: dict[str, Share]
    """Share of the passages of the training text that come, without patterns and those that occur
    more than five times."""
    repeated: dict[str, Share]
    """Share of the passages that occur more often."""
    new: dict[str, Share]
    """Share of the passages of the validation text that come, without patterns and those in the
    training text."""
    bits: list[float] = field(repr=False)
    """Bits of each passage that counts in `text`."""
    new_bits: list[float] = field(repr=False)
    by_repeats: list[tuple[str, int, float, float]]
    """For each range of occurrences: its name, number of passages, median bits, and share that
    comes at once."""
    told_apart: float | None
    """Share of pairs of a training and a new passage in which the former is likelier (AUC)."""
    worst: list[Known] = field(repr=False)
    """Within a million tries, the likeliest first, no patterns."""
    documents: list[tuple[int, Share, float]] = field(repr=False)
    """Document, its share within a million tries, the 5 % quantile of its bits."""

    @property
    def median_bits(self) -> float:
        return float(np.median(self.bits)) if self.bits else float("nan")

    @property
    def median_new_bits(self) -> float:
        return float(np.median(self.new_bits)) if self.new_bits else float("nan")


def learn_by_heart(
    opened: Model,
    text: TokenText,
    sources: Sources,
    config: RecallConfig,
    length: int,
    tell: Callable[[str], None],
) -> ByHeart:
    """Read passages of the training and of the validation text.

    Args:
        opened: the model and its run.
        text, sources: the training text.
        config, length: how many passages, and how long.
        tell: hears what is being done.
    """
    tokenizer = opened.tokenizer

    def read(tokens: TokenIds, name: str, part: str) -> Passages:
        seconds = config.seconds / 2
        stopping = f", stopping after {duration(seconds)}" if seconds < math.inf else ""
        if len(tokens):
            tell(f"reading passages of {name} text{stopping}")
        return read_passages(
            opened.model,
            tokens,
            tokenizer,
            opened.model.config.context_length,
            most=config.passages,
            length=length,
            temperature=config.temperature,
            seconds=seconds,
            counted=counted_targets(opened, part),
        )

    tokens, held_out = opened.training(), opened.validation()
    old = read(tokens, "the", "train")
    new = read(held_out, "new", "validation")
    suffixes = old.suffixes(tokens, tokenizer)
    pattern = patterns_of(suffixes)
    sizes = [len(characters(suffix)[1]) for suffix in suffixes]
    places = text.places_of(old.starts + old.prefix)
    families = color_at(blocks_of(text, list(sources.families)), places)

    of_new = new.suffixes(held_out, tokenizer)
    new_pattern = patterns_of(of_new)
    new_text = TokenText(held_out, tokenizer)
    new_places = new_text.places_of(new.starts + new.prefix)
    new_blocks = color_at(blocks_of(new_text, opened.run.families("validation")), new_places)

    counts = count_repeats(text, suffixes + of_new, length)
    repeats, elsewhere = counts[: len(suffixes)], counts[len(suffixes) :]
    really_new = ~new_pattern & (elsewhere == 0)

    often = repeats > OFTEN
    plain = ~pattern & ~often
    likeliest = np.argsort(old.bits, kind="stable")
    likeliest = likeliest[(old.within(1_000_000) & ~pattern)[likeliest]][:WORST]
    return ByHeart(
        prefix_characters=old.prefix * text.n_characters / max(len(tokens), 1),
        suffix_characters=float(np.mean(sizes)) if sizes else 0.0,
        n_patterns=int(pattern.sum()),
        patterns=_shares(old, pattern, families),
        text=_shares(old, plain, families),
        repeated=_shares(old, often & ~pattern, families),
        new=_shares(new, really_new, new_blocks),
        bits=old.bits[plain].tolist(),
        new_bits=new.bits[really_new].tolist(),
        by_repeats=_by_repeats(old, ~pattern, repeats),
        told_apart=told_apart(old.bits[plain], new.bits[really_new]),
        worst=[
            _known(i, old, sizes[i], places, repeats, tokens, tokenizer) for i in likeliest.tolist()
        ],
        documents=_documents(old, plain, places, sources),
    )


def told_apart(read: NDArray[np.float64], new: NDArray[np.float64]) -> float | None:
    """The share of pairs in which the one that was read has fewer bits; half of the ties. None
    where there are few of either.

    >>> told_apart(np.tile([1.0, 3.0], 10), np.tile([2.0, 3.0], 10))
    0.625
    """
    if min(len(read), len(new)) < FEWEST_COMPARED:
        return None
    ordered = np.sort(read)
    below = np.searchsorted(ordered, new, "left") + np.searchsorted(ordered, new, "right")
    return float(below.mean() / 2 / len(read))


def _shares(
    passages: Passages, chosen: NDArray[np.bool_], clusters: NDArray[np.int64]
) -> dict[str, Share]:
    hits = {"at once": passages.at_once}
    hits |= {name: passages.within(n) for name, n in TRIES.items() if n > 1}
    return {name: share_of(of[chosen], clusters[chosen]) for name, of in hits.items()}


def _by_repeats(
    passages: Passages, chosen: NDArray[np.bool_], repeats: NDArray[np.int64]
) -> list[tuple[str, int, float, float]]:
    rows = []
    for low, high in REPEATS:
        of = chosen & (repeats >= low) & (repeats <= high)
        if of.any():
            name = "once" if high == 1 else f"{low} times" if low == high else f"{low} to {high}"
            name = f"{low} and more" if high > 1000 else name
            median = float(np.median(passages.bits[of]))
            rows.append((name, int(of.sum()), median, float(passages.at_once[of].mean())))
    return rows


def _documents(
    passages: Passages,
    chosen: NDArray[np.bool_],
    places: NDArray[np.int64],
    sources: Sources,
) -> list[tuple[int, Share, float]]:
    """Results of each document with at least ten passages, the best known first."""
    documents = sources.documents_at(places)
    within = passages.within(1_000_000)
    rows = []
    for document in np.unique(documents[chosen]).tolist():
        of = chosen & (documents == document)
        if of.sum() >= 10:
            share = share_of(within[of], np.arange(of.sum()))
            rows.append((document, share, float(np.quantile(passages.bits[of], 0.05))))
    return sorted(rows, key=lambda row: (-row[1].value, row[2]))


def _known(
    i: int,
    passages: Passages,
    n_characters: int,
    places: NDArray[np.int64],
    repeats: NDArray[np.int64],
    tokens: TokenIds,
    tokenizer: Tokenizer,
) -> Known:
    begin = int(passages.starts[i])
    middle = begin + passages.prefix
    # A token may end inside a character, which is decoded as a whole.
    whole = text_of(tokens[begin : middle + int(passages.sizes[i])], tokenizer)
    return Known(
        place=int(places[i]),
        bits=float(passages.bits[i]),
        at_once=bool(passages.at_once[i]),
        repeats=int(repeats[i]),
        prefix=whole[:-n_characters],
        suffix=whole[-n_characters:],
    )
