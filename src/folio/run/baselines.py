"""What a loss is worth: how simpler models do on the same held-out text (baselines.json)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.compressors import (
    PPMD_ORDER_LONG,
    PPMD_ORDERS,
    PPMD_READS,
    XZ_READS,
    has_ppmd,
    ppmd_bits,
    ppmd_bits_apart,
    xz_bits,
)
from folio.evaluation.ngrams import CHOOSING, FIRST_ORDER, choose_order, ngram_nll
from folio.evaluation.uncertainty import SURE
from folio.records import made_of
from folio.run.directory import Run
from folio.storage import read_json, write_json
from folio.tokens.text import Bytes, TokenText

if TYPE_CHECKING:  # a card is drawn without loading torch
    from folio.evaluation.score import Score
    from folio.run.model import Model

T = TypeVar("T")

FEWEST_CHARACTERS = 300
"""Of a validation text on which a model is compared with others; a compressor ends at a whole byte,
which is a hundredth of so many."""

LEARNS = "which learns from the text as it reads it"

WINDOWS_APART = 1024
"""Of the validation text, evenly spaced, which PPMd reads apart; each takes some ten
milliseconds."""

LITTLE = 6_000_000
"""Size of a training text, in symbols, up to which a run measures n-grams at its end; takes
seconds."""


@dataclass(frozen=True)
class Baseline:
    """The result of one simpler model on the whole validation text."""

    name: str
    kind: str
    """`static`: trained on the training text alone, as the model is. `adaptive`: continues to learn
    from the held-out text while reading it, which the model does not."""
    nats_per_character: float
    bits_per_byte: float
    nats_per_token: float
    """Nats divided by the number of the model's targets, to be compared with its exact loss."""

    def record(self) -> dict[str, Any]:
        """Return its entry in baselines.json."""
        return asdict(self)


@dataclass(frozen=True)
class _HeldOut:
    """A text and its size, in the units of a loss."""

    text: Bytes
    characters: int
    targets: int

    def baseline(self, name: str, kind: str, nats: float) -> Baseline:
        n_bytes = int(np.count_nonzero(self.text))
        bits = nats / math.log(2) / n_bytes
        return Baseline(name, kind, nats / self.characters, bits, nats / self.targets)


def measure_baselines(
    opened: Model, tell: Callable[[str], None] = lambda line: None, quick: bool = False
) -> list[Baseline]:
    """Measure each baseline on the validation text of a run, trained on all that the run learned
    from: its own text and those of the runs before it that are there.

    Args:
        opened: the run.
        tell: receives lines about what is being done, and what could not be.
        quick: only n-grams of the usual order, no compressors.

    Returns:
        The baselines from the simplest on; none without validation text, or if only answers count
        in it.
    """
    if opened.run.tokens_file("validation.mask").exists():
        tell("no baselines: they read whole texts, and of conversations only the answers count")
        return []
    training = TokenText(opened.all_learned(), opened.tokenizer)
    validation = TokenText(opened.validation(), opened.tokenizer)
    if validation.n_characters == 0 or len(validation.tokens) < 2:
        return []
    before = training.whole()
    held_out = _HeldOut(validation.whole(), validation.n_characters, len(validation.tokens) - 1)
    compressed: Callable[[], list[Baseline]] = list
    if not quick:
        if not has_ppmd():
            tell("PPMd is not installed: pip install 'foliolm[baselines]'")
        tell(f"xz{' and PPMd' if has_ppmd() else ''}, in a thread of their own")
        pieces = list[_Piece]()
        if has_ppmd() and sys.platform == "linux":  # where a process can be forked at any time
            pieces = _windows(validation, held_out.text, opened.model.config.context_length)
        compressed = _beside(lambda goes_on: _compressors(before, held_out, pieces, goes_on))
    uniform, frequencies = _characters(training, validation)
    found = [
        held_out.baseline("every character as likely", "static", uniform),
        held_out.baseline("character frequencies", "static", frequencies),
    ]
    order, chosen = FIRST_ORDER, ""
    if not quick:
        if len(before) > CHOOSING:
            chosen = f", chosen on the last {CHOOSING // 1_000_000} MB"
        tell(f"n-grams: which order{chosen}")
        order = choose_order(before)
    tell(f"n-grams of {order} bytes")
    for kind, nats in ngram_nll(before, held_out.text, order).items():
        total = float(nats.sum(dtype=np.float64))
        found.append(held_out.baseline(f"n-grams of {order}{chosen}", kind, total))
    return found + compressed()


def measure_ppmd(
    opened: Model,
    n_tokens: int,
    tell: Callable[[str], None] = lambda line: None,
    known: Sequence[Baseline] = (),
) -> list[Baseline]:
    """Measure PPMd, with shorter and with longer contexts, on the tokens that `--adaptive` reads.

    Args:
        opened: the run.
        n_tokens: of the beginning of its validation text; two or more.
        tell: as in `measure_baselines`.
        known: what was measured already, which is not measured again.

    Returns:
        The baselines; none where PPMd is not installed.
    """
    if not has_ppmd():
        tell("PPMd, which reads like this, is not installed: pip install 'foliolm[baselines]'")
        return []
    tell("PPMd, on the same text")
    whole, found = opened.validation(), list[Baseline]()
    before = TokenText(opened.all_learned(), opened.tokenizer).whole()
    text = TokenText(whole[:n_tokens], opened.tokenizer)
    held_out = _HeldOut(text.whole(), text.n_characters, n_tokens - 1)
    part = f", the first {n_tokens:,} tokens" if n_tokens < len(whole) else ""
    for order in PPMD_ORDERS:
        name = _named(f"PPMd, order {order}{part}", before, PPMD_READS)
        same = next((baseline for baseline in known if baseline.name == name), None)
        found.append(same or _ppmd(name, before, held_out, order))
    return found


class _Piece(NamedTuple):
    """What a model reads at once."""

    known: Bytes
    """The text of the first token, which is no target."""
    text: Bytes
    """The text of the others."""
    targets: int


def _windows(validation: TokenText, text: Bytes, context_length: int) -> list[_Piece]:
    """Windows of a validation text, all of them or WINDOWS_APART."""
    from folio.evaluation.score import sampled_windows

    n = len(validation.tokens)
    windows = sampled_windows(n, context_length, WINDOWS_APART * context_length)
    edges = np.array([(w.start, w.start + 1, w.start + w.length + 1) for w in windows])
    ends = np.append(validation.places_of(np.arange(n)), len(text))
    return [
        _Piece(text[a:b], text[b:c], w.length)
        for w, (a, b, c) in zip(windows, ends[edges].tolist())
    ]


def _compressors(
    before: Bytes, held_out: _HeldOut, pieces: list[_Piece], goes_on: Callable[[], bool]
) -> list[Baseline]:
    """Compress the held-out text; by PPMd also its pieces, if there are some, each by itself."""
    nats = xz_bits(before, held_out.text, goes_on) * math.log(2)
    found = [held_out.baseline(_named("xz -9e", before, XZ_READS), "adaptive", nats)]
    for order in PPMD_ORDERS if has_ppmd() else ():
        name = _named(f"PPMd, order {order}", before, PPMD_READS)
        found.append(_ppmd(name, before, held_out, order, goes_on))
    if pieces:
        apart = [(p.known, p.text) for p in pieces]
        nats = ppmd_bits_apart(before, apart, goes_on) * math.log(2)
        text = np.concatenate([p.text for p in pieces])
        characters = int(np.count_nonzero(((text & 0xC0) != 0x80) & (text != 0)))
        read = _HeldOut(text, characters, sum(p.targets for p in pieces))
        of = f"PPMd, order {PPMD_ORDER_LONG}, in the model's windows"
        found.append(read.baseline(_named(of, before, PPMD_READS), "static", nats))
    return found


def _ppmd(
    name: str,
    before: Bytes,
    held_out: _HeldOut,
    order: int,
    goes_on: Callable[[], bool] = lambda: True,
) -> Baseline:
    nats = ppmd_bits(before, held_out.text, goes_on, order) * math.log(2)
    return held_out.baseline(name, "adaptive", nats)


def _named(compressor: str, before: Bytes, reads: int) -> str:
    """The name of a compressor, which says so if it reads only the end of the training text."""
    if len(before) <= reads:
        return compressor
    return f"{compressor}, after the last {reads >> 20} MB"


def _beside(work: Callable[[Callable[[], bool]], T]) -> Callable[[], T]:
    """Start some work in a thread; the returned function waits for its result, or raises its error.

    Args:
        work: is given a function to call often: when it returns False, the command is ending.
    """
    from concurrent.futures import Future
    from threading import Thread, main_thread

    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work(main_thread().is_alive))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run).start()
    return future.result


def write_baselines(run: Run, baselines: list[Baseline]) -> None:
    """Write baselines.json into the run."""
    write_json(run.baselines_file, [baseline.record() for baseline in baselines])


def read_baselines(run: Run) -> list[Baseline]:
    """Read baselines.json; empty if nothing was measured."""
    if not run.baselines_file.exists():
        return []
    records = read_json(run.baselines_file, list)
    return [made_of(Baseline, record, run.baselines_file) for record in records]


def compare(score: Score, baselines: list[Baseline], missing: str = "") -> str:
    """What a model's exact loss is worth, in a sentence.

    Two losses are told apart where they differ by more than two standard errors of the model's own;
    another text would make both higher or lower, so that this errs on the side of caution.

    Args:
        score: of the model.
        baselines: on the same text.
        missing: what the model learned and they did not, as in `OldTexts`; then its loss says
            nothing of how it learned.
    """
    loss, surely = score.nats_per_token, SURE * score.standard_error
    of = next((b for b in baselines if b.nats_per_character), None)
    n_characters = round(score.targets * of.nats_per_token / of.nats_per_character) if of else 0
    if n_characters < FEWEST_CHARACTERS:
        return (
            f"The validation text has {n_characters} characters, fewer than {FEWEST_CHARACTERS}: "
            f"nobody can tell by them which of these is better. Give more text."
        )

    def static(name: str) -> Baseline | None:
        return next((b for b in baselines if b.name.startswith(name) and b.kind == "static"), None)

    ppmd = _best_learning(baselines)
    counting = [b for b in map(static, ("n-grams", "PPMd")) if b]
    table = min(counting, key=lambda b: b.nats_per_token, default=None)
    frequencies = static("character frequencies")

    def is_below(other: Baseline | None) -> bool:
        return other is not None and other.nats_per_token - loss > surely

    def gap(other: Baseline) -> str:
        return _sure_gap(score, other)

    if missing:
        others = [b for b in (ppmd, table, frequencies) if b]
        other = next(filter(is_below, others), others[-1])
        return f"Your model is {gap(other)}{_unread(missing)}."
    if ppmd is not None and is_below(ppmd):
        return f"Your model is {gap(ppmd)}, {LEARNS}: it learned more than spelling."
    if table is not None and is_below(table):
        more = f", and is {gap(ppmd)}, {LEARNS}" if ppmd else ""
        return f"Your model is {gap(table)}: it learned more than a table of spellings knows{more}."
    if table is not None and frequencies is not None and is_below(frequencies):
        return (
            f"Your model is {gap(frequencies)}: it learned what tends to follow what. It is "
            f"{gap(table)}, a table of spellings, which more steps or a larger model can overtake."
        )
    if frequencies is not None:
        return (
            f"Your model is {gap(frequencies)}: nothing shows yet that it learned more than "
            f"counting characters tells. More steps come first."
        )
    return ""


def compare_beside(score: Score, baselines: list[Baseline], missing: str = "") -> str:
    """What a model's loss beside n-grams is worth, in a sentence; arguments as for `compare`."""
    ppmd = _best_learning(baselines)
    if ppmd is None:
        return ""
    gap = _sure_gap(score, ppmd)
    return f"With its window and n-grams mixed in, it is {gap}{_unread(missing) or f', {LEARNS}'}."


def _best_learning(baselines: list[Baseline]) -> Baseline | None:
    learning = [b for b in baselines if b.name.startswith("PPMd") and b.kind == "adaptive"]
    return min(learning, key=lambda b: b.nats_per_token, default=None)


def compare_reading(score: Score, others: list[Baseline], missing: str = "") -> str:
    """What an adaptive loss is worth, in a sentence, beside compressors that read the same, but for
    what is `missing`, as in `compare`.
    """
    best = min(others, key=lambda b: b.nats_per_token, default=None)
    if best is None:
        return ""
    gap = _gap(score.nats_per_token, best)
    return f"Learning as it reads, your model is {gap}{_unread(missing)}."


def _unread(missing: str) -> str:
    return f", which did not read {missing}" if missing else ""


def _sure_gap(score: Score, other: Baseline) -> str:
    if abs(score.nats_per_token - other.nats_per_token) <= SURE * score.standard_error:
        return f"not told apart from {other.name} by this text"
    return _gap(score.nats_per_token, other)


def _gap(loss: float, other: Baseline) -> str:
    share = loss / max(other.nats_per_token, 1e-9) - 1
    far = f"{abs(share):.0%}" if share < 10 else "far"
    return f"{far} {'below' if share < 0 else 'above'} {other.name}"


def _characters(training: TokenText, validation: TokenText) -> tuple[float, float]:
    """Nats of a text if every character is equally likely, and if each is as likely as in
    training.
    """
    counts, there = _code_points(training), _code_points(validation)
    n_kinds = np.count_nonzero(counts) + 1  # and one for all new characters
    chances = np.maximum(counts, 1) / (counts.sum() + 1)
    used = there > 0
    return float(there.sum() * np.log(n_kinds)), float(-(there[used] @ np.log(chances[used])))


def _code_points(text: TokenText) -> NDArray[np.int64]:
    counts = np.zeros(0x110000, np.int64)
    for piece in text.pieces():
        of = np.bincount(np.frombuffer(piece.encode("utf-32-le", errors="replace"), np.uint32))
        counts[: len(of)] += of
    return counts
