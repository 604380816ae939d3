"""What reading a document changes: two models with the same recipe, each trained on one half of the
families.

A passage may be likely since the model read it, or since anybody could have guessed it. A model
that did not read it, and is like the other in all else, tells the two apart: its bits less those of
the one that did are counterfactual memorization (Zhang et al. 2021,
https://arxiv.org/abs/2112.12938).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from folio.errors import UserError
from folio.evaluation.passages import Passages, read_passages
from folio.evaluation.shares import Share, share_of
from folio.evaluation.uncertainty import ratio_error, text_families
from folio.model.gpt import GPT
from folio.recall.config import RecallConfig
from folio.recall.sources import Sources
from folio.recipe.build import build, choose_for
from folio.recipe.recipe import Recipe, read_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import Run
from folio.run.model import Model
from folio.tokens.text import TokenText
from folio.training.loop import train
from folio.training.state import TrainingState

FEWEST_FAMILIES = 20
"""With fewer families, the halves differ in more than what was read."""
FEWEST_PASSAGES = 5
"""A document with fewer passages is not reported by name."""
TRIES = 100


@dataclass(frozen=True)
class Gain:
    """Bits by which passages are less surprising to the model that read them, on the mean."""

    bits: float
    error: float
    """Its standard error."""
    passages: int


@dataclass(frozen=True)
class Twin:
    """The comparison of the two models."""

    steps: tuple[int, int]
    """Training steps of each model."""
    gain: Gain
    """Over all passages; the error is over families."""
    by_reading: Share
    """Passages that come within TRIES from the model that read them, and not from the other."""
    anyway: Share
    """Share that comes within TRIES from the model that did not read it."""
    documents: list[tuple[int, Gain]] = field(repr=False)
    """Each with FEWEST_PASSAGES passages and more, the largest gain first."""

    def standing_out(self, errors: float = 3.0) -> list[tuple[int, Gain]]:
        """Documents that gain more than all do, by more than chance among many explains."""
        return [
            (document, gain)
            for document, gain in self.documents
            if gain.bits - self.gain.bits > errors * float(np.hypot(gain.error, self.gain.error))
        ]


def check_twin(run: Run) -> None:
    """Raise UserError unless two models can be trained as a run was, each on half of its text."""
    if run.tokens_file("train.mask").exists():
        raise UserError(
            f"--twin trains on texts, and {run.path} learned the answers of conversations. "
            f"Leave it out."
        )
    if run.start_file.exists():
        raise UserError(
            f"--twin asks what a model knows that never read a document, and {run.path} began with "
            f"weights that had learned another text. Leave it out, or measure a run from scratch."
        )


def halve(opened: Model, families: Sequence[int], seed: int) -> NDArray[np.int8]:
    """(N,) which half, 0 or 1, each training token belongs to: whole families, of equal size.

    Args:
        opened: the run.
        families: of each document; each is its own where there are none.
        seed: of the halves.

    Raises:
        UserError: there are few families.
    """
    of = text_families(opened.training(), opened.tokenizer.end_of_document, families)
    names, index, sizes = np.unique(of, return_inverse=True, return_counts=True)
    if len(names) < FEWEST_FAMILIES:
        raise UserError(
            f"The training text of {opened.run.path} has fewer than {FEWEST_FAMILIES} clusters of "
            f"documents, too few to be cut in two halves: near-duplicates count as one. Leave "
            f"--twin out, or train on more files."
        )
    order = list(range(len(names)))
    random.Random(f"twin {seed}").shuffle(order)
    half_of, tokens = np.zeros(len(names), np.int8), [0, 0]
    for family in sorted(order, key=lambda family: -sizes[family]):  # the largest first
        half_of[family] = tokens[1] < tokens[0]
        tokens[half_of[family]] += sizes[family]
    return half_of[index]


def measure_twin(
    opened: Model,
    text: TokenText,
    sources: Sources,
    config: RecallConfig,
    length: int,
    tell: Callable[[str], None],
) -> Twin:
    """Train the two models, and let both read passages of the whole training text.

    Args:
        opened: the run.
        text, sources: its training text.
        config, length: how many passages, and how long.
        tell: hears what is being done.

    Raises:
        UserError: there are few families.
    """
    tokens, families = np.asarray(opened.training()), list(sources.families)
    halves = halve(opened, families, config.seed)
    recipe = read_recipe(opened.run)
    steps, read = [], []
    for half in (0, 1):
        mine = tokens[halves == half]
        n_steps = max(1, round(opened.checkpoint.step * len(mine) / len(tokens)))
        tell(f"twin {half + 1} of 2: {n_steps:,} steps on {len(mine):,} tokens")
        model = train_half(recipe, mine, opened.validation(), n_steps, opened.checkpoint.step)
        steps.append(n_steps)
        read.append(
            read_passages(
                model,
                tokens,
                opened.tokenizer,
                recipe.model.context_length,
                most=config.passages,
                length=length,
                temperature=config.temperature,
            )
        )
    first = read[0].starts + read[0].prefix
    of = text_families(tokens, opened.tokenizer.end_of_document, families)[first]
    documents = sources.documents_at(text.places_of(first))
    return compare(read, halves[first], of, documents, (steps[0], steps[1]))


def train_half(
    recipe: Recipe, tokens: NDArray, validation: NDArray, n_steps: int, whole_steps: int
) -> GPT:
    """Train a model that reads its half as often as the run read its text.

    Args:
        recipe: of the run.
        tokens: (n,) what it reads.
        validation: of which a little is looked at, as every training does.
        n_steps: how many.
        whole_steps: of the run up to its checkpoint, which may lie before the recipe's end.
    """
    share = n_steps / whole_steps
    last = max(n_steps, round(recipe.training.max_steps * share))
    horizon = round(recipe.schedule.horizon_steps * share)
    recipe = replace(
        recipe,
        schedule=replace(recipe.schedule, pace=(), horizon_steps=horizon),
        training=replace(
            recipe.training, max_steps=last, evaluation_interval=last, evaluations=0, patience=0,
            save_interval=0, save_minutes=0,
        ),
    )  # fmt: skip
    few = validation[: 1 + recipe.model.context_length]
    training, state = build(recipe, choose_for(recipe), tokens, few), TrainingState()
    train(training, state, Watcher(), lambda: state.step >= n_steps)
    model = training.model
    assert isinstance(model, GPT)
    return model.cpu().float().eval().requires_grad_(False)


def compare(
    read: Sequence[Passages],
    halves: NDArray[np.int8],
    families: NDArray[np.int64],
    documents: NDArray[np.int64],
    steps: tuple[int, int],
) -> Twin:
    """The bits of one less those of the other.

    Args:
        read: the same N passages, by either model.
        halves: (N,) which of the two read each.
        families, documents: (N,) that each belongs to.
        steps: of each model.
    """
    both = np.stack([passages.bits for passages in read])  # (2, N)
    within = np.stack([passages.within(TRIES) for passages in read])
    place = np.arange(len(halves))
    gains = both[1 - halves, place] - both[halves, place]
    known, guessed = within[halves, place], within[1 - halves, place]
    rows = []
    for document in np.unique(documents).tolist():
        of = documents == document
        if of.sum() >= FEWEST_PASSAGES:
            rows.append((document, gain_of(gains[of], np.arange(int(of.sum())))))
    return Twin(
        steps,
        gain_of(gains, families),
        share_of(known & ~guessed, families),
        share_of(guessed, families),
        sorted(rows, key=lambda row: -row[1].bits),
    )


def gain_of(gains: NDArray[np.float64], clusters: NDArray[np.int64]) -> Gain:
    """The mean, with its error over clusters.

    >>> gain_of(np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1]))
    Gain(bits=2.0, error=1.0, passages=4)
    """
    if not len(gains):
        return Gain(0.0, 0.0, 0)
    _, index = np.unique(clusters, return_inverse=True)
    error = ratio_error(np.bincount(index, gains), np.bincount(index))
    return Gain(float(gains.mean()), error, len(gains))
