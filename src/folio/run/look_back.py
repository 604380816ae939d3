"""At the end of a run: has it memorized its text, and what is its loss worth?

Both are short looks; `folio recall` and `folio evaluate --baselines` are the long ones.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.ngrams import ngram_nll
from folio.evaluation.passages import Passages, patterns_of, read_passages
from folio.evaluation.repeats import OFTEN, count_repeats
from folio.evaluation.shares import Share, of_new_text, share_of
from folio.evaluation.uncertainty import FEWEST_BLOCKS
from folio.jit import available, must_compile
from folio.records import DamagedError
from folio.run.baselines import (
    LITTLE,
    Baseline,
    measure_baselines,
    read_baselines,
    write_baselines,
)
from folio.run.held_out import counted_targets
from folio.run.model import Model
from folio.storage import write_json
from folio.tokenizers.base import TokenIds
from folio.tokens.text import CHUNK_TOKENS, TokenText, characters

PASSAGES = 512
SHARE_OF_RUN = 0.02
"""Share of a run's time that one look may take."""
NGRAMS_PER_SECOND = 5e5
TOKENS_PER_SECOND = 3e6
"""In which passages are looked for. Measured: 14 million characters on a slow core, and a token has
about four."""
ALARM = 0.05
"""Share of passages that come at once above which a run is said to know its text by heart."""


@dataclass(frozen=True)
class AtOnce:
    """Passages that come at once, of the training text and of new text."""

    known: Share
    new: Share

    @property
    def alarming(self) -> bool:
        """Whether it is more than chance, and more than predictable text explains."""
        return self.known.value > ALARM and self.known.above(self.new)

    def record(self) -> dict[str, Any]:
        """Return the entry of by_heart.json, which the diagnosis reads."""
        return {
            "alarming": self.alarming,
            "known": asdict(self.known),
            "new": asdict(self.new),
        }


def look_back(
    opened: Model, run_seconds: float, seconds_left: float = math.inf
) -> list[tuple[str, str]]:
    """Look back, record the result in the run, and report it.

    Args:
        opened: the best checkpoint of a finished run.
        run_seconds: how long training took.
        seconds_left: for both looks together; without time there are none, and no n-grams in a
            limited time if their kernels have to be compiled first.

    Returns:
        Rows for the card.
    """
    run = opened.run
    facts: list[tuple[str, str]] = []
    if seconds_left <= 0:
        return facts
    seconds = min(SHARE_OF_RUN * run_seconds, seconds_left / 2)
    found = look_for_passages(opened, seconds)
    if found is not None:
        steps = [event["step"] for event in run.events("end")]
        of = {"run_step": steps[-1] if steps else 0, "step": opened.checkpoint.step}
        write_json(run.by_heart_file, {**of, **found.record()})
        facts.append(
            (
                "by heart",
                f"{found.known.count:,} of {found.known.of:,} passages, "
                f"{of_new_text(found.new.count, found.new.of)}; "
                f"`folio recall {shlex.quote(str(run.path))}` says more",
            )
        )
    n_tokens = sum(map(len, opened.learned()))
    is_ready = seconds_left == math.inf or not _compiles_first()
    if is_ready and n_tokens < min(LITTLE, NGRAMS_PER_SECOND * seconds):
        baselines = list[Baseline]()
        with suppress(DamagedError):  # they are measured anew
            baselines = read_baselines(run)  # the text is the same; `folio evaluate` takes longer
        if not baselines:
            baselines = measure_baselines(opened, quick=True)
            write_baselines(run, baselines)
        facts += [
            (f"loss of {b.name}", f"{b.nats_per_token:.4f} nats per token")
            for b in baselines
            if b.name.startswith("n-grams") and b.kind == "static"
        ]
    return facts


def compile_kernels() -> None:
    """Compile what n-grams need, unless an earlier process has; it takes seconds, once."""
    if _compiles_first():
        letters = np.frombuffer(b"abcdefgh", np.uint8)
        ngram_nll(letters, letters, order=2, plain=False)


def _compiles_first() -> bool:
    if not available():
        return False
    from folio.evaluation import ngram_kernels

    return must_compile(ngram_kernels._pass)  # pyright: ignore


def look_for_passages(opened: Model, seconds: float = math.inf) -> AtOnce | None:
    """Find which of some hundred passages come at once; None if the text is too short for any.

    The known ones are of the run's own training text. Patterns are left out, and what occurs often
    in all that it learned, and of the new text what also occurs there. Of texts that take longer
    than `seconds` to look through, as a store does, some chunks are, evenly spaced.
    """
    texts = [TokenText(tokens, opened.tokenizer) for tokens in opened.learned()]
    in_time = max(TOKENS_PER_SECOND * seconds / 4, CHUNK_TOKENS)
    every = max(math.ceil(sum(len(text.tokens) for text in texts) / in_time), 1)

    def look(tokens: TokenIds, part: str, most_often: int) -> Share | None:
        read = read_passages(
            opened.model,
            tokens,
            opened.tokenizer,
            opened.model.config.context_length,
            most=PASSAGES,
            seconds=seconds / 4,
            counted=counted_targets(opened, part),
        )
        return _share(read, tokens, opened, texts, most_often, every)

    known = look(opened.training(), "train", OFTEN)
    if known is None:
        return None
    return AtOnce(known, look(opened.validation(), "validation", 0) or Share(0, 0, 0.0))


def _share(
    read: Passages,
    tokens: TokenIds,
    opened: Model,
    texts: Sequence[TokenText],
    most_often: int,
    every: int,
) -> Share | None:
    if not len(read):
        return None
    suffixes = read.suffixes(tokens, opened.tokenizer)
    counted: NDArray[np.bool_] = ~patterns_of(suffixes)
    suspects = np.flatnonzero(counted & read.at_once)
    if len(suspects):  # read the texts only if there is something to look up
        said = [suffixes[i] for i in suspects.tolist()]
        shortest = min(len(characters(symbols)[1]) for symbols in said)
        repeats = sum(count_repeats(text, said, shortest, every) for text in texts)
        # In a part of the texts as much less often; but once is its own place.
        often = max(most_often / every, min(most_often, 1))
        counted[suspects[repeats > often]] = False
    stretches = read.starts * FEWEST_BLOCKS // len(tokens)
    return share_of(read.at_once[counted], stretches[counted])
