"""Accounts for every byte: in = kept + dropped (by reason) + rewritten (by step)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from folio.corpus.document import Document
from folio.corpus.reading import Reading
from folio.corpus.split import Split


def account(reading: Reading, split: Split) -> dict[str, Any]:
    """The ledger of a corpus, in characters of the clean text and in bytes of all text.

    Returns:
        `ledger`: characters_in = training + validation + elsewhere + test + dropped.
        `ledger_bytes`: the bytes of the files, in = kept + dropped + rewritten. Kept is UTF-8;
        dropped is what was left out, by reason; rewritten is what unpacking, decoding, markup and
        cleaning took away, negative where they added. A reader that cannot tell what it left out
        has "not accounted for" under dropped.
    """
    kept = {
        "training": split.training,
        "validation": split.validation,
        "elsewhere": split.elsewhere,
        "test": split.test,
    }
    for name in ("elsewhere", "test"):
        if not kept[name]:
            del kept[name]
    characters = {name: sum(map(len, parts)) for name, parts in kept.items()}
    dropped = {reason: sum(map(len, parts)) for reason, parts in split.dropped.items()}
    n_characters = sum(document.n_characters for document in reading.documents)
    assert n_characters == sum(characters.values()) + sum(dropped.values())

    tally = reading.tally
    dropped_bytes = tally.dropped + reading.findings.dropped
    for reason, parts in split.dropped.items():
        dropped_bytes[reason] += sum(part.n_bytes for part in parts)
    kept_bytes = {name: sum(part.n_bytes for part in parts) for name, parts in kept.items()}
    steps = Counter(tally.rewritten)
    steps.update(reading.findings.rewritten)
    rewritten = {step: n_bytes for step, n_bytes in steps.items() if n_bytes}
    everything = sum(kept_bytes.values()) + dropped_bytes.total() + sum(rewritten.values())
    n_bytes = reading.n_bytes + reading.findings.n_bytes
    assert n_bytes == everything, (n_bytes, everything)
    return {
        "ledger": {"characters_in": n_characters, **characters, "dropped": dropped},
        "ledger_bytes": {
            "in": n_bytes,
            "kept": kept_bytes,
            "dropped": dict(dropped_bytes),
            "rewritten": rewritten,
        },
    }


def entry_numbers(documents: Sequence[Document]) -> list[int]:
    """The index in `describe_sources` of each document; all rows of a table share one."""
    numbers: dict[str | int, int] = {}
    return [
        numbers.setdefault(document.provenance.path if document.provenance else i, len(numbers))
        for i, document in enumerate(documents)
    ]


def describe_sources(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """The entries of corpus.json: one for each document, or for all rows of a table."""
    entries: list[dict[str, Any]] = []
    for document, number in zip(documents, entry_numbers(documents)):
        if number < len(entries):
            entry = entries[number]
            entry["documents"] = entry.get("documents", 1) + 1
            entry["characters"] += document.n_characters
            entry["bytes"] += document.n_bytes
            entry.pop("sha256", None)
            continue
        origin = document.provenance
        entry = {
            "source": document.source if origin is None else origin.path,
            "sha256": document.sha256,
            "characters": document.n_characters,
            "bytes": document.n_bytes,
        }
        if origin is not None:
            entry["extractor"] = origin.extractor
            if origin.sha256:
                entry["file_sha256"] = origin.sha256
            if origin.warnings:
                entry["warnings"] = list(origin.warnings)
        if document.places:
            entry["places"] = [list(place) for place in document.places]
        entries.append(entry)
    return entries
