"""The process that makes shards: requests on standard input, answers on standard output."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from folio.config import from_table
from folio.corpus.files import Findings
from folio.corpus.processes import requests
from folio.corpus.reading import ReadingOptions
from folio.corpus.streaming import RefusedError, texts_of, unpacked_files
from folio.errors import UserError
from folio.storage import locked
from folio.store.shard import Shard, writing
from folio.tokenizers import Tokenizer, load
from folio.tokenizers.config import TokenizerConfig, resolve, train_tokenizer
from folio.tokenizers.sequences import Sequence

try:
    import resource
except ImportError:  # Windows: a process may take any time there
    resource = None

SAMPLE_CHARACTERS = 100_000_000
"""Of the text from which a vocabulary is learned, at most; it is held in memory."""
LOADED = ("file", "gpt2")
"""Kinds of vocabularies that are not learned."""


def main() -> None:
    """Answer requests until the process that asks ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of a library is not an answer
    for request in requests():
        with at_most(request.get("seconds")):
            answer = _answer(request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


@contextmanager
def at_most(seconds: float | None) -> Iterator[None]:
    """End this process if the block takes more processor time: a reader may hang. Time by the clock
    would also end one that waits for a busy machine or a slow disk.
    """
    if resource is None or seconds is None:
        yield
        return
    before = soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = math.ceil(time.process_time() + seconds)
    lowest = min(limit for limit in (most, soft, hard) if limit >= 0)  # -1 is none
    resource.setrlimit(resource.RLIMIT_CPU, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, before)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Learn a vocabulary or make a shard; say why where that is impossible."""
    options = from_table(ReadingOptions, request["options"])
    told: list[str] = []
    made, failed = False, None
    try:
        if "into" in request:
            config = from_table(TokenizerConfig, request["tokenizer"])
            groups, share = request["groups"], request["share"]
            tokenizer, told = learn_vocabulary(config, groups, options, share)
            tokenizer.save(Path(request["into"]))
        else:
            tokenizer = _vocabulary(request["vocabulary"])
            shard = Shard(Path(request["folder"]), request["key"])
            with locked(shard.lock_file, f"The shard {shard.key}", wait=True):
                if made := not shard.is_complete():  # by another command, of the same files
                    make_shard(shard, request["paths"], options, tokenizer, request["sequence"])
    except UserError as error:
        failed = str(error)
    return {"failed": failed, "told": told, "made": made}


@cache
def _vocabulary(path: str) -> Tokenizer:
    return load(path)


def learn_vocabulary(
    config: TokenizerConfig, groups: list[list[str]], options: ReadingOptions, share: float = 1.0
) -> tuple[Tokenizer, list[str]]:
    """Learn a vocabulary from the first texts of some groups of files, or load one.

    Args:
        config: the vocabulary; what it leaves open follows from the size of the whole text.
        groups: the paths of the files.
        options: how they are read.
        share: that the bytes of these files are of the bytes of all.

    Returns:
        It, and lines about what was chosen.
    """
    texts: list[list[str]] = []
    refused: list[str] = []
    n_characters = 0
    if config.kind_by_settings not in LOADED:
        with tempfile.TemporaryDirectory(prefix="folio-") as folder:
            for n_left, paths in zip(range(len(groups), 0, -1), groups):
                most = (SAMPLE_CHARACTERS - n_characters) // n_left
                for pieces in _first_texts(paths, options, Path(folder), most, refused):
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
    paths: list[str], options: ReadingOptions, folder: Path, most: int, refused: list[str]
) -> Iterator[list[str]]:
    """The documents of some files, each in pieces, until they have `most` characters; which files
    cannot be read is noted in `refused`.
    """
    left = most
    for path in paths:
        for file in unpacked_files(path, Findings(), folder):
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
) -> None:
    """Write the files of a shard; a file that cannot be read is left out whole, and noted.

    Args:
        shard: where it is written; it must be locked, since what others left there is removed.
        paths: the files, in their order.
        options: how they are read.
        tokenizer: the vocabulary.
        sequence: what gets `<bos>` and `<eos>`.

    Raises:
        UserError: the disk is full.
    """
    unpacked = shard.folder / f".{shard.key}.unpacked"
    _clear(shard, unpacked)
    findings = Findings()
    try:
        with writing(shard, tokenizer, sequence) as writer:
            for path in paths:
                for file in unpacked_files(path, findings, unpacked):
                    mark = writer.mark()
                    try:
                        for pieces in texts_of(file, options):
                            writer.add(pieces)
                    except RefusedError as error:
                        writer.go_back(mark)
                        findings.refuse(file.name, str(error))
            refused = findings.refused.items()
            writer.refused = {_short(name, paths): why for name, why in refused}
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _clear(shard: Shard, unpacked: Path) -> None:
    """Remove what a process that was killed has left."""
    shutil.rmtree(unpacked, ignore_errors=True)
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
