"""What the user names -> files: folders, globs and archives looked through, the harmful refused."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from folio.corpus.archives import members
from folio.corpus.formats.known import PLAIN_SUFFIXES, is_archive, is_known
from folio.corpus.limits import ARCHIVE_DEPTH, Expansion
from folio.errors import UserError


@dataclass(frozen=True)
class SourceFile:
    """A file to read."""

    name: str
    """What the user calls it; members of archives as archive.zip/member."""
    path: Path
    """Where its bytes are."""
    named: bool = False
    """Whether the user named this very file, so that it is read whatever it is called."""


@dataclass
class Findings:
    """What was met on the way and is not read."""

    refused: dict[str, str] = field(default_factory=dict)
    """Reason by name."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Files of unknown kind in folders and archives, by the end of their names."""

    def refuse(self, name: str, why: str) -> None:
        """Note a file that is not read."""
        self.refused[printable(name)] = why

    def skip(self, name: str) -> None:
        """Note a file of unknown kind."""
        path = PurePosixPath(name)
        self.skipped[printable(path.suffix.lower() or path.name)] += 1


def find_files(source: str, findings: Findings, everything: bool) -> Iterator[SourceFile]:
    """The files of a path or a glob, folders in the order of their names.

    Args:
        source: what the user wrote.
        findings: takes what is refused or skipped.
        everything: take files of unknown kind from folders and archives too.
    """
    path = Path(source).expanduser()
    if not os.path.lexists(path) and glob.has_magic(source):
        for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207
            if not Path(match).is_dir():
                yield from _of_file(Path(match), findings, everything, named=True)
            elif "**" not in source:  # which gives what is in its folders too
                yield from _of_folder(Path(match), findings, everything)
        return
    if path.is_dir():
        yield from _of_folder(path, findings, everything)
    else:
        yield from _of_file(path, findings, everything, named=True)


def is_source(source: str) -> bool:
    """Whether there is a file, a folder, or a match of a glob."""
    path = Path(source).expanduser()
    if os.path.lexists(path):
        return True
    return glob.has_magic(source) and bool(glob.glob(str(path), recursive=True))  # noqa: PTH207


def _of_folder(folder: Path, findings: Findings, everything: bool) -> Iterator[SourceFile]:
    def refuse(error: OSError) -> None:
        findings.refuse(str(error.filename), f"it cannot be read: {error.strerror}")

    for root, folders, names in os.walk(folder, onerror=refuse):  # does not follow links
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if Path(root, name).is_symlink():
                findings.refuse(
                    str(Path(root, name)),
                    "it is a link to a folder, which could lead in a circle; name that folder",
                )
        for name in sorted(names):
            if not name.startswith("."):
                yield from _of_file(Path(root, name), findings, everything)


def _of_file(
    path: Path, findings: Findings, everything: bool, named: bool = False
) -> Iterator[SourceFile]:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        why = "it is a link that leads nowhere" if path.is_symlink() else "it cannot be read"
        findings.refuse(str(path), f"{why} ({error.strerror})")
        return
    if not stat.S_ISREG(mode):
        findings.refuse(
            str(path), "it is a device, a pipe or a socket, not a file; a pipe can be given as -"
        )
    elif is_archive(path.name):
        expansion = Expansion(path.stat().st_size)
        yield from _of_archive(str(path), path, findings, everything, expansion, depth=1)
    elif named or everything or is_known(path.name):
        yield SourceFile(printable(str(path)), path, named)
    else:
        findings.skip(path.name)


def _of_archive(
    name: str,
    path: Path,
    findings: Findings,
    everything: bool,
    expansion: Expansion,
    depth: int,
) -> Iterator[SourceFile]:
    def wanted(member: str) -> bool:
        if everything or is_known(member):
            return True
        findings.skip(member)
        return False

    try:
        for member in members(path, wanted, expansion):
            inside = f"{name}/{member.name}"
            if member.path is None:
                findings.refuse(inside, member.refused)
            elif not is_archive(member.name):
                yield SourceFile(printable(inside), member.path)
            elif depth < ARCHIVE_DEPTH:
                yield from _of_archive(
                    inside, member.path, findings, everything, expansion, depth + 1
                )
            else:
                findings.refuse(inside, f"archives are nested more than {ARCHIVE_DEPTH} deep")
    except UserError as error:
        findings.refuse(name, str(error))


def printable(name: str) -> str:
    """A file name as it may be shown: what a terminal would obey, or cannot show, is escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def is_plain(name: str) -> bool:
    """Whether a name is that of a file that is text as it lies there."""
    return name.lower().endswith(PLAIN_SUFFIXES)
