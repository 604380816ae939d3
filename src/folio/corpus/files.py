"""Finds the files that the user names: searches folders, globs and archives, and refuses harmful
ones.
"""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote_to_bytes

from folio.corpus.archives import head_of, members, unpacked
from folio.corpus.formats.first_look import begins_as_mailbox
from folio.corpus.formats.known import (
    COMPRESSED_SUFFIXES,
    PLAIN_SUFFIXES,
    is_archive,
    is_known,
    without_compression,
)
from folio.corpus.limits import ARCHIVE_DEPTH, Expansion
from folio.corpus.own import is_own_folder, is_page, is_run
from folio.errors import UserError
from folio.storage import StorageError, local

STDIN = "-"
"""What the user calls standard input."""
FILE_URI = "file://"
SHOWN_KINDS = 6


@dataclass(frozen=True)
class SourceFile:
    """A file to be read."""

    name: str
    """What the user calls it; members of archives are named archive.zip/member."""
    path: Path
    """Where its bytes are, after unpacking."""
    named: bool = False
    """Whether the user named this very file, so that it is read whatever its suffix."""

    @property
    def kind(self) -> str:
        """The name that tells its format: a.csv for a.csv.gz."""
        return without_compression(self.name)


@dataclass
class Findings:
    """What the search met but will not read, and what unpacking changed."""

    refused: dict[str, str] = field(default_factory=dict)
    """Reason for each refused name."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Files of unknown type in folders and archives, by suffix."""
    own: list[str] = field(default_factory=list)
    """Folders and pages that Folio made itself."""
    n_bytes: int = 0
    """Size of all files that were met, without what was unpacked from them and is counted there."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Bytes not read, by reason."""
    rewritten: Counter[str] = field(default_factory=Counter)
    """Packed bytes minus unpacked bytes."""

    def refuse(self, name: str, why: str, n_bytes: int = 0) -> None:
        """Note a file that is refused, and why."""
        self.refused[printable(name)] = why
        self._leave_out("files that are left out", n_bytes)

    def skip(self, name: str, n_bytes: int = 0) -> None:
        """Note a file of unknown type."""
        path = PurePosixPath(name)
        self.skipped[printable(path.suffix.lower() or path.name)] += 1
        self._leave_out("files of unknown kind", n_bytes)

    def unpack(self, packed: int, unpacked_bytes: int) -> None:
        """Note the sizes of a file before and after unpacking."""
        self.n_bytes += packed - unpacked_bytes
        self.rewritten["unpacking"] += packed - unpacked_bytes

    def _leave_out(self, reason: str, n_bytes: int) -> None:
        self.n_bytes += n_bytes
        if n_bytes:
            self.dropped[reason] += n_bytes

    def warnings(self) -> list[str]:
        """One line about each kind of file that was skipped."""
        lines = []
        if self.skipped:
            kinds = ", ".join(f"{n:,} {end}" for end, n in self.skipped.most_common(SHOWN_KINDS))
            more = len(self.skipped) - SHOWN_KINDS
            kinds += f" and {more:,} other kinds" if more > 0 else ""
            end = next(iter(self.skipped))
            example = f"'**/*{end}'" if end.startswith(".") else f"'**/{end}'"
            lines.append(
                f"files of unknown kind are skipped: {kinds}. A glob such as {example} reads them "
                f"as text, --corpus.engine tika reads other documents"
            )
        if self.own:
            shown = ", ".join(self.own[:3]) + (", ..." if self.own[3:] else "")
            lines.append(f"what Folio itself made is not read: {shown}")
        return lines


def local_path(source: str) -> Path:
    """The path of what the user wrote: a path, or a file URI.

    >>> local_path("file:///home/caf%C3%A9.txt").name
    'café.txt'
    """
    if source.startswith(FILE_URI):
        return Path(os.fsdecode(unquote_to_bytes(source.removeprefix(FILE_URI))))
    return local(source)


def portable(source: str) -> str:
    """A source as it can be written to a recipe: a path that is not UTF-8 becomes its file URI."""
    try:
        source.encode("utf-8")
    except UnicodeEncodeError:
        return local(source).absolute().as_uri()
    return source


def find_files(
    source: str, findings: Findings, everything: bool, unpack: bool = True
) -> Iterator[SourceFile]:
    """The files of a path or a glob, sorted by name within each folder.

    Args:
        source: what the user wrote.
        findings: records what is refused or skipped.
        everything: also take files of unknown type from folders and archives.
        unpack: give the files that are packed in another one, or that other one as it is.
    """
    for file in _files_of(source, findings, everything):
        if unpack:
            yield from _opened(file, findings, everything, Expansion(file.path.stat().st_size), 1)
        else:
            yield file


def _files_of(source: str, findings: Findings, everything: bool) -> Iterator[SourceFile]:
    """The files of a path or a glob, packed as they lie there."""
    path = local_path(source)
    if not os.path.lexists(path) and glob.has_magic(str(path)):
        matches = [Path(m) for m in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        apart = frozenset(matches)  # "**" also matches what is inside its folders
        for match in _without_own(matches, findings):
            if match.is_dir():
                yield from _of_folder(match, findings, everything, apart)
            else:
                yield from _of_file(match, findings, everything, named=True)
        return
    if path.is_dir():
        yield from _of_folder(path, findings, everything)
    else:
        yield from _of_file(path, findings, everything, named=True)


def is_source(source: str) -> bool:
    """Whether the source is a file, a folder, or a glob that matches something."""
    path = local_path(source)
    if os.path.lexists(path):
        return True
    return glob.has_magic(str(path)) and bool(glob.glob(str(path), recursive=True))  # noqa: PTH207


def _without_own(matches: Sequence[Path], findings: Findings) -> Iterator[Path]:
    """What a glob matches, except what Folio itself wrote."""
    own: dict[Path, bool] = {}

    def is_own(folder: Path) -> bool:
        if folder not in own:
            above = folder.parent != folder and is_own(folder.parent)
            own[folder] = above or is_own_folder(folder)
            if own[folder] and not above:
                findings.own.append(printable(str(folder)))
        return own[folder]

    for match in matches:
        if is_own(match if match.is_dir() else match.parent):
            continue
        if is_page(match):
            findings.own.append(printable(str(match)))
        else:
            yield match


def _of_folder(
    folder: Path, findings: Findings, everything: bool, apart: frozenset[Path] = frozenset()
) -> Iterator[SourceFile]:
    """The files of a folder, except the files and folders that are taken apart from it."""

    def refuse(error: OSError) -> None:
        findings.refuse(str(error.filename), f"it cannot be read: {error.strerror}")

    if is_run(folder):
        findings.own.append(printable(str(folder)))
        return
    for root, folders, names in os.walk(folder, onerror=refuse):  # does not follow links
        folders[:], names = (
            sorted(n for n in inside if not n.startswith(".") and Path(root, n) not in apart)
            for inside in (folders, names)
        )
        for name in folders:
            if Path(root, name).is_symlink():
                findings.refuse(
                    str(Path(root, name)),
                    "it is a link to a folder, which could lead in a circle; name that folder",
                )
        own = [name for name in folders if is_own_folder(Path(root, name))]
        findings.own += [printable(str(Path(root, name))) for name in own]
        folders[:] = [name for name in folders if name not in own]
        for name in names:
            if is_page(Path(root, name)):
                findings.own.append(printable(str(Path(root, name))))
                continue
            yield from _of_file(Path(root, name), findings, everything)


def _of_file(
    path: Path, findings: Findings, everything: bool, named: bool = False
) -> Iterator[SourceFile]:
    try:
        status = path.stat()
    except OSError as error:
        why = "it is a link that leads nowhere" if path.is_symlink() else "it cannot be read"
        findings.refuse(str(path), f"{why} ({error.strerror})")
        return
    inner = without_compression(path.name)
    if not stat.S_ISREG(status.st_mode):
        findings.refuse(
            str(path), "it is a device, a pipe or a socket, not a file; a pipe can be given as -"
        )
    elif not (named or everything or is_known(inner) or begins_as_mailbox(head_of(path))):
        findings.skip(path.name, status.st_size)
    else:
        yield SourceFile(str(path), path, named)


def _opened(
    file: SourceFile, findings: Findings, everything: bool, expansion: Expansion, depth: int
) -> Iterator[SourceFile]:
    """The file itself, or what is packed in it."""
    if is_archive(file.name):
        yield from _of_archive(file, findings, everything, expansion, depth)
        return
    name = file.name
    path = file.path
    if name.lower().endswith(COMPRESSED_SUFFIXES):
        n_bytes = path.stat().st_size
        try:
            path = unpacked(path, expansion)
        except StorageError:  # the disk, not the file
            raise
        except UserError as error:
            findings.refuse(name, str(error), n_bytes)
            return
        findings.unpack(n_bytes, path.stat().st_size)
    yield SourceFile(printable(name), path, file.named)


def _of_archive(
    archive: SourceFile, findings: Findings, everything: bool, expansion: Expansion, depth: int
) -> Iterator[SourceFile]:
    name, n_bytes, n_unpacked = archive.name, archive.path.stat().st_size, 0

    def wanted(member: str, n_bytes: int, head: bytes) -> bool:
        nonlocal n_unpacked
        if everything or is_known(without_compression(member)) or begins_as_mailbox(head):
            return True
        n_unpacked += n_bytes
        findings.skip(member, n_bytes)
        return False

    try:
        for member in members(archive.path, wanted, expansion):
            inside = f"{name}/{member.name}"
            n_unpacked += member.n_bytes
            if member.path is None:
                findings.refuse(inside, member.refused, member.n_bytes)
            elif is_archive(member.name) and depth >= ARCHIVE_DEPTH:
                why = f"archives are nested more than {ARCHIVE_DEPTH} deep"
                findings.refuse(inside, why, member.n_bytes)
            else:
                file = SourceFile(inside, member.path)
                yield from _opened(file, findings, everything, expansion, depth + 1)
    except StorageError:
        raise
    except UserError as error:
        left_out = 0 if n_unpacked else n_bytes
        findings.refuse(name, str(error), left_out)
        n_unpacked += left_out
    findings.unpack(n_bytes, n_unpacked)


def printable(name: str) -> str:
    """A file name that is safe to print: control and undecodable characters are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def is_plain(name: str) -> bool:
    """Whether a file of this name is plain text, read without extraction."""
    return name.lower().endswith(PLAIN_SUFFIXES)


def all_printable(names: Sequence[str]) -> str:
    """Join file names for a message."""
    return ", ".join(map(printable, names))
