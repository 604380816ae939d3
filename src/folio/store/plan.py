"""Which files make which shard: a list that depends on names and sizes alone, not on who works."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from folio.corpus.archives import head_of
from folio.corpus.extraction import missing_library
from folio.corpus.files import Findings, find_files, is_plain, is_source, printable
from folio.corpus.formats.first_look import begins_as_mailbox
from folio.corpus.formats.known import MAILBOX, Format, format_of, without_compression
from folio.corpus.reading import ReadingOptions
from folio.errors import UserError
from folio.storage import sha256_of

SHARD_BYTES = 32 << 20
"""Files that follow each other make a shard together until they have so many bytes, or half as many
on average; a larger file makes one alone."""


@dataclass(frozen=True)
class Group:
    """The files of one shard."""

    paths: tuple[str, ...]
    n_bytes: int

    @property
    def name(self) -> str:
        """Its first file without the folder, which differs between machines, and how many more."""
        first, *others = self.paths
        more = f" and {len(others):,} more" if others else ""
        return f"{printable(Path(first).name)}{more}"

    def key(self, options: ReadingOptions, fingerprint: str, sequence: str, version: int) -> str:
        """The sha256 of everything that decides the bytes of its shard.

        Raises:
            UserError: a file is not there any more.
        """
        try:
            files = [(Path(path).name, sha256_of(Path(path))) for path in self.paths]
        except OSError as error:
            raise UserError(f"{error.filename} cannot be read: {error.strerror}.") from None
        readers = sorted({known.extractor for path in self.paths if (known := _format(path))})
        made_of = [version, files, readers, reading_settings(options), fingerprint, sequence]
        return hashlib.sha256(json.dumps(made_of).encode("ascii")).hexdigest()


def reading_settings(options: ReadingOptions) -> dict[str, Any]:
    """The settings that decide which text is read, as JSON gives them back."""
    settings = json.loads(json.dumps(asdict(options)))
    return {name: value for name, value in settings.items() if name != "time_limit_seconds"}


def plan(sources: Sequence[str], tell: Callable[[str], None]) -> list[Group]:
    """Find the files of some sources, and group them.

    Raises:
        UserError: a source is not there or is no file, there is nothing to read, or a package is
            missing.
    """
    findings = Findings()
    groups = list(_grouped(_paths(sources, findings)))
    for name, why in findings.refused.items():
        tell(f"warning: {name} is left out: {why}")
    for warning in findings.warnings():
        tell(f"warning: {warning}")
    if not groups:
        raise UserError(f"There is no text in {', '.join(sources)}: no file of a known kind.")
    known = {found.name: found for g in groups for path in g.paths if (found := _format(path))}
    for found in known.values():
        if missing := missing_library(found):
            raise UserError(f"{missing[0].upper()}{missing[1:]}")
    return groups


def digest_of(groups: Sequence[Group], settings: dict[str, Any]) -> str:
    """What the parts of one store have in common."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode("ascii"))
    for group in groups:
        names = [Path(path).name for path in group.paths]
        digest.update(json.dumps([names, group.n_bytes]).encode("ascii"))
    return digest.hexdigest()


def _paths(sources: Sequence[str], findings: Findings) -> Iterator[tuple[str, int]]:
    for source in sources:
        if not is_source(source):
            raise UserError(
                f"There is no file or folder {source}. A store is made of files; train from a "
                f"built-in text or standard input directly: folio train {shlex.quote(source)}"
            )
        for file in find_files(source, findings, everything=False, unpack=False):
            yield str(file.path), file.path.stat().st_size


def _grouped(paths: Iterator[tuple[str, int]]) -> Iterator[Group]:
    waiting: list[str] = []
    n_bytes = 0
    for path, size in paths:
        if waiting and (n_bytes + size > SHARD_BYTES or _begins_shard(path, size)):
            yield Group(tuple(waiting), n_bytes)
            waiting, n_bytes = [], 0
        waiting.append(path)
        n_bytes += size
    if waiting:
        yield Group(tuple(waiting), n_bytes)


def _begins_shard(path: str, size: int) -> bool:
    """Whether a shard begins with a file. Its own name and size decide, so that a file that is
    added moves the borders of few shards.
    """
    drawn = hashlib.sha256(json.dumps([Path(path).name, size]).encode("ascii")).digest()
    return int.from_bytes(drawn[:8]) * SHARD_BYTES < 2 * size << 64


def _format(path: str) -> Format | None:
    name = Path(without_compression(path)).name
    if (known := format_of(name)) or is_plain(name):
        return known
    return MAILBOX if begins_as_mailbox(head_of(Path(path))) else None
