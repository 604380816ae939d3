"""Several models as one: the mean of their probabilities, and a model that learns that mean.

    python -m bench.ensemble RUN RUN RUN
    python -m bench.ensemble RUN RUN RUN --distil 0.5 --ngrams 10
    python -m bench.ensemble RUN RUN RUN --distil 0.8 --written 1000000 --max-steps 6000 --decay 0.4

The runs share their text and their tokenizer; they differ by their seeds. Printed is the exact
loss on the test text, or on the validation text where there is no test text. To distil is to train
one more model of the first run's recipe, whose targets are half what follows in the text and half
what the mean of the others expects there (Hinton et al. 2015, https://arxiv.org/abs/1503.02531).
`--written` has the others write text together, which none of them has learned by heart: the one
model reads it beside the true text, and learns there what they expect alone.

With `--ngrams` each loss is told beside n-grams of the training text and of the window, too, each
half of the text by weights from the other half (`ngrams/fit.py`).

Shapes:  N tokens · B windows · T context length · V vocabulary
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from folio.config import Table, merge, read_toml
from folio.device import choose_device
from folio.evaluation.score import Window, exact_windows, strided_windows
from folio.generation.readers import reader_for
from folio.model.gpt import GPT
from folio.ngrams import fit
from folio.ngrams.table import count_ngrams
from folio.ngrams.window import count_targets
from folio.recipe.build import build
from folio.recipe.recipe import make_recipe
from folio.recipe.watcher import Watcher
from folio.run.directory import find_run
from folio.run.model import Model
from folio.run.opening import open_run
from folio.tokenizers.base import TokenIds
from folio.tokens.ignored import IGNORED
from folio.tokens.stream import Batch, StreamPosition, TokenStream
from folio.tokens.token_file import open_token_file
from folio.training.loop import train
from folio.training.parts import Evaluation, Training
from folio.training.state import TrainingState

TEXTS = 128
"""That are written at once."""
Expect = Callable[[NDArray[np.int64]], Tensor]
"""(B, T) token ids -> (B, T, V) probabilities of the next."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Several models as one.")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--distil", type=float, default=0.0, help="weight of the mean, to 1")
    parser.add_argument("--written", type=int, default=0, help="tokens that the runs write for it")
    parser.add_argument("--max-steps", type=int, default=0, help="of its training")
    parser.add_argument("--decay", type=float, default=0.0, help="of its matrices")
    parser.add_argument("--seed", type=int, default=11, help="of the model that learns it")
    parser.add_argument("--ngrams", type=int, default=0, help="their order")
    options = parser.parse_args()
    members = [open_run(find_run(run)) for run in options.runs]
    if talks := [
        member.run.word for member in members if member.run.tokens_file("train.mask").exists()
    ]:
        raise SystemExit(
            f"{talks[0]} learned conversations, of which only the answers count, and here all "
            f"tokens do. Give runs of texts."
        )
    text = held_out(members[0])
    windows = exact_windows(len(text), members[0].model.config.context_length)
    tables = [probabilities(member.model, text, windows) for member in members]
    counted = expected_by_ngrams(members[0], options.ngrams, text, windows)

    def tell(name: str, table: Tensor) -> None:
        beside = ""
        if counted is not None:
            loss = loss_beside(table, counted, text, windows)
            beside = f", beside n-grams {loss:.4f}"
        print(f"{name}: {mean_loss(table, text):.4f}{beside}", flush=True)

    for member, table in zip(members, tables):
        tell(str(member.run.path), table)
    tell(f"mean probability of {len(members)}", mean_of(tables))
    if options.distil:
        written = written_by(members, n, options.seed) if (n := options.written) else None
        changes: Table = {"training": {}, "optimizer": {}}
        if n_steps := options.max_steps:
            changes["training"] = {"max_steps": n_steps, "evaluation_interval": n_steps}
        if options.decay:
            changes["optimizer"] = {"matrix_weight_decay": options.decay}
        model = distil(members, options.distil, options.seed, written, changes)
        tell(f"distilled with weight {options.distil}", probabilities(model, text, windows))


def held_out(member: Model) -> TokenIds:
    path = member.run.tokens_file("test")
    return open_token_file(path) if path.exists() else member.validation()


def probabilities(model: GPT, tokens: TokenIds, windows: list[Window]) -> Tensor:
    """(N, V) what a model expects at each place; 0 at the first."""
    size = model.config.vocab_size
    return expected(lambda ids: model(torch.from_numpy(ids)).softmax(2), size, tokens, windows)


def expected_by_ngrams(
    member: Model, order: int, tokens: TokenIds, windows: list[Window]
) -> Tensor | None:
    """(N, V) what the n-grams of the training text expect; None without n-grams."""
    if not order:
        return None
    ngrams = count_ngrams(member.training(), order, member.config.vocab_size)
    size = ngrams.vocab_size
    return expected(lambda ids: torch.from_numpy(ngrams.probabilities(ids)), size, tokens, windows)


@torch.no_grad()
def expected(expect: Expect, vocab_size: int, tokens: TokenIds, windows: list[Window]) -> Tensor:
    """(N, V) what is expected at each place; 0 at the first."""
    found = torch.zeros(len(tokens), vocab_size)
    for start, length, skip in windows:
        ids = tokens[start : start + length].astype(np.int64)
        found[start + skip + 1 : start + length + 1] = expect(ids[None])[0, skip:]
    return found


def loss_beside(
    probabilities: Tensor, counted: Tensor, tokens: TokenIds, windows: list[Window]
) -> float:
    """Nats per token of a model beside n-grams, where the windows count, too."""
    ids = tokens.astype(np.int64)
    read = list[fit.Read]()
    for window in windows:
        places = slice(window.start + 1, window.start + window.length + 1)
        targets = ids[places]
        counts = count_targets(ids[window.start : places.stop - 1], targets)
        tables = (probabilities[places].log(), counted[places].log())
        read.append(fit.Read(*tables, torch.from_numpy(targets), counts))
    return fit.fit(read).loss_in_windows


def mean_of(tables: Iterable[Tensor]) -> Tensor:
    """(N, V) the mean of some tables, of which two are in memory at once."""
    rest = iter(tables)
    total, n = next(rest).clone(), 1
    for table in rest:
        total += table
        n += 1
    return total / n


def mean_loss(probabilities: Tensor, tokens: TokenIds) -> float:
    """Nats per token of the true ones."""
    targets = torch.from_numpy(tokens[1:].astype(np.int64))
    chosen = probabilities[1:].gather(1, targets[:, None]).double()
    return -chosen.log().mean().item()


class Places:
    """A stream that gives the places of tokens instead of their ids."""

    def __init__(self, tokens: NDArray[np.integer], stream: TokenStream) -> None:
        self.tokens, self.stream = tokens, stream
        stream.tokens = np.arange(len(tokens))
        self.loss_mask = stream.loss_mask

    @property
    def place(self) -> StreamPosition:
        return self.stream.place

    @place.setter
    def place(self, place: StreamPosition) -> None:
        self.stream.place = place

    def next_batch(self, n_windows: int, context_length: int | None = None) -> Batch:
        return self.stream.next_batch(n_windows, context_length)


class Report(Watcher):
    """Prints the evaluations."""

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        losses = f"{evaluation.validation_loss:.4f}, training {evaluation.training_loss:.4f}"
        print(f"step {state.step}: validation {losses}, {state.seconds:.0f} s", flush=True)


def written_by(members: list[Model], n_tokens: int, seed: int) -> TokenIds:
    """Have the members write together, by the mean of their probabilities: TEXTS texts that go on
    from places of the training text.
    """
    random, ids = np.random.default_rng(seed), members[0].training()
    half, size = members[0].model.config.context_length // 2, ids.dtype
    readers = [reader_for(member.model) for member in members]
    starts = random.integers(0, len(ids) - half, TEXTS)
    ends, written = np.stack([ids[start : start + half] for start in starts]), list[Any]()
    never = members[0].never_drawn()
    while half * len(written) * TEXTS < n_tokens:  # after each half of a window anew
        caches, new = [reader.caches(TEXTS) for reader in readers], ends.tolist()
        drawn = list[Any]()
        for _ in range(half):
            logits = [torch.from_numpy(r.read(new, c)) for r, c in zip(readers, caches)]
            chances = torch.stack(logits).softmax(2).mean(0)  # (TEXTS, V)
            chances[:, torch.from_numpy(never)] = 0
            until = chances.double().cumsum(1).numpy()
            point = random.random((TEXTS, 1)) * until[:, -1:]
            drawn.append((until <= point).sum(1))
            new = drawn[-1][:, None].tolist()
        ends = np.stack(drawn, 1)
        written.append(ends)
    return np.concatenate(written, 1).reshape(-1)[:n_tokens].astype(size)


def distil(
    members: list[Model],
    weight: float,
    seed: int,
    written: TokenIds | None = None,
    changes: Table | None = None,
) -> GPT:
    """Train the model that learns from the text and from the mean of the members.

    Args:
        members: those who are asked.
        weight: of what they expect in the training text, to 1.
        seed: of the model.
        written: (N,) tokens that they wrote, in which only what they expect counts.
        changes: settings of the training that differ from the members'.
    """
    ids = members[0].training()
    n_true, length = len(ids), members[0].model.config.context_length
    windows = strided_windows(len(ids), length)
    if written is not None:
        ids = np.concatenate([ids, written])
        windows += [w._replace(start=w.start + n_true) for w in exact_windows(len(written), length)]
    expected = mean_of(probabilities(member.model, ids, windows) for member in members).bfloat16()
    true = torch.from_numpy(ids.astype(np.int64))

    def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Of places: (B, T) of inputs and of targets."""
        counts = targets != IGNORED
        scores = F.log_softmax(model(true[inputs])[counts].float(), 1)  # (n, V)
        places = targets[counts]
        hard = scores.gather(1, true[places][:, None])[:, 0]
        soft = (scores * expected[places]).sum(1)
        share = torch.where(places < n_true, weight, 1.0)
        return -((1 - share) * hard + share * soft).sum()

    recipe = make_recipe(merge(read_toml(members[0].run.recipe_file), changes or {}))
    recipe = replace(recipe, seed=seed)
    device = choose_device(recipe.device)
    training: Training = build(recipe, device, ids, members[0].validation())
    training.step.loss = loss
    training = replace(training, stream=Places(ids, training.stream))  # type: ignore[arg-type]
    train(training, TrainingState(), Report())
    model = training.model.eval()
    assert isinstance(model, GPT)
    return model


if __name__ == "__main__":
    main()
