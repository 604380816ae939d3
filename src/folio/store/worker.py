"""The process that makes shards: requests on standard input, answers on standard output."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from folio.config import from_table
from folio.corpus.extraction_worker import limit_memory
from folio.corpus.files import Findings, SourceFile, printable
from folio.corpus.formats.passage import Notes
from folio.corpus.processes import requests
from folio.corpus.reading import ReadingOptions
from folio.corpus.streaming import RefusedError, texts_of, unpacked_files
from folio.errors import UserError
from folio.storage import locked
from folio.store.lost import Reading
from folio.store.shard import Shard, writing
from folio.tokenizers import Tokenizer, load
from folio.tokenizers.config import TokenizerConfig, resolve, train_tokenizer
from folio.tokenizers.sequences import Sequence

SAMPLE_CHARACTERS = 100_000_000
"""Of the text from which a vocabulary is learned, at most; it is held in memory."""
LOADED = ("file", "gpt2")
"""Kinds of vocabularies that are not learned."""


def main() -> None:
    """Answer requests until the process that asks ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of a library is not an answer
    for request in requests():
        if "into" not in request:  # the text from which a vocabulary is learned may take more
            limit_memory()
        answers.write(json.dumps(_answer(request)) + "\n")
        answers.flush()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Learn a vocabulary or make a shard; say why where that is impossible."""
    options = from_table(ReadingOptions, request["options"])
    told: list[str] = []
    made, failed = False, None
    try:
        if "into" in request:
            config = from_table(TokenizerConfig, request["tokenizer"])
            groups, share = request["groups"], request["share"]
            into = Path(request["into"])
            unpacked = into.with_name(f".{into.name}.unpacked")
            shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was killed
            try:
                with closing(Reading(request)) as reading:
                    tokenizer, told = learn_vocabulary(
                        config, groups, options, share, reading, unpacked
                    )
            finally:
                shutil.rmtree(unpacked, ignore_errors=True)
            tokenizer.save(into)
        else:
            tokenizer = _vocabulary(request["vocabulary"])
            shard = Shard(Path(request["folder"]), request["key"])
            with locked(shard.lock_file, f"The shard {shard.key}", wait=True):
                if made := not shard.is_complete():  # by another command, of the same files
                    _clear(shard)
                    with closing(Reading(request)) as reading:
                        paths, sequence = request["paths"], request["sequence"]
                        make_shard(shard, paths, options, tokenizer, sequence, reading)
    except UserError as error:
        failed = str(error)
    return {"failed": failed, "told": told, "made": made}


@cache
def _vocabulary(path: str) -> Tokenizer:
    tokenizer = load(path)
    tokenizer.encode_batch([" "])  # loads its kernels, for which no file has time
    return tokenizer


def learn_vocabulary(
    config: TokenizerConfig,
    groups: list[list[str]],
    options: ReadingOptions,
    share: float,
    reading: Reading,
    unpacked: Path,
) -> tuple[Tokenizer, list[str]]:
    """Learn a vocabulary from the first texts of some groups of files, or load one.

    Args:
        config: the vocabulary; what it leaves open follows from the size of the whole text.
        groups: the paths of the files.
        options: how they are read.
        share: that the bytes of these files are of the bytes of all.
        reading: what is read.
        unpacked: a folder for what is packed in them.

    Returns:
        It, and lines about what was chosen.
    """
    texts: list[list[str]] = []
    refused = [f"{name} is left out: {why}" for name, why in reading.without.items()]
    n_characters = 0
    if config.kind_by_settings not in LOADED:
        for n_left, paths in zip(range(len(groups), 0, -1), groups):
            most = (SAMPLE_CHARACTERS - n_characters) // n_left
            for pieces in _first_texts(paths, options, unpacked, most, refused, reading):
                texts.append(pieces)
                n_characters += sum(map(len, pieces))
    if not n_characters and config.kind_by_settings not in LOADED:
        why = f": {refused[0]}" if refused else "."
        raise UserError(
            f"There is no text in the sources from which a vocabulary could be learned{why}"
        )
    config, choice = resolve(config, round(n_characters / share))
    if choice and share < 1:
        choice += f", as a sample of {n_characters:,} shows"
    tokenizer = train_tokenizer(config, texts)
    return tokenizer, [line for line in (choice, tokenizer.note) if line]


def _first_texts(
    paths: list[str],
    options: ReadingOptions,
    folder: Path,
    most: int,
    refused: list[str],
    reading: Reading,
) -> Iterator[list[str]]:
    """The documents of some files, each in pieces, until they have `most` characters; which files
    cannot be read is noted in `refused`.
    """
    left = most
    for path in paths:
        for file in _files_of(path, Findings(), folder, reading):
            try:
                for pieces in texts_of(file, options):
                    taken: list[str] = []
                    for piece in pieces:
                        taken.append(piece[:left])
                        left -= len(taken[-1])
                        if not left:
                            break
                    yield taken
                    if not left:
                        return
            except RefusedError as error:  # told when its shard is made
                refused.append(f"{_short(file.name, paths)} is left out: {error}")


def make_shard(
    shard: Shard,
    paths: list[str],
    options: ReadingOptions,
    tokenizer: Tokenizer,
    sequence: Sequence,
    reading: Reading,
) -> None:
    """Write the files of a shard; a file that cannot be read is left out whole, and noted.

    Args:
        shard: where it is written; it must be locked.
        paths: the files, in their order.
        options: how they are read.
        tokenizer: the vocabulary.
        sequence: what gets `<bos>` and `<eos>`.
        reading: what is read.

    Raises:
        UserError: the disk is full.
    """
    unpacked = _unpacked(shard)
    try:
        with writing(shard, tokenizer, sequence) as writer:
            for path in paths:
                findings = Findings()
                for file in _files_of(path, findings, unpacked, reading):
                    mark, notes = writer.mark(), Notes()
                    try:
                        for pieces in texts_of(file, options, notes):
                            writer.add(pieces)
                    except RefusedError as error:
                        writer.go_back(mark)
                        findings.refuse(file.name, str(error))
                        continue
                    if writer.mark().n_documents == mark.n_documents:
                        findings.refuse(file.name, "; ".join(["it has no text", *notes.warnings]))
                    elif notes.warnings:
                        writer.warnings[_short(file.name, paths)] = notes.warnings
                refused = findings.refused.items()
                writer.refused |= {_short(name, paths): why for name, why in refused}
                if skipped := findings.warnings():
                    name = printable(Path(path).name)
                    writer.warnings[name] = writer.warnings.get(name, []) + skipped
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _files_of(
    path: str, findings: Findings, folder: Path, reading: Reading
) -> Iterator[SourceFile]:
    """A file, or the files that are packed in it, each of which is noted while it is used."""
    files = unpacked_files(path, findings, folder)
    size = Path(path).stat().st_size
    while path not in reading.without:
        with reading.of(path, size):
            file = next(files, None)
        if file is None:
            return
        if file.name not in reading.without:
            with reading.of(file.name, file.path.stat().st_size):
                yield file
        else:
            findings.refuse(file.name, reading.without[file.name])
    findings.refuse(path, reading.without[path])


def _unpacked(shard: Shard) -> Path:
    return shard.folder / f".{shard.key}.unpacked"


def _clear(shard: Shard) -> None:
    """Remove what a process that was killed has left."""
    shutil.rmtree(_unpacked(shard), ignore_errors=True)
    for left in shard.folder.glob(f".{shard.key}.*"):
        left.unlink(missing_ok=True)


def _short(name: str, paths: list[str]) -> str:
    """A name that does not depend on the folder of the sources."""
    for path in paths:
        if name.startswith(path):
            return Path(path).name + name.removeprefix(path)
    return name


if __name__ == "__main__":
    main()
