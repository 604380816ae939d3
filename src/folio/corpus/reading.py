"""Files -> documents: finds, extracts and cleans them, and records what happened to each."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from folio.console import say
from folio.corpus.archives import head_of
from folio.corpus.cleaning import (
    CleaningConfig,
    Tally,
    boilerplate_lines,
    clean,
    cleaned,
    find_boilerplate,
)
from folio.corpus.document import Document, Pieces, Provenance, make_document
from folio.corpus.extraction import Extraction, Task, extract, missing_library
from folio.corpus.files import STDIN, Findings, SourceFile, find_files, is_plain
from folio.corpus.formats.first_look import begins_as_mailbox, first_look
from folio.corpus.formats.known import (
    LINES,
    MAILBOX,
    MARKED_UP,
    PROSE_SUFFIXES,
    TIKA,
    Format,
    format_of,
)
from folio.corpus.formats.passage import Notes
from folio.corpus.readers import PIECE_BYTES, keep_stdin, read_text_file
from folio.errors import UserError
from folio.storage import sha256_of

Engine = Literal["folio", "tika"]
SHOWN_REFUSED = 20
LARGE_BYTES = 10 << 30
"""Of files; above it the user is told of another way."""
RTF = b"{\\rtf"
"""The first bytes of a Rich Text file, which is ASCII but not the text it represents."""


@dataclass
class Reading:
    """Documents, and the account of how they were made."""

    documents: list[Document] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    tally: Tally = field(default_factory=Tally)
    n_bytes: int = 0
    """Size of the files; equals what was kept, dropped and rewritten."""

    def add(self, documents: Iterable[Document]) -> None:
        """Add documents that were neither extracted nor cleaned."""
        for document in documents:
            if document.n_characters:
                self.documents.append(document)
                self.n_bytes += document.n_bytes

    def count(self, n_bytes: int, n_text: int, notes: Notes, rest: str) -> None:
        """Account for a file from which a text was read.

        Args:
            n_bytes: size of the file.
            n_text: size of the text in UTF-8.
            notes: what the reader left out.
            rest: reason for the remaining bytes; one that begins with "not" counts as dropped, any
                other as rewritten.
        """
        self.n_bytes += n_bytes
        self.tally.dropped.update(notes.dropped)
        self.tally.rewritten.update(notes.rewritten)
        left = n_bytes - n_text - notes.dropped.total() - sum(notes.rewritten.values())
        if left > 0 and rest.startswith("not"):
            self.tally.dropped[rest] += left
        elif left:
            self.tally.rewritten["markup" if rest.startswith("not") else rest] += left

    def warnings(self) -> list[str]:
        """One line for each file that was not read, or not read as it should be."""
        refused = list(self.findings.refused.items())
        lines = [f"{name} is left out: {why}" for name, why in refused[:SHOWN_REFUSED]]
        if len(refused) > SHOWN_REFUSED:
            lines.append(f"{len(refused) - SHOWN_REFUSED:,} other files are left out")
        lines += self.findings.warnings()
        seen = set()
        for document in self.documents:
            origin = document.provenance
            if origin is not None and origin.path not in seen:
                seen.add(origin.path)
                lines += [f"{origin.path}: {warning}" for warning in origin.warnings]
        return lines


@dataclass(frozen=True)
class ReadingOptions:
    """How files are read; see CorpusConfig for each field."""

    encoding: str = "auto"
    engine: Engine = "folio"
    tika: str = ""
    text_column: str = ""
    mail_headers: tuple[str, ...] = ()
    chat_times: bool = False
    markup: Literal["text", "source"] = "text"
    documents: Literal["files", "lines"] = "files"
    time_limit_seconds: float = 60.0
    conversations: Literal["turns", "text"] = "text"
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)


def read_files(sources: Sequence[str], options: ReadingOptions, reading: Reading) -> None:
    """Add the documents of files, folders, globs, archives or standard input to a reading.

    What cannot be read is noted there, and the rest is still read.

    Raises:
        UserError: a file that the user named needs a package that is not installed.
    """
    files: list[SourceFile] = []
    for source in sources:
        if source == STDIN:
            files.append(SourceFile(STDIN, keep_stdin(), named=True))
        else:
            files += find_files(source, reading.findings, options.engine == "tika")
    if (n_bytes := sum(map(_size, files))) > LARGE_BYTES:
        say(
            f"{n_bytes / 1e9:,.0f} GB of files are read and compared, with a note of each document "
            f"in memory. A store takes less time and memory: folio tokens SOURCES --into STORE"
        )
    formats = [reader_of(file, options) for file in files]
    tasks = _tasks(files, formats, options, reading.findings)
    outcomes = dict(zip(tasks, extract(list(tasks.values()), options.time_limit_seconds)))
    found: list[_Found] = []
    for i, (file, known) in enumerate(zip(files, formats)):
        outcome = outcomes.get(i)
        if known is None:
            found += _plain(file, options, reading)
        elif isinstance(outcome, str):
            reading.findings.refuse(file.name, outcome, tasks[i].n_bytes)
        elif outcome is not None:
            found += _documents_of(file, tasks[i], outcome)
            notes = Notes([], Counter(outcome.dropped), Counter(outcome.rewritten))
            rest = "markup" if known.accounts else f"not accounted for: {known.name}"
            reading.count(tasks[i].n_bytes, outcome.text.stat().st_size, notes, rest)
    _clean_into(reading, found, options.cleaning)


@dataclass(frozen=True)
class _Found:
    """A document as it was found, before cleaning."""

    name: str
    pieces: Pieces
    n_bytes: int
    provenance: Provenance
    places: Sequence[tuple[int, str]] = ()
    laid_out: bool = False
    furniture: bool = True
    """See Format. Plain text is cleaned only on request, and then of that, too."""
    is_conversation: bool = False
    document: Document | None = None
    """Where its changes were counted."""

    @property
    def content(self) -> str:
        """A sha256 that does not depend on the file's name; all rows of a table share it."""
        return self.document.sha256 if self.document else self.provenance.sha256


def reader_of(file: SourceFile, options: ReadingOptions) -> Format | None:
    """The format that a file is read as; None for plain text."""
    known = format_of(file.kind)
    if known is None and not is_plain(file.kind) and begins_as_mailbox(head_of(file.path)):
        return MAILBOX
    if known is None and (file.kind == STDIN or file.kind.lower().endswith(PROSE_SUFFIXES)):
        if options.documents == "lines":
            return LINES
        return first_look(file.path)
    if known is not None and known.name in MARKED_UP and options.markup == "source":
        return None
    if known is None and options.engine == "tika" and not is_plain(file.kind):
        return TIKA
    return known


def _tasks(
    files: Sequence[SourceFile],
    formats: Sequence[Format | None],
    options: ReadingOptions,
    findings: Findings,
) -> dict[int, Task]:
    """The extraction tasks, by index in `files`."""
    tasks: dict[int, Task] = {}
    for i, (file, known) in enumerate(zip(files, formats)):
        if known is None:
            continue
        if file.named and (missing := missing_library(known)):
            raise UserError(f"{file.name} cannot be read: {missing}")
        try:
            tasks[i] = Task(file.path, sha256_of(file.path), known, settings_of(known, options))
        except OSError as error:
            findings.refuse(file.name, f"it cannot be read: {error.strerror}")
    return tasks


def _size(file: SourceFile) -> int:
    try:
        return file.path.stat().st_size
    except OSError:  # reported when the file is read
        return 0


def settings_of(known: Format, options: ReadingOptions) -> dict[str, Any]:
    """The settings on which the text that is read of a format depends."""
    names = {*known.settings}
    if known.takes == "rows":
        names |= {"text_column", "encoding"}
    elif known is TIKA:
        names.add("tika")
    if options.encoding != "auto":
        names.add("encoding")
    return {name: getattr(options, name) for name in names}


def _plain(file: SourceFile, options: ReadingOptions, reading: Reading) -> list[_Found]:
    notes = Notes()
    findings = reading.findings
    n_bytes = 0
    try:
        n_bytes = file.path.stat().st_size
        require_no_rtf(file)
        document = read_text_file(file.path, file.name, options.encoding, notes)
    except UserError as error:
        why = re.sub(rf"^{re.escape(file.name)} ", "it ", str(error))
        findings.refuse(file.name, why.rstrip("."), n_bytes)
        return []
    except OSError as error:
        findings.refuse(file.name, f"it cannot be read: {error.strerror}", n_bytes)
        return []
    reading.count(n_bytes, document.n_bytes, notes, "encoding")
    provenance = Provenance(file.name, warnings=tuple(notes.warnings))
    return [_Found(file.name, document.pieces, document.n_bytes, provenance, document=document)]


def require_no_rtf(file: SourceFile) -> None:
    """Raise a UserError if a file of plain text is Rich Text in truth."""
    with file.path.open("rb") as opened:
        if opened.read(len(RTF)) == RTF:
            raise UserError("it is RTF; --corpus.engine tika reads that")


def _documents_of(file: SourceFile, task: Task, extraction: Extraction) -> Iterator[_Found]:
    provenance = Provenance(
        file.name, extraction.extractor, task.sha256, tuple(extraction.warnings)
    )
    rows = extraction.rows or [(0, extraction.text.stat().st_size, "")]
    conversations = set(extraction.conversations)
    for number, (start, stop, place) in enumerate(rows):
        yield _Found(
            f"{file.name}, {place}" if place else file.name,
            _slice(extraction.text, start, stop),
            stop - start,
            provenance,
            extraction.places,
            task.format.laid_out,
            task.format.furniture,
            number in conversations,
        )


def _slice(path: Path, start: int, stop: int) -> Pieces:
    """Reader of the bytes start ... stop - 1 of a UTF-8 file."""

    def pieces() -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")()
        with path.open("rb") as file:
            file.seek(start)
            left = stop - start
            while left > 0 and (block := file.read(min(PIECE_BYTES, left))):
                left -= len(block)
                yield decoder.decode(block, final=left == 0)

    return pieces


def _clean_into(reading: Reading, found: Sequence[_Found], config: CleaningConfig) -> None:
    chosen = [f.laid_out or (config.apply_to == "all" and not f.is_conversation) for f in found]
    if config.apply_to == "none":
        chosen = [False] * len(found)
    boilerplate: frozenset[tuple[int, str]] = frozenset()
    if config.boilerplate:
        pages = [f for f, is_chosen in zip(found, chosen) if is_chosen and f.furniture]
        boilerplate = find_boilerplate([(f.content, f.pieces) for f in pages], config)
    for f, is_chosen in zip(found, chosen):
        places = f.places
        if is_chosen:
            moved: list[int] = []
            starts = [at for at, _ in places]
            repeated = boilerplate if f.furniture else frozenset()
            lines = boilerplate_lines(f.pieces(), config, repeated, starts)
            counted = clean(f.pieces(), config, lines, reading.tally, f.name, starts, moved)
            document = make_document(f.name, cleaned(f.pieces, config, lines), counted)
            places = [(at, name) for at, (_, name) in zip(moved, places)]
        else:
            document = f.document or make_document(f.name, f.pieces)
        if document.n_characters:
            reading.documents.append(
                replace(
                    document,
                    provenance=f.provenance,
                    places=tuple(places),
                    is_conversation=f.is_conversation,
                )
            )
        else:
            reading.findings.refused.setdefault(f.name, "it has no text")
