"""Measures what a run recalls of its training text, with the author's own repetitions as
yardstick.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.console import duration
from folio.evaluation.matching import Match, Query, find_matches, split_at_breaks
from folio.evaluation.passages import LENGTH
from folio.generation.engine import write
from folio.generation.guard import Guard
from folio.generation.sampling import SamplingConfig
from folio.notebook import html_frame
from folio.recall.against import with_old_texts
from folio.recall.blocks import blocks_of, queries_of, yardstick_of
from folio.recall.config import RecallConfig
from folio.recall.copies import Copies, measure_copies
from folio.recall.heart import ByHeart, learn_by_heart
from folio.recall.personal import Mask
from folio.recall.secrets import CanaryClass, Secrets, look_for_canaries, look_for_secrets
from folio.recall.sources import Sources
from folio.recall.twin import Twin, check_twin, halve, measure_twin
from folio.run.diagnosis import NOTHING
from folio.run.held_out import counted_targets
from folio.run.model import Model
from folio.run.old_texts import old_texts
from folio.run.writer import AT_ONCE
from folio.tokens.text import Symbols, TokenText, to_text
from folio.tokens.token_file import open_token_file

SAMPLE_CHARACTERS = 500
FEWEST_SAMPLES = 10
"""With fewer whole texts when time is over, those that were begun count as far as they came."""
TOLD_SECONDS = 10.0
"""Between two lines about how far the writing is."""
AUTHOR_SYMBOLS = 400_000
"""How many symbols of the training text are looked up in the rest of it."""
HELD_OUT_SYMBOLS = 200_000
SHORT_LENGTH = 20
"""Characters of a passage if most are Chinese or Japanese, each of which says more."""
DENSE = ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF))


@dataclass(frozen=True)
class Sample:
    """A text that the model wrote, and what was found in it."""

    matches: list[Match]
    """Matches of its stretches between the ends of documents."""


@dataclass(frozen=True)
class Recall:
    """The results, and the settings that gave them."""

    run: str
    checkpoint: str
    config: RecallConfig
    text: str = field(default="", kw_only=True)
    """The names of the other texts that were looked in, without their folders; nobody knows
    whether the model read them. Empty for its own training text."""
    times_read: float = field(default=0.0, kw_only=True)
    """As the function of this name."""
    missing: str = field(default="", kw_only=True)
    """What the runs before it learned and is not there, as in `OldTexts`."""
    length: int
    """Characters in a passage and in a copy."""
    training_characters: int
    learned: bool
    """Whether its loss is below that of bare frequencies; True where nobody looked."""
    heart: ByHeart
    model: Copies
    """What the model's own writing copies."""
    guarded: Copies | None
    """What it copies where `config.novel` guards it; None if that is 0."""
    author: Copies
    """The training text, each family of documents against all others."""
    held_out: Copies | None
    """The validation text, where there is one."""
    secrets: Secrets
    canaries: list[CanaryClass]
    other_canaries: list[float]
    """For each canary, the bits of the likeliest of a thousand random ones that were never
    planted."""
    twin: Twin | None
    """The result of the twin; None if it was not asked for."""
    samples: list[Sample] = field(repr=False)
    mask: Mask = field(repr=False)
    """Hides secrets in what is shown."""
    sources: Sources = field(repr=False)

    @property
    def looked_in(self) -> str:
        """The text that was looked in, in words."""
        return self.text or "the training text"

    def _repr_html_(self) -> str:
        page = import_module("folio.recall.page")  # which imports this file
        return html_frame(page.recall_page(self), "Did the model learn, or copy?")


def measure_recall(
    opened: Model, config: RecallConfig, tell: Callable[[str], None] = lambda line: None
) -> Recall:
    """Let the model write and go on with its text, and look both up.

    Args:
        opened: the model and its run; the texts of the runs before it are a part of its text.
        config: how much of it.
        tell: hears what is being done.

    Raises:
        UserError: the training text has few documents for a twin, or the twin asked for cannot be
            trained as the run was.
    """
    if config.twin:
        check_twin(opened.run)
    missing = old_texts(opened.run).missing
    with with_old_texts(opened) as beside:
        recall = _measure(beside, config, tell)
    times = times_read(opened)
    return replace(recall, run=str(opened.run.path), missing=missing, times_read=times)


def times_read(opened: Model) -> float:
    """How often a run's training read its text, and the old one that it kept: the targets that
    were read, of those that count.
    """
    n_targets = 0
    for part in ("train", "kept"):
        if (file := opened.run.tokens_file(part)).exists():
            counted = counted_targets(opened, part)
            n_targets += len(open_token_file(file)) - 1 if counted is None else int(counted.sum())
    return opened.checkpoint.state.get("tokens", 0) / max(n_targets, 1)


def _measure(opened: Model, config: RecallConfig, tell: Callable[[str], None]) -> Recall:
    """Measure the recall of a run with a single text."""
    text = TokenText(opened.training(), opened.tokenizer)
    length = config.length or usual_length(text)
    sources = Sources(opened.run, text)
    if config.twin:
        halve(opened, list(sources.families), config.seed)  # fails here, or never
    stopping = f", stopping after {duration(config.seconds)}" if config.seconds < math.inf else ""
    tell(f"writing {config.samples} texts of {SAMPLE_CHARACTERS} characters{stopping}")
    written = write_samples(opened, config, text, tell)
    guarded: list[Symbols] = []
    if config.novel:
        tell(f"writing as many with at most {config.novel} letters of the training text in a row")
        guarded = write_samples(opened, config, text, tell, opened.guard(config.novel))
    config = replace(config, samples=len(written))
    heart = learn_by_heart(opened, text, sources, config, length, tell)
    tell(f"looking them up in {text.n_characters:,} characters of text")
    found = look_up(opened, written, text, sources, guarded)
    secrets, hidden = look_for_secrets(
        opened,
        text,
        sources,
        [to_text(symbols) for symbols in written],
        config.secrets,
        temperature=config.temperature,
        show=config.show_secrets,
        seconds=config.seconds,
        tell=tell,
    )
    samples = [
        Sample([match for match in found["model"] if match.query.cluster == number])
        for number in range(len(written))
    ]
    copies = {
        name: measure_copies(matches, text, length)
        for name, matches in found.items()
        if matches or name in ("model", "author")
    }
    return Recall(
        str(opened.run.path),
        opened.checkpoint.path.name,
        config,
        length,
        text.n_characters,
        has_learned(opened),
        heart,
        copies["model"],
        copies.get("guarded"),
        copies["author"],
        copies.get("held out"),
        secrets,
        *look_for_canaries(opened, text, config.temperature),
        measure_twin(opened, text, sources, config, length, tell) if config.twin else None,
        samples,
        Mask(hidden),
        sources,
    )


def has_learned(opened: Model) -> bool:
    """Whether the checkpoint predicted new text better than bare frequencies do; True where
    nobody looked.
    """
    losses = [
        event["validation_loss"]
        for event in opened.run.events("evaluation")
        if event["step"] == opened.checkpoint.step
    ]
    bare = opened.run.corpus().get("frequency_loss", math.inf)
    return not losses or losses[-1] < bare - NOTHING


def usual_length(text: TokenText) -> int:
    """The usual length of a passage in characters, for the script of a text."""
    sample = next(text.pieces(), "")
    dense = sum(any(low <= ord(c) <= high for low, high in DENSE) for c in sample)
    return SHORT_LENGTH if dense > len(sample) / 2 else LENGTH


def write_samples(
    opened: Model,
    config: RecallConfig,
    text: TokenText,
    tell: Callable[[str], None] = lambda line: None,
    guard: Guard | None = None,
) -> list[Symbols]:
    """The texts that the model writes, as symbols; fewer where there is no time for all, and
    shorter ones where there is time for few.

    Args:
        opened, config: the model, and how it writes.
        text: whose characters per token the texts are assumed to have.
        tell: hears how far it is.
        guard: against copies.
    """
    per_token = text.n_characters / max(len(text.tokens), 1)
    sampling = SamplingConfig(temperature=config.temperature, seed=config.seed)
    n_tokens = max(1, round(SAMPLE_CHARACTERS / max(per_token, 1e-9)))
    requests = [
        opened.request("", sampling.of_text(number), n_tokens, stop=False, guard=guard)
        for number in range(config.samples)
    ]
    batch = opened.batch(min(config.samples, AT_ONCE))
    written = [list[int]() for _ in requests]
    n_all = n_tokens * config.samples
    began = told = time.monotonic()
    used = 0.0
    for n_written, (number, drawn) in enumerate(write(batch, requests), 1):
        written[number].append(drawn.token_id)
        now = time.monotonic()
        used = now - began
        if used > config.seconds:
            break
        if now - told > TOLD_SECONDS:
            told, left = now, min(used / n_written * (n_all - n_written), config.seconds - used)
            tell(f"{n_written / n_all:.0%} of the writing, {duration(left)} left")
    whole = [token_ids for token_ids in written if len(token_ids) == n_tokens]
    counted = whole if len(whole) >= FEWEST_SAMPLES else filter(None, written)
    texts = [_symbols(np.array(token_ids), opened) for token_ids in counted]
    if len(whole) < config.samples and used > config.seconds:  # a guard, too, may end a text
        n_characters = sum(len(to_text(symbols)) for symbols in texts)
        tell(
            f"time for {len(texts)} texts, {n_characters:,} characters in all, whose error is "
            f"larger: --seconds gives more"
        )
    return texts


def _symbols(token_ids: NDArray[Any], opened: Model) -> Symbols:
    """The symbols of a short text."""
    text = TokenText(token_ids, opened.tokenizer)
    return text.between(0, len(text))


def look_up(
    opened: Model,
    written: Sequence[Symbols],
    text: TokenText,
    sources: Sources,
    guarded: Sequence[Symbols] = (),
) -> dict[str, list[Match]]:
    """Find what the model, the author and the held-out text share with the training text, reading
    it once.

    Args:
        opened: the run.
        written: what the model wrote.
        text, sources: the training text and its documents.
        guarded: what it wrote with a guard.
    """
    families = list(sources.families)
    yardstick = yardstick_of(text, families)
    queries = {
        "model": _queries(written),
        "guarded": _queries(guarded),
        "author": queries_of(text, blocks_of(text, families), AUTHOR_SYMBOLS, yardstick),
        "held out": [],
    }
    validation = TokenText(opened.validation(), opened.tokenizer)
    if len(validation):
        of_validation = blocks_of(validation, opened.run.families("validation"))
        queries["held out"] = queries_of(validation, of_validation, HELD_OUT_SYMBOLS)
    everything = [query for of in queries.values() for query in of]
    found = iter(find_matches(everything, text.chunks(), yardstick))
    return {name: [next(found) for _ in of] for name, of in queries.items()}


def _queries(written: Sequence[Symbols]) -> list[Query]:
    return [
        Query(part, number)
        for number, symbols in enumerate(written)
        for part in split_at_breaks(symbols)
    ]
