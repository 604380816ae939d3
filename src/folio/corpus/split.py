"""Decides which characters are trained on and which are held out; the two never overlap."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest
from itertools import chain
from typing import Literal

import numpy as np

from folio.corpus.document import Document, Part
from folio.corpus.leakage import shared_stretches
from folio.errors import UserError

SplitKind = Literal["auto", "tail", "documents", "clusters"]
MOST_RESTS = 16
"""Parts into which a document is divided at most, the longest ones: each is read from the start of
the document."""
LONGER = 2
"""How many times as long as the related text that the user holds out a document must be to be
trained on without that text, as a book is without one of its chapters; a shorter one is a version
of it."""
SCRAP = 0.1
"""Share of the text that is wanted below which held-out text says nothing about the loss."""
SHORTEST_REST = 200
"""In characters; what is left of a document around held-out text is trained on if it is at least as
long."""


@dataclass(frozen=True)
class Split:
    """Parts of documents; every character of the input is in one of them or was dropped."""

    kind: str
    training: list[Part]
    validation: list[Part]
    elsewhere: list[Part] = field(default_factory=list)
    """Out-of-domain text: held out, from files that the user named."""
    test: list[Part] = field(default_factory=list)
    """Held out even from the choice of a checkpoint, which uses the validation text."""
    dropped: dict[str, list[Part]] = field(default_factory=dict)
    """What is in none of them, by reason."""


def split_documents(
    documents: Sequence[Document],
    kind: SplitKind,
    fraction: float,
    families: Sequence[str] | None = None,
) -> Split:
    """Hold out about `fraction` of the characters.

    Args:
        documents: the corpus.
        kind: `tail` holds out the end of each document; `documents` whole documents in the order of
            their sha256, so that neither file names nor their order matter; `clusters` whole
            families in the same way; `auto` is `clusters` if that comes near the fraction,
            otherwise the tails of documents that are alone in their family, if these are enough.
            Where all are one family, or all but a scrap, it is the tail of the longest, or of a few
            of them.
        fraction: share of the characters to hold out.
        families: which family each document belongs to; None if each is a family of its own.
    """
    talks = [document.is_conversation for document in documents]
    if any(talks) and not all(talks):
        return _split_apart(documents, kind, fraction, families)
    if any(talks):
        return _split_conversations(documents, kind, fraction, families)
    if kind in ("documents", "clusters") and len(documents) == 1:
        raise UserError(
            f"corpus.split must be 'tail' or 'auto' for a single document, got '{kind}'. "
            f"Give several documents, or --corpus.split tail."
        )
    together = [document.sha256 for document in documents]
    if families is not None and kind != "documents":
        together = list(families)
    if kind == "tail":
        return _tails(documents, fraction)
    if kind == "auto" and len(set(together)) == 1:
        return _longest_tails(documents, fraction)
    held_out = _whole_families(documents, together, fraction)
    sides = [family in held_out for family in together]
    if not any(sides):
        raise UserError(
            f"corpus.split must be 'tail' or 'auto' for a single cluster, got '{kind}': all "
            f"{len(documents)} documents are copies of each other, or nearly. "
            f"Give --corpus.split tail."
        )
    total = _characters(documents)
    share = _characters(d for d, out in zip(documents, sides) if out) / max(total, 1)
    if kind == "auto" and not fraction / 2 <= share <= fraction * 2:
        alone = _without_relatives(documents, together)
        # At most half of each document is held out, and that must give at least half of what is
        # wanted.
        n_characters = sum(d.n_characters for d in documents if d.sha256 in alone)
        if n_characters > fraction * total:
            return _tails(documents, min(0.5, fraction * total / n_characters), alone)
        if share < SCRAP * fraction:
            return _longest_tails(documents, fraction)
    return Split(
        "documents" if kind == "documents" else "clusters",
        [whole(d) for d, out in zip(documents, sides) if not out],
        [whole(d) for d, out in zip(documents, sides) if out],
    )


def _split_apart(
    documents: Sequence[Document],
    kind: SplitKind,
    fraction: float,
    families: Sequence[str] | None,
) -> Split:
    """Hold out a share of the conversations and, separately, a share of the other text."""
    splits: list[Split] = []
    for talks in (False, True):
        of = [i for i, document in enumerate(documents) if document.is_conversation == talks]
        own = None if families is None else [families[i] for i in of]
        splits.append(split_documents([documents[i] for i in of], kind, fraction, own))
    text, talk = splits
    dropped = {reason: list(parts) for reason, parts in text.dropped.items()}
    for reason, parts in talk.dropped.items():
        dropped.setdefault(reason, []).extend(parts)
    training, validation = text.training + talk.training, text.validation + talk.validation
    return Split(text.kind, training, validation, dropped=dropped)


def _split_conversations(
    documents: Sequence[Document],
    kind: SplitKind,
    fraction: float,
    families: Sequence[str] | None,
) -> Split:
    """Hold out whole conversations: the end of one alone is not a conversation."""
    if kind == "tail" or len(documents) == 1:
        raise UserError(
            f"A conversation is held out as a whole, but corpus.split is '{kind}' and there "
            f"{'is one' if len(documents) == 1 else f'are {len(documents):,}'}. Leave corpus.split "
            f"out, and give at least two, or --validation FILE --corpus.validation-fraction 0."
        )
    alone = [document.sha256 for document in documents]
    together = {"clusters": alone if families is None else list(families), "documents": alone}
    sides: list[bool] = []
    chosen = ""
    for chosen in ("clusters", "documents") if kind == "auto" else (kind,):
        held_out = _whole_families(documents, together[chosen], fraction)
        sides = [family in held_out for family in together[chosen]]
        n_characters = _characters(d for d, out in zip(documents, sides) if out)
        if fraction / 2 <= n_characters / max(_characters(documents), 1) <= fraction * 2:
            break
    if not any(sides):
        raise UserError(
            f"All {len(documents):,} conversations are copies of each other, or nearly. Give "
            f"others, or --corpus.split documents where they differ a little."
        )
    return Split(
        chosen,
        [whole(d) for d, out in zip(documents, sides) if not out],
        [whole(d) for d, out in zip(documents, sides) if out],
    )


def split_by_files(
    documents: Sequence[Document], validation: Sequence[Document], families: Sequence[str]
) -> Split:
    """Hold out the documents that the user names, and nothing else.

    Args:
        documents: to train on, except those that are versions of a held-out one.
        validation: to hold out.
        families: of the former, then of the latter.
    """
    apart = set_apart(documents, validation, families)
    parts = [whole(d) for d in apart.training]
    return Split("files", parts, [whole(d) for d in validation], dropped=apart.dropped)


def set_test_aside(split: Split, share: float, family_of: dict[str, str]) -> Split:
    """Turn a share of the held-out text into test text, which no choice depends on.

    Args:
        split: what is trained on and what is held out. Of held-out documents, whole families become
            test text. Of tails, the ends do, and the rest of their length is held out at the head
            of the document instead: just before the test text it would be the text most similar to
            it, which the model would miss (docs/experiments.md, "Two percent of the text").
        share: share of the held-out characters.
        family_of: the family of each sha256.

    Raises:
        UserError: one of the two would be empty.
    """
    training, validation, test = split.training, [], []
    if split.kind == "tail" and any(p.document.is_conversation for p in split.validation):
        raise UserError(
            "corpus.test_fraction cuts tails of text in two, and conversations stand beside it. "
            "Give --corpus.split documents, or --corpus.test-fraction 0."
        )
    if split.kind == "tail":
        heads = {p.document.sha256: len(p) - round(share * len(p)) for p in split.validation}
        for part in split.validation:
            n = heads[part.document.sha256]
            validation.append(Part(part.document, 0, n))
            test.append(Part(part.document, part.start + n, part.stop))
        shifts = [heads.get(part.document.sha256, 0) for part in training]
        training = [Part(p.document, p.start + n, p.stop + n) for p, n in zip(training, shifts)]
    else:
        families = [family_of[part.document.sha256] for part in split.validation]
        documents = [part.document for part in split.validation]
        tested = _whole_families(documents, families, share)
        for part, family in zip(split.validation, families):
            (test if family in tested else validation).append(part)
    if not (any(validation) and any(test)):
        raise UserError(
            "There is too little held-out text for a validation and a test part. "
            "Give more text, a larger corpus.test_fraction, or none."
        )
    return replace(split, training=training, validation=validation, test=test)


@dataclass(frozen=True)
class SetApart:
    """Documents to train on beside a held-out text, and the others by reason."""

    training: list[Document]
    families: list[str]
    dropped: dict[str, list[Part]]


def set_apart(
    documents: Sequence[Document], validation: Sequence[Document], families: Sequence[str]
) -> SetApart:
    """Take out the documents that share a family with one of `validation`, except those that are
    far longer than what is held out of it and have most of it word for word: of these,
    `without_held_out` takes that text out. An edited text could not be taken out whole.

    Raises:
        UserError: no document is left.
    """
    held_out = {document.sha256: document.n_characters for document in validation}
    family_of = dict(zip((d.sha256 for d in validation), families[len(documents) :]))
    alike = Counter[str]()
    for sha256, n_characters in held_out.items():
        alike[family_of[sha256]] += n_characters
    apart = SetApart([], [], defaultdict(list))
    longer = {
        document.sha256: document
        for document, family in zip(documents, families)
        if alike[family] and document.n_characters >= LONGER * alike[family]
        if not document.is_conversation  # which is learned as a whole
    }
    shared: dict[str, int] = {}
    if longer:  # mostly none is, and then nothing has to be compared
        stretches = shared_stretches([*map(whole, longer.values())], [*map(whole, validation)])
        shared = {sha: int(np.diff(found).sum()) for sha, found in zip(longer, stretches)}
    for document, family in zip(documents, families):
        if document.sha256 in held_out:
            apart.dropped["also in validation"].append(whole(document))
        elif 2 * shared.get(document.sha256, 0) < alike[family]:
            apart.dropped["near duplicate of validation"].append(whole(document))
        else:
            apart.training.append(document)
            apart.families.append(family)
    if not apart.training:
        raise UserError(
            "Every document, or much of it, or a version of it, stands in --validation too and is "
            "left out for that, so nothing is left to train on. Name less to hold out, or let "
            "--corpus.validation-fraction hold out the end of the text."
        )
    return apart


def without_duplicates(split: Split, remove: str, family_of: dict[str, str]) -> Split:
    """Leave copies, or all of a family but its longest document, out of the training text.

    Args:
        split: of whole documents, or of their tails.
        remove: `exact` or `near`.
        family_of: the family of each sha256.
    """
    best: dict[str, Part] = {}
    for part in split.training:
        key = part.document.sha256 if remove == "exact" else family_of[part.document.sha256]
        if key not in best or _rank(part) > _rank(best[key]):
            best[key] = part
    kept = {id(part) for part in best.values()}
    contents = {part.document.sha256 for part in best.values()}
    dropped = {reason: list(parts) for reason, parts in split.dropped.items()}
    for part in split.training:
        if id(part) not in kept:
            kind = "copy" if part.document.sha256 in contents else "near duplicate"
            dropped.setdefault(f"{kind} of another document", []).append(part)
    training = [part for part in split.training if id(part) in kept]
    return replace(split, training=training, dropped=dropped)


def without_held_out(split: Split, family_of: dict[str, str]) -> Split:
    """Leave held-out text out of the training documents that have a relative of which some is held
    out: a tail may stand in other documents of its family, and a chapter that the user holds out in
    its book. What they share with the held-out text of others goes, too, so that less is known
    rather than more.

    Args:
        split: of whole documents, or of their tails. Documents that it chose by family have no
            relatives on the other side, and where the user chose `documents` these stay.
        family_of: the family of each sha256.

    Raises:
        UserError: no text is left to train on.
    """
    named = split.validation if split.kind == "files" else split.elsewhere
    tails = [*split.validation, *split.test] if split.kind == "tail" else []
    for held_out in (named, tails):
        split = _without_shared(split, held_out, family_of)
    return split


def _without_shared(split: Split, held_out: Sequence[Part], family_of: dict[str, str]) -> Split:
    """Leave text out of training that stands in relatives, some of which are held out."""
    n_texts = Counter(family_of.values())
    cut = {family_of[part.document.sha256] for part in held_out}
    cut = {family for family in cut if n_texts[family] > 1}
    documents = {part.document.sha256 for part in held_out}
    related = [
        part
        for part in split.training
        if family_of[part.document.sha256] in cut
        # What a text repeats of itself stays, where it is the only one that is cut.
        and documents != {part.document.sha256}
        and not part.document.is_conversation
    ]
    if not related:
        return split
    rests = {
        id(part): _without(part, stretches.ravel().tolist())
        for part, stretches in zip(related, shared_stretches(related, held_out))
    }
    training = [rest for part in split.training for rest in rests.get(id(part), ([part], []))[0]]
    if not any(training):
        raise UserError(
            "All text stands in the held-out text too, so nothing is left to train on. Give other "
            "text beside it, or name what is held out: --validation FILE "
            "--corpus.validation-fraction 0."
        )
    if repeated := [part for _, left_out in rests.values() for part in left_out]:
        dropped = {reason: list(parts) for reason, parts in split.dropped.items()}
        dropped.setdefault("also in validation", []).extend(repeated)
        split = replace(split, dropped=dropped)
    return replace(split, training=training)


def _without(part: Part, edges: list[int]) -> tuple[list[Part], list[Part]]:
    """Divide a part into what stays and what goes, given where each stretch of the latter begins
    and ends.
    """
    if not edges:
        return [part], []
    edges = [0, *edges, len(part)]
    rests = [(a, b) for a, b in zip(edges[::2], edges[1::2]) if b - a >= SHORTEST_REST]
    rests = sorted(nlargest(MOST_RESTS, rests, key=lambda rest: rest[1] - rest[0]))
    edges = [0, *chain.from_iterable(rests), len(part)]
    gone = [(a, b) for a, b in zip(edges[::2], edges[1::2]) if a < b]
    kept, left_out = (
        [Part(part.document, part.start + a, part.start + b) for a, b in pieces]
        for pieces in (rests, gone)
    )
    return kept, left_out


def _rank(part: Part) -> tuple[int, str]:
    return len(part), part.document.sha256


def _without_relatives(documents: Sequence[Document], families: Sequence[str]) -> set[str]:
    """The sha256 of documents whose family has no other text."""
    members: dict[str, set[str]] = defaultdict(set)
    for document, family in zip(documents, families):
        members[family].add(document.sha256)
    return {sha for texts in members.values() if len(texts) == 1 for sha in texts}


def _longest_tails(documents: Sequence[Document], fraction: float) -> Split:
    """Hold out ends of the longest documents: as few as suffice without more than half of one."""
    texts = {document.sha256: document for document in documents}
    total = _characters(texts.values())
    longest: set[str] = set()
    n_characters = 0
    for document in sorted(texts.values(), key=lambda d: (-d.n_characters, d.sha256)):
        longest.add(document.sha256)
        n_characters += document.n_characters
        if n_characters >= 2 * fraction * total:
            break
    return _tails(documents, fraction * (total / max(n_characters, 1)), longest)


def _tails(
    documents: Sequence[Document], fraction: float, cut_only: set[str] | None = None
) -> Split:
    """Hold out the end of each document, or of those named by their sha256."""
    training, validation, repeated = [], [], []
    seen: set[str] = set()
    for document in documents:
        if document.sha256 in seen:  # the head of a copy would reveal the tail of the other
            repeated.append(whole(document))
            continue
        seen.add(document.sha256)
        if cut_only is not None and document.sha256 not in cut_only:
            training.append(whole(document))
            continue
        cut = int(document.n_characters * (1 - fraction))
        training.append(Part(document, 0, cut))
        validation.append(Part(document, cut, document.n_characters))
    dropped = {"copy of another document": repeated} if repeated else {}
    return Split("tail", training, validation, dropped=dropped)


def _whole_families(
    documents: Sequence[Document], families: Sequence[str], fraction: float
) -> set[str]:
    """Choose families to hold out: in the order of their names, each that still fits; else the
    smallest.

    A family larger than the validation part never fits, and stays in training.
    """
    sizes: Counter[str] = Counter()
    for document, family in zip(documents, families):
        sizes[family] += document.n_characters
    if len(sizes) < 2:
        return set()
    target = fraction * sum(sizes.values())
    chosen: set[str] = set()
    total = 0
    for family in sorted(sizes):
        if total + sizes[family] <= target:
            chosen.add(family)
            total += sizes[family]
    return chosen or {min(sizes, key=lambda family: (sizes[family], family))}


def whole(document: Document) -> Part:
    """All of a document as one part."""
    return Part(document, 0, document.n_characters)


def _characters(documents: Iterable[Document]) -> int:
    return sum(document.n_characters for document in documents)
