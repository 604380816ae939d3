"""The process that extracts files: requests on standard input, answers on standard output.

Files are read here, not in the user's process, because a file may hang its reader, crash it, or
exhaust memory.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from folio.corpus.formats.known import FORMATS, OTHERS, TIKA, Format
from folio.corpus.formats.passage import Notes, Passage
from folio.corpus.limits import WORKER_MEMORY_BYTES
from folio.corpus.processes import requests
from folio.corpus.readers import open_lines
from folio.errors import UserError
from folio.storage import atomic_write, write_json


def main() -> None:
    """Answer requests until the process that asks ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of a library is not an answer
    limit_memory()
    for request in requests():
        answers.write(json.dumps({"refused": _answer(request)}) + "\n")
        answers.flush()


def _answer(request: dict[str, Any]) -> str | None:
    known = next(f for f in (*FORMATS, *OTHERS, TIKA) if f.name == request["format"])
    try:
        extract_file(
            Path(request["path"]),
            known,
            request["settings"],
            Path(request["target"]),
            request["seconds"],
        )
    except Exception as error:  # a reader's failure concerns one file, not all
        return why_refused(error)
    return None


def why_refused(error: Exception) -> str:
    """The reason for which a file is left out, from what its reader raised."""
    if isinstance(error, UserError):
        return str(error).rstrip(".")
    if isinstance(error, MemoryError):
        return f"it needs more than {WORKER_MEMORY_BYTES >> 30} GB of memory"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"its reader failed ({type(error).__name__}: {str(error)[:200]})"


def extract_file(
    path: Path, known: Format, settings: dict[str, Any], target: Path, seconds: float = 60
) -> None:
    """Write the text of a file, and a record of it beside the text."""
    notes = Notes()
    places: list[tuple[int, str]] = []
    rows: list[tuple[int, int, str]] = []
    conversations: list[int] = []
    n_characters = n_bytes = 0
    with atomic_write(target.with_suffix(".txt"), "wb") as out:
        for passage in passages_of(path, known, settings, seconds, notes):
            encoded = passage.text.encode("utf-8", errors="replace")
            if passage.conversation:
                conversations.append(len(rows))
            if passage.document:
                rows.append((n_bytes, n_bytes + len(encoded), passage.place))
            elif passage.place:
                places.append((n_characters, passage.place))
            out.write(encoded)
            n_characters += len(passage.text)
            n_bytes += len(encoded)
    record = {
        "extractor": known.extractor,
        "places": places,
        "rows": rows or None,
        "conversations": conversations,
        "warnings": notes.warnings,
        "dropped": _positive(notes.dropped),
        "rewritten": {step: n for step, n in notes.rewritten.items() if n},
    }
    write_json(target.with_suffix(".json"), record)


def passages_of(
    path: Path, known: Format, settings: dict[str, Any], seconds: float, notes: Notes
) -> Iterator[Passage]:
    """Read a file as it comes, without the NULs that records may have and no text has.

    Args:
        path, known: the file and its format.
        settings: those of its reader, as `settings_of` gives them.
        seconds: time for a reader that can be told.
        notes: records what is left out.
    """
    n_nuls = 0
    for passage in _read(path, known, settings, seconds, notes):
        n_nuls += (n := passage.text.count("\0"))
        yield passage._replace(text=passage.text.replace("\0", "")) if n else passage
    if n_nuls:
        notes.dropped["NULs"] += n_nuls
        notes.warnings.append(f"{n_nuls:,} NULs were dropped")


def _read(
    path: Path, known: Format, settings: dict[str, Any], seconds: float, notes: Notes
) -> Iterator[Passage]:
    read = known.load()
    notes.encoding = settings.get("encoding", "auto")
    own = {name: settings[name] for name in known.settings}
    if known.takes == "rows":
        with open_lines(path, settings["encoding"], notes) as lines:
            yield from read(lines, settings["text_column"], notes, **own)
    elif known.takes == "path":
        yield from read(path, own, notes)
    elif known is TIKA:
        yield from read(path.read_bytes(), settings["tika"], seconds, notes)
    else:
        yield from read(path.read_bytes(), notes, **own)


def _positive(counts: Counter[str]) -> dict[str, int]:
    return {reason: n for reason, n in counts.items() if n > 0}


def limit_memory() -> None:
    """Have this process get no more memory than WORKER_MEMORY_BYTES, where the system can."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = WORKER_MEMORY_BYTES if hard < 0 else min(WORKER_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main()
