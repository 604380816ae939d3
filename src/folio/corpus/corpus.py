"""The corpus of a run: what the user named, read, compared, split and accounted for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from folio.config import require
from folio.corpus.builtin import BUILTIN
from folio.corpus.cleaning import CleaningConfig
from folio.corpus.document import Document, Part
from folio.corpus.duplicates import DuplicatesConfig, Families, find_families
from folio.corpus.files import STDIN, all_printable, is_source, local_path, portable, printable
from folio.corpus.leakage import measure_leakage
from folio.corpus.ledger import account, describe_sources
from folio.corpus.reading import Engine, Reading, ReadingOptions, read_files
from folio.corpus.split import (
    Split,
    SplitKind,
    set_apart,
    set_test_aside,
    split_by_files,
    split_documents,
    whole,
    without_duplicates,
    without_held_out,
)
from folio.corpus.statistics import describe
from folio.corpus.tika_server import tika_server
from folio.errors import UserError

LONGEST_NAME = 255
"""In characters, of a file on most systems; what is longer is a text."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Which text is read, and what is held out of it."""

    sources: tuple[str, ...] = ("python-docs",)
    """Files, folders, globs, zip and tar archives, `-` for standard input, or built-in:
    python-docs, shakespeare. Formats: txt, md, rst, html, pdf, docx, xlsx, pptx, odt, epub, mbox,
    eml, srt, vtt, csv, tsv, jsonl, ipynb and source code, each also as gz, bz2, xz or zst."""

    validation: tuple[str, ...] = ()
    """Out-of-domain files, held out in addition to a part of the sources; the model is evaluated on
    both. With a validation_fraction of 0 they are the only validation text."""

    encoding: str = "auto"
    """Encoding of plain text, csv and jsonl, and of other formats where they are not UTF-8 and
    declare none. `auto` follows a byte-order mark, else takes UTF-8, else guesses."""

    engine: Engine = "folio"
    """Who reads formats that Folio does not know: nobody (`folio`), or Apache Tika (`tika`)."""

    tika: str = "http://localhost:9998"
    """The Tika server, or the tika-server jar to start one from; nothing is ever downloaded."""

    text_column: str = ""
    """The csv column, jsonl key or xml element that holds the text; by default text, content, body,
    ... and all elements. `answer.body` is a key of a record inside the record."""

    documents: Literal["files", "lines"] = "files"
    """Whether a document of plain text is a file or a line. Marks such as <|endoftext|> always
    separate documents, and are not learned."""

    mail_headers: tuple[str, ...] = ()
    """Header fields of mail to keep, such as subject and from; none by default."""

    chat_times: bool = False
    """Whether the messages of a chat keep their times."""

    conversations: Literal["turns", "text"] = "turns"
    """How to read records with `messages`, or with `prompt` and `completion`, in JSON lines, JSON
    and Parquet: as turns, of which the model learns the answers, or as plain text."""

    markup: Literal["text", "source"] = "text"
    """What is learned from org, LaTeX and XML: the text, or the source as it is."""

    time_limit_seconds: float = 60.0
    """Time to extract one file; a file of many megabytes gets more."""

    cleaning: CleaningConfig = field(default_factory=CleaningConfig)

    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)

    split: SplitKind = "auto"
    """What is held out: the tail of each document; whole documents; or whole clusters of
    near-duplicates. `auto` takes clusters if there are enough of them; otherwise it takes tails
    of documents that resemble no other, or of the longest ones if all are alike. What other
    documents of these clusters repeat of held-out tails is left out of the training text."""

    validation_fraction: float = 0.1
    """Share of the characters to hold out."""

    validation_tokens: int = 10_000_000
    """At most so many tokens are held out, and the rest is trained on; an evaluation of more costs
    time and tells no more. Before there is a vocabulary, a character counts as a token."""

    test_fraction: float = 0.0
    """Share of the characters to hold out as test text. The best checkpoint is chosen on the
    validation text and then scored on the test text, which no choice has seen. If tails are held
    out, they are the test text, and the validation text is the head of each document."""

    canaries: int = 0
    """Random secrets to plant in the training text, a quarter of them once, twice, four and eight
    times each, so that folio recall can say how soon such a secret leaks. Planting changes what is
    learned; 12 is a good number."""

    def held_out_fraction(self, n_characters: int) -> float:
        """Share of so many characters that is held out for validation and test."""
        most = self.validation_tokens / max(n_characters, 1)
        return min(self.validation_fraction, most) + self.test_fraction

    def __post_init__(self) -> None:
        for name in ("sources", "validation"):
            # Recipes are UTF-8; file names need not be.
            object.__setattr__(self, name, tuple(map(portable, getattr(self, name))))
        if not self.sources:
            raise UserError("corpus.sources is empty. Name a file, a folder or python-docs.")
        lowest = 0 if self.validation else 1e-9
        if not lowest <= self.validation_fraction < 1:
            raise UserError(
                f"corpus.validation_fraction must be above 0 and below 1, got "
                f"{self.validation_fraction}; 0 needs a validation text: --validation FILE."
            )
        most = 1 - self.validation_fraction
        if not 0 <= self.test_fraction < most:
            raise UserError(
                f"corpus.test_fraction must be 0 to below {most:g}, got {self.test_fraction}: "
                f"beside a validation_fraction of {self.validation_fraction} something must be "
                f"left to train on."
            )
        if self.test_fraction and not self.validation_fraction:
            raise UserError(
                "corpus.test_fraction is given, but validation_fraction is 0. Give both, "
                "or evaluate other files with: folio evaluate RUN FILES"
            )
        require(self, "corpus", "0 (none) or more", lambda x: x >= 0, "canaries")
        require(self, "corpus", "1 or more", lambda x: x >= 1, "validation_tokens")
        require(self, "corpus", "above 0", lambda x: x > 0, "time_limit_seconds")


@dataclass(frozen=True)
class Corpus:
    """Documents with their split, families and ledger."""

    config: CorpusConfig
    reading: Reading
    families: Families
    split: Split

    @property
    def documents(self) -> list[Document]:
        """All documents; those of --validation come last."""
        return self.reading.documents

    @property
    def naive_split(self) -> Split | None:
        """The split by single documents, if the actual one is by families."""
        if self.split.kind != "clusters" or len(set(self.families.of)) == len(self.documents):
            return None
        n_sources = len(self.documents) - len(self.split.elsewhere)
        documents = self.documents[:n_sources]
        fraction = self.config.held_out_fraction(sum(d.n_characters for d in documents))
        return split_documents(documents, "documents", fraction)

    def family_numbers(self, parts: Sequence[Part]) -> list[int]:
        """The family of each part as a number; parts of one family have equal numbers."""
        of = {d.sha256: family for d, family in zip(self.documents, self.families.of)}
        numbers: dict[str, int] = {}
        return [numbers.setdefault(of[part.document.sha256], len(numbers)) for part in parts]

    def record(self) -> dict[str, Any]:
        """What corpus.json keeps: sources, counts, the split and the ledger."""
        return {
            "documents": len(self.documents),
            "sources": describe_sources(self.documents),
            "refused": self.reading.findings.refused,
            "skipped": dict(self.reading.findings.skipped),
            "split": self.split.kind,
            **account(self.reading, self.split),
            "cleaning": {
                "changes": dict(self.reading.tally.changes),
                "examples": self.reading.tally.examples,
            },
            "duplicates": self.families.record(),
        }

    @cached_property
    def leakage(self) -> tuple[dict[str, Any], list[NDArray[np.int64]]]:
        """Measure what leaks, with this split and with one by single documents.

        Returns:
            The record, and the leaked stretches of each validation part.
        """
        after, seen = measure_leakage(self.split.training, self.split.validation)
        naive = self.naive_split
        before = measure_leakage(naive.training, naive.validation)[0] if naive else None
        return {"after": after.record(), "before": before and before.record()}, seen

    def report(self) -> dict[str, Any]:
        """The full record that `folio corpus` shows."""
        return {
            "name": ", ".join(Path(source).name or source for source in self.config.sources[:3]),
            **self.record(),
            **describe(self.documents),
            "leakage": self.leakage[0],
            "warnings": self.reading.warnings(),
        }


def read_corpus(config: CorpusConfig, *, only_split: bool = False) -> Corpus:
    """Read everything that the config names, and split it.

    Args:
        config: what to read.
        only_split: compare documents only if there are several, which saves time for a single long
            text; `families` then says that all documents differ.

    Raises:
        UserError: a source that does not exist, or no text at all.
    """
    reading = read_documents(config.sources, config)
    n_sources = len(reading.documents)
    if config.validation:
        read_documents(config.validation, config, reading)
    documents, held_out = reading.documents[:n_sources], reading.documents[n_sources:]
    compare = not only_split or len(reading.documents) > 1
    families = find_families(reading.documents if compare else [], config.duplicates)
    if not compare:
        families = replace(families, of=[document.sha256 for document in reading.documents])
    fraction = config.held_out_fraction(sum(d.n_characters for d in documents))
    split = _split(documents, held_out, families.of, config, fraction)
    family_of = {d.sha256: family for d, family in zip(reading.documents, families.of)}
    if config.test_fraction:
        split = set_test_aside(split, config.test_fraction / fraction, family_of)
    if config.duplicates.remove != "none":
        split = without_duplicates(split, config.duplicates.remove, family_of)
    return Corpus(config, reading, families, without_held_out(split, family_of))


def _split(
    documents: Sequence[Document],
    held_out: Sequence[Document],
    families: Sequence[str],
    config: CorpusConfig,
    fraction: float,
) -> Split:
    """Split documents, given those held out by --validation; `families` covers both, in
    that order.
    """
    if not held_out:
        return split_documents(documents, config.split, fraction, families)
    if not config.validation_fraction:
        return split_by_files(documents, held_out, families)
    apart = set_apart(documents, held_out, families)
    split = split_documents(apart.training, config.split, fraction, apart.families)
    elsewhere = [whole(document) for document in held_out]
    return replace(split, elsewhere=elsewhere, dropped=apart.dropped | split.dropped)


def read_documents(
    sources: Sequence[str], config: CorpusConfig, reading: Reading | None = None
) -> Reading:
    """Read the documents of some sources and add them to a reading, or to a new one.

    Raises:
        UserError: a source that does not exist, or no text in any of them.
    """
    reading = reading or Reading()
    before = len(reading.documents)
    with tika_server(config.tika if config.engine == "tika" else "") as server:
        options = reading_options(config, server)
        paths: list[str] = []
        for source in sources:
            if source == STDIN or is_source(source):
                paths.append(source)
            elif source in BUILTIN:
                read_files(paths, options, reading)
                paths = []
                reading.add(BUILTIN[source]())
            else:
                raise UserError(_no_such_source(source, local_path(source)))
        read_files(paths, options, reading)
    if len(reading.documents) == before:
        raise UserError(_no_text(sources, reading))
    return reading


def reading_options(config: CorpusConfig, tika: str = "") -> ReadingOptions:
    """How files are read; `tika` is the address of a running server."""
    shared = {field.name for field in fields(ReadingOptions)} - {"tika"}
    return ReadingOptions(tika=tika, **{name: getattr(config, name) for name in shared})


def _no_text(sources: Sequence[str], reading: Reading) -> str:
    refused = [
        f"{'standard input' if name == STDIN else name}: {why}"
        for name, why in reading.findings.refused.items()
    ]
    if len(refused) == len(sources) == 1:
        return f"{refused[0]}."
    reasons = "".join(f" {reason}." for reason in refused[:3])
    skipped = ", ".join(f"{n} {end}" for end, n in reading.findings.skipped.most_common(5))
    if skipped:
        reasons += f" Not known are {skipped}; --corpus.engine tika reads more."
    return f"There is no text in {all_printable(sources)}: 0 characters were read.{reasons}"


def _no_such_source(source: str, path: Path) -> str:
    if len(source) > LONGEST_NAME or "\n" in source:
        return (
            f"There is no file, folder or built-in corpus '{printable(source[:40])}...'. If that "
            f"is the text itself, put it into a file, or pipe it to: folio train -"
        )
    siblings = []
    if path.parent.is_dir():
        siblings = [str(p.relative_to(path.parent)) for p in path.parent.iterdir()]
        siblings = [str(path.parent / s) if path.parent != Path() else s for s in siblings]
    nearest = next(iter(difflib.get_close_matches(source, [*BUILTIN, *siblings], n=1)), None)
    hint = (
        f"Did you mean '{printable(nearest)}'?"
        if nearest
        else f"Built in are {', '.join(BUILTIN)}."
    )
    return f"There is no file, folder or built-in corpus '{printable(source)}'. {hint}"
