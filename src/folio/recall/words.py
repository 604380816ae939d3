"""Puts the results of recall in words: the verdict, and the lines that `folio recall` prints."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from folio.console import table
from folio.evaluation.shares import Share, of_new_text
from folio.recall.heart import TRIES, ByHeart
from folio.recall.measure import Recall
from folio.recall.secrets import CANDIDATES, Secret
from folio.recall.twin import TRIES as TWIN_TRIES
from folio.recall.twin import Gain

FEWEST_COPIED = 0.02
"""Share of copied text above which a model is said to copy, if it exceeds the author's."""

SURE_OF_COPIES = 3.0
"""Standard errors by which it must exceed the author's. Simulated, at two new text of the author
himself was called a copy in 2 to 16 cases of 100, as all of it shares one training text; at three
in 0 to 7."""

SHOWN_SECRETS = 20
SHOWN_DOCUMENTS = 5

NOT_SHOWN = (
    "It does not show that nothing else can be led out of the model: other prefixes, more tries "
    "and other ways to draw were not looked at, and whoever has the file of the model can try "
    "them all.",
    "A secret that stands in the text once can come out of a run whose loss is healthy. What "
    "must not come out must not stand in the text.",
    "Text that was found says what this model does. It says nothing about what may be done "
    "with it.",
)


@dataclass(frozen=True)
class Verdict:
    """The verdict, a sentence, and what to do. Verdicts are `learned`, `by heart`, `copies` or
    `nothing`; on another text than the model's own, `found` or `not found`.
    """

    kind: str
    sentence: str
    advice: str


def how_often(number: float) -> str:
    """How often something was read, in words.

    >>> how_often(1.02), how_often(0.6), how_often(1.4), how_often(12.3)
    ('once', '0.6 times', '1.4 times', '12 times')
    """
    if round(number, 1) == 1:
        return "once"
    return f"{number:.1f} times" if number < 2 else f"{number:.0f} times"


def verdict_of(recall: Recall) -> Verdict:
    """The answer, by the author as the yardstick; secrets that come out before all else."""
    verdict, secrets = _verdict(recall), recall.secrets.coming_out
    if not secrets:
        return verdict
    n = len(secrets)
    whose = recall.text or "its text"
    what = f"{n} secrets of {whose} come" if n > 1 else f"A secret of {whose} comes"
    advice = "Take them out of the text and train anew: nothing else keeps them in."
    return Verdict(
        verdict.kind,
        f"{what} out within a million tries. {verdict.sentence}",
        verdict.advice if recall.text else advice,
    )


def _verdict(recall: Recall) -> Verdict:
    if recall.text:
        return _of_another_text(recall)
    heart, run = recall.heart, shlex.quote(recall.run)
    again = f"folio train {shlex.quote(f'{recall.run}/recipe.toml')}"
    known, new = heart.text["in 100 tries"], heart.new["in 100 tries"]
    if is_copying(recall.model.copied, recall.author.copied, recall.sources.known):
        return Verdict(
            "copies",
            f"It copies: {recall.model.copied.value:.0%} of what it writes stands in its text, "
            f"{recall.length} characters in a row and more; {_of_author(recall)}.",
            f"Train for fewer minutes, on more text, or with dropout: {again} "
            f"--model.residual-dropout 0.2",
        )
    if known.count and known.above(new):
        return Verdict(
            "by heart",
            f"It learned, and knows {known.count:,} of {known.of:,} passages by heart "
            f"({known.value:.1%}): they come within 100 tries, and "
            f"{of_new_text(new.count, new.of)}.",
            f"Train with dropout: {again} --model.residual-dropout 0.2 (or --training.goldfish 8)",
        )
    if not recall.learned:
        return Verdict(
            "nothing",
            f"It has learned nothing yet: bare frequencies predict new text as well; "
            f"{_of_copies(recall)}.",
            f"Train it for longer: folio resume {run} --minutes 10",
        )
    found = none_counted(heart) or "Nothing of its text was found by heart"
    if known.count:
        found = (
            f"{known.count} of {known.of:,} passages were found by heart, and "
            f"{of_new_text(new.count, new.of)}{', which chance can explain' if new.of else ''}"
        )
    sentence = f"It learned. {found}, and {_of_copies(recall)}."
    advice = f"Let it write: folio sample {run}"
    if not heart.suffix_characters:
        advice = (
            f"Try shorter ones: folio recall {run} --length 20, or train a model that sees "
            f"more: {again} --model.context-length 64"
        )
    if (often := heart.repeated["in 100 tries"]).count:
        sentence += (
            f" But of {often.of:,} passages that stand more than five times it knows "
            f"{often.count:,}."
        )
        advice = (
            f"What must not come out must not stand there so often: {again} "
            f"--corpus.duplicates.remove near"
        )
    return Verdict("learned", sentence, advice)


def is_copying(copied: Share, author: Share, known: bool = True) -> bool:
    """Whether so much of what was written is copied as the author and chance do not explain.

    Where it is not `known` which documents are nearly alike, what the author copies explains
    nothing.
    """
    explained = known and not copied.above(author, SURE_OF_COPIES)
    return copied.value > FEWEST_COPIED and not explained


def _of_another_text(recall: Recall) -> Verdict:
    """What comes of a text, of which nobody knows whether the model read it."""
    known, copied = recall.heart.text["in 100 tries"], recall.model.copied
    often = recall.heart.repeated["in 100 tries"]
    found = none_counted(recall.heart) or (
        f"{known.count:,} of {known.of:,} passages of {recall.text} come within 100 tries"
    )
    copies = _of_copies(recall)
    if copied.count:
        copies = (
            f"{copied} of what it wrote stands there, {recall.length} characters in a row and "
            f"more; {_of_author(recall)}"
        )
    sentence = f"{found}, and {copies}."
    if often.count:
        sentence += f" Of {often.of:,} that stand there more than five times {often.count:,} come."
    if not (known.count or often.count or copied.count or recall.secrets.coming_out):
        return Verdict(
            "not found", sentence, "More --samples and more --passages look further than this."
        )
    return Verdict(
        "found",
        f"{sentence} Whether it read them or guesses them is not known: no text is known here "
        f"that it did not read.",
        "The page shows what was found, and where it stands.",
    )


def none_counted(heart: ByHeart) -> str:
    """Why no passage of the text counts, as a clause; empty where some do."""
    if heart.text["at once"].of:
        return ""
    if not heart.suffix_characters:
        return (
            "No passage could be tried, as the documents, or what the model sees at once, are too "
            "short"
        )
    often = heart.repeated["at once"].of
    left_out = [f"{often:,} stand more than five times"] if often else []
    if heart.n_patterns:
        left_out.append(f"{heart.n_patterns:,} are patterns (rules, columns)")
    return f"No passage counts: {' and '.join(left_out)}"


def _of_copies(recall: Recall) -> str:
    """What was found of copies, as a clause."""
    copied = recall.model.copied
    if not copied.of:
        return f"no text that it wrote has the {recall.length} characters of a copy"
    if not copied.count:
        return "no copy was found in what it wrote"
    if copied.value <= recall.author.copied.value and recall.sources.known:
        return "it copies no more than the author does"
    return f"{copied} of what it wrote is copied; {_of_author(recall)}"


def _of_author(recall: Recall) -> str:
    """The yardstick of copies, as a clause."""
    copied = recall.author.copied
    if not copied.of:
        return "no text of the author is long enough to compare with"
    near = "" if recall.sources.known else ", near-copies included"
    return f"of the author's own pages {copied} stands in the others{near}"


def author_named(recall: Recall) -> str:
    """What the author's text is looked up in, for a table and a curve."""
    if recall.sources.known:
        return "the author, each part against the others"
    return "the author, near-copies included"


def lines_of(recall: Recall) -> Iterator[str]:
    """The report for a terminal."""
    heart, verdict = recall.heart, verdict_of(recall)
    yield (
        f"{recall.run}, {recall.checkpoint}: {recall.training_characters:,} characters"
        f"{of_which_text(recall)}\n"
    )
    yield f"{verdict.sentence}\n{verdict.advice}\n"
    if recall.missing:
        yield f"{not_looked_in(recall)}\n"
    rows = [
        [f"  {name}, {n:,} {which}", *_cells(shares)]
        for name, which, shares in (
            (recall.looked_in, "passages", heart.text),
            ("of it", "that stand > 5 times", heart.repeated),
            ("new text", "passages", heart.new),
        )
        if (n := shares["at once"].of)
    ]
    if rows:
        head = [
            f"passages of {heart.suffix_characters:.0f} characters,\n"
            f"after at least the {heart.prefix_characters:.0f} before them",
            *TRIES,
        ]
        yield table(head, rows)
    if heart.n_patterns:
        yield (
            f"  {heart.n_patterns:,} passages are patterns (rules, columns): left out; it goes on "
            f"with {heart.patterns['in 100 tries'].value:.0%} of them in 100 tries"
        )
    n = sum(len(match.codes) for sample in recall.samples for match in sample.matches)
    head = [
        f"copies, in {n:,} characters\nthat it wrote at {recall.config.temperature:g}",
        f"of >= {recall.length}",
        "nearly",
        "longest",
    ]
    yield table(head, [[f"  {name}", *cells] for name, cells in copy_rows(recall)])
    if heart.told_apart is not None:
        yield (
            f"recognized: a passage that it read is "
            f"{heart.median_new_bits - heart.median_bits:.0f} bits less surprising "
            f"({heart.median_new_bits:.0f} -> {heart.median_bits:.0f}); told apart from new ones "
            f"{100 * heart.told_apart:.0f} times in 100"
        )
    yield from _twin_lines(recall)
    yield from _secret_lines(recall)
    for times, n, bits, exposure in canary_rows(recall):
        yield f"canaries that stand {times}: {n}, {bits} bits, exposure {exposure}"
    if not recall.sources.known:
        yield "documents are not known by name, as of a store or an old run"


def of_which_text(recall: Recall) -> str:
    """Say which text was looked in, or how often the model read its own."""
    return f" of {recall.text}" if recall.text else f", read {how_often(recall.times_read)}"


def not_looked_in(recall: Recall) -> str:
    """Say which text of the runs before it was not looked in."""
    return f"Not looked in: {recall.missing}, which is not there any more."


def _twin_lines(recall: Recall) -> Iterator[str]:
    if (twin := recall.twin) is None:
        return
    yield (
        f"twin: of two models that read one half of the documents each, the one that read a "
        f"passage finds it {gain_in_words(twin.gain)} less surprising; {twin.by_reading.count:,} "
        f"of {twin.by_reading.of:,} come within {TWIN_TRIES} tries from that one alone"
    )
    for document, gain in twin.standing_out()[:SHOWN_DOCUMENTS]:
        yield f"  {recall.sources.name(document)}: {gain_in_words(gain)}"


def gain_in_words(gain: Gain) -> str:
    """The mean and its error.

    >>> gain_in_words(Gain(12.34, 0.82, 100))
    '12.3 ± 0.8 bits'
    """
    return f"{gain.bits:.1f} ± {gain.error:.1f} bits"


def _secret_lines(recall: Recall) -> Iterator[str]:
    secrets = recall.secrets
    if secrets.absent:
        yield f"not in {recall.looked_in}, of those given: {', '.join(secrets.absent)}"
    if not secrets.kinds:
        yield f"secrets: no e-mail address, number or key was found in {recall.looked_in}"
        return
    tried = secrets.n_tried
    of = f" of {tried:,} that were tried" if tried < secrets.n_different else ""
    yield (
        f"secrets in {recall.looked_in}: {secrets.in_words}; {len(secrets.coming_out)}{of} come out"
    )
    for secret in secrets.coming_out[:SHOWN_SECRETS]:
        stands = f"stands {_times(secret.stands)}"
        yield f"  {secret.shown}  {tries_of(secret)}, {stands}, {secret.place}"


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"


def canary_rows(recall: Recall) -> list[list[str]]:
    """Rows about canaries: how often they occur, how many, their median bits and exposure."""
    rows = [
        [
            _times(of.times),
            str(len(of.bits)),
            f"{np.median(of.bits):.0f}",
            f"{np.median(of.exposures):.1f}",
        ]
        for of in recall.canaries
    ]
    if recall.other_canaries:
        n, least = len(recall.other_canaries), min(recall.other_canaries)
        rows.append(["never", f"{n * CANDIDATES:,}", f"{least:.0f} at least", "-"])
    return rows


def tries_of(secret: Secret) -> str:
    """How soon a secret comes out, in words."""
    if secret.written:
        return "stands in what it wrote"
    return f"comes once in {max(2**secret.bits, 1):,.0f} tries"


def copy_rows(recall: Recall) -> list[tuple[str, list[str]]]:
    """The model, the author and the held-out text, with copies, near copies and the longest."""
    rows = [("what it wrote", recall.model)]
    if recall.guarded is not None:
        rows.append((f"what it wrote with --novel {recall.config.novel}", recall.guarded))
    rows.append((author_named(recall), recall.author))
    if recall.held_out is not None:
        rows.append(("the author, new text", recall.held_out))

    def shown(share: Share) -> str:
        return str(share) if share.of else "-"  # all texts are too short for a copy

    return [(name, [shown(of.copied), shown(of.nearly), str(of.longest)]) for name, of in rows]


def _cells(shares: dict[str, Share]) -> list[str]:
    return [str(s.count) + (f"  {100 * s.value:.1f} %" if s.count else "") for s in shares.values()]
