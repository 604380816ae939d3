"""A shard: the tokens of some files, with a row for each document.

Its key is the sha256 of everything that it is made of, and the record is written last: a shard
whose record exists is complete, whoever made it and when. Documents stand one after the other, each
followed by the end-of-document token, if the vocabulary has one; which of them are held out, and
which are copies, is decided when the shards are joined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from folio.errors import UserError
from folio.storage import atomic_write, read_json, sha256_of, write_json
from folio.tokenizers.base import TokenIds, Tokenizer
from folio.tokenizers.sequences import Sequence, encode_document, encode_each
from folio.tokens.token_file import HEADER, header, open_token_file

ROW = np.dtype([("key", "<u8"), ("check", "<u8"), ("tokens", "<u8"), ("characters", "<u8")])
"""Of each document: 16 bytes of the sha256 of its text, tokens with the one that ends it, size."""
Rows = NDArray[Any]

BATCH_CHARACTERS = 1 << 20
"""Texts that are encoded together, which takes a tenth of the time."""


@dataclass(frozen=True)
class Shard:
    """The files of a shard."""

    folder: Path
    key: str

    @property
    def record_file(self) -> Path:
        """Its record; a shard without one does not exist."""
        return self.folder / f"{self.key}.json"

    @property
    def tokens_file(self) -> Path:
        """Path of the file with its token ids."""
        return self.folder / f"{self.key}.bin"

    @property
    def rows_file(self) -> Path:
        """One row for each document."""
        return self.folder / f"{self.key}.documents"

    @property
    def lock_file(self) -> Path:
        """Held by the process that makes it."""
        return self.folder / f"{self.key}.lock"

    def is_complete(self) -> bool:
        """Whether it is there, as far as sizes tell."""
        try:
            sizes = self.record()["bytes"]
        except UserError:  # there is none, or it is damaged
            return False
        files = {"tokens": self.tokens_file, "rows": self.rows_file}
        return all(f.exists() and f.stat().st_size == sizes[name] for name, f in files.items())

    def record(self) -> dict[str, Any]:
        """What is in it, and what was left out."""
        return read_json(self.record_file, dict)

    def open(self, fingerprint: str) -> tuple[TokenIds, Rows]:
        """Map its (N,) token ids and its rows into memory, once its bytes were compared.

        Raises:
            UserError: it is damaged; the message names it.
        """
        record = self.record()
        for name, file in (("tokens", self.tokens_file), ("rows", self.rows_file)):
            if not file.exists() or sha256_of(file) != record["sha256"][name]:
                raise UserError(
                    f"The shard {file} is damaged: its sha256 must be "
                    f"{record['sha256'][name][:12]}. Delete {self.record_file}, and run the same "
                    f"command again, which makes this shard anew."
                )
        rows = np.empty(0, ROW)
        if record["documents"]:
            rows = np.memmap(self.rows_file, ROW, "r")
        return open_token_file(self.tokens_file, fingerprint), rows


@contextmanager
def writing(shard: Shard, tokenizer: Tokenizer, per: Sequence) -> Iterator[ShardWriter]:
    """Open a shard that appears complete, or not at all.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    with (
        atomic_write(shard.tokens_file, "wb") as tokens,
        atomic_write(shard.rows_file, "wb") as rows,
    ):
        writer = ShardWriter(tokens, rows, tokenizer, per)
        yield writer
        writer.finish()
    files = {"tokens": shard.tokens_file, "rows": shard.rows_file}
    record = {
        "documents": writer.n_documents,
        "tokens": writer.n_tokens,
        "characters": writer.n_characters,
        "lost_bytes": writer.lost_bytes.tolist(),
        "refused": writer.refused,
        "warnings": writer.warnings,
        "bytes": {name: file.stat().st_size for name, file in files.items()},
        "sha256": {name: sha256_of(file) for name, file in files.items()},
    }
    write_json(shard.record_file, record)


class Mark(NamedTuple):
    """How much a shard has."""

    n_tokens: int
    n_documents: int
    n_characters: int
    lost_bytes: NDArray[np.int64]


class ShardWriter:
    """Encodes documents as they come; memory holds a batch of them."""

    def __init__(self, tokens: IO[bytes], rows: IO[bytes], tokenizer: Tokenizer, per: Sequence):
        self._tokens, self._rows, self._tokenizer = tokens, rows, tokenizer
        self._per: Sequence = per
        end = tokenizer.end_of_document
        self._end = np.array([] if end is None else [end], tokenizer.dtype)
        self._waiting: list[str] = []
        self._n_waiting = 0
        self._tokens.write(bytes(HEADER.size))
        self.n_tokens = self.n_documents = self.n_characters = 0
        self.lost_bytes = np.zeros(2, np.int64)
        """Those that the vocabulary lacks, and of how many; as Tokenizer.lost_bytes."""
        self.refused: dict[str, str] = {}
        """Why each file was left out that could not be read."""
        self.warnings: dict[str, list[str]] = {}
        """What is to be said of files that were read."""

    def add(self, pieces: Iterator[str]) -> None:
        """Add a document; an empty one is left out."""
        begin = next((piece for piece in pieces if piece), "")
        more = next((piece for piece in pieces if piece), "")
        if more:
            self.flush()
            self._add_long(chain((begin, more), pieces))
        elif begin:
            self._waiting.append(begin)
            self._n_waiting += len(begin)
            if self._n_waiting >= BATCH_CHARACTERS:
                self.flush()

    def mark(self) -> Mark:
        """The position in the shard, to which it can `go_back`."""
        self.flush()
        return Mark(self.n_tokens, self.n_documents, self.n_characters, self.lost_bytes.copy())

    def go_back(self, mark: Mark) -> None:
        """Forget what was added since."""
        self._waiting.clear()
        self._n_waiting = 0
        self.n_tokens, self.n_documents, self.n_characters, self.lost_bytes = mark
        for file, size in (
            (self._tokens, HEADER.size + self.n_tokens * self._tokenizer.dtype.itemsize),
            (self._rows, self.n_documents * ROW.itemsize),
        ):
            file.seek(size)
            file.truncate()

    def finish(self) -> None:
        """Write what waits, and the header."""
        self.flush()
        self._tokens.seek(0)
        head = header(self._tokenizer.dtype, self.n_tokens, self._tokenizer.fingerprint)
        self._tokens.write(head)

    def flush(self) -> None:
        """Encode the documents that wait, and write their ids."""
        texts, self._waiting, self._n_waiting = self._waiting, [], 0
        if texts:
            self.lost_bytes += self._tokenizer.lost_bytes(texts)
            encoded = encode_each(self._tokenizer, texts, self._per)
            self._write(np.concatenate([part for ids in encoded for part in (ids, self._end)]))
            digests = [hashlib.sha256(text.encode("utf-8")).digest() for text in texts]
            self._note(digests, [len(ids) for ids in encoded], [len(text) for text in texts])

    def _add_long(self, pieces: Iterator[str]) -> None:
        digest, n_characters, n_tokens = hashlib.sha256(), 0, 0

        def counted() -> Iterator[str]:
            nonlocal n_characters
            for piece in pieces:
                digest.update(piece.encode("utf-8"))
                n_characters += len(piece)
                self.lost_bytes += self._tokenizer.lost_bytes((piece,))
                yield piece

        for ids in encode_document(self._tokenizer, counted(), self._per):
            self._write(ids)
            n_tokens += len(ids)
        self._write(self._end)
        self._note([digest.digest()], [n_tokens], [n_characters])

    def _write(self, ids: TokenIds) -> None:
        self._tokens.write(np.ascontiguousarray(ids, self._tokenizer.dtype).data)

    def _note(self, digests: list[bytes], n_tokens: list[int], n_characters: list[int]) -> None:
        """Write the rows of some documents; `n_tokens` without those that end them."""
        rows = np.empty(len(digests), ROW)
        halves = np.frombuffer(b"".join(digest[:16] for digest in digests), ">u8").reshape(-1, 2)
        rows["key"], rows["check"] = halves.T
        rows["tokens"] = np.array(n_tokens) + len(self._end)
        rows["characters"] = n_characters
        self._rows.write(rows.tobytes())
        self.n_documents += len(rows)
        self.n_tokens += int(rows["tokens"].sum())
        self.n_characters += int(rows["characters"].sum())
