"""Shards -> train.bin and validation.bin: decides which documents are held out, and drops copies.

Everything here follows from the rows of the documents, one after the other; memory holds a bit of
each document and the counts of the vocabulary, whatever the size of the text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from folio.console import amount
from folio.corpus.corpus import CorpusConfig
from folio.corpus.shards import Shards as KeyedRows
from folio.errors import UserError
from folio.evaluation.frequencies import frequency_loss
from folio.storage import read_json, write_json
from folio.store.directory import FORMAT, Store
from folio.store.shard import Rows, Shard
from folio.tokenizers import Tokenizer, load
from folio.tokenizers.base import TokenIds
from folio.tokens.lacking import lacking, unknown_in
from folio.tokens.token_file import let_go, open_token_file, write_token_file

CHUNK_TOKENS = 1 << 20
BIN_BITS = 16
"""The highest bits of a key; documents that agree in them are held out together or not at all."""
SHOWN_FILES = 20

Sides = NDArray[np.uint8]
TRAIN, VALIDATION, COPY = range(3)
"""Where a document goes."""


class Content(NamedTuple):
    """A shard whose bytes are those of its record."""

    ids: TokenIds
    rows: Rows


def join(
    store: Store,
    shards: Sequence[tuple[str, str]],
    corpus: CorpusConfig,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Write what a training reads, unless it is there already.

    Args:
        store: a store whose shards are all made.
        shards: key and name of each, in the order of the text.
        corpus: what is held out, and whether copies are dropped.
        tell: receives a line about what is being done.

    Returns:
        The content of index.json.

    Raises:
        UserError: a shard is damaged; there are too few documents to hold some out; or the
            vocabulary knows nothing of the text.
    """
    held_out = [corpus.validation_fraction, corpus.validation_tokens]
    files = [Shard(store.shards_folder, key) for key, _ in shards]
    records = [file.record() for file in files]
    hashes = [record["sha256"] for record in records]
    made_of = [hashes, *held_out, corpus.duplicates.remove]
    address = hashlib.sha256(json.dumps(made_of).encode("ascii")).hexdigest()
    if (
        store.index_file.exists()
        and (index := read_json(store.index_file, dict)).get("of") == address
    ):
        return index
    tell(f"joining {amount(len(shards), 'shard')}")
    refused = {name: why for record in records for name, why in record["refused"].items()}
    for name, why in list(refused.items())[:SHOWN_FILES]:
        tell(f"warning: {name} is left out: {why}")
    # Shards that were made before warnings were noted do not have them.
    noted = {name: why for record in records for name, why in record.get("warnings", {}).items()}
    for name, why in list(noted.items())[:SHOWN_FILES]:
        tell(f"warning: {name}: {'; '.join(why)}")
    tokenizer = load(store.tokenizer_file)
    contents = [Content(*file.open(tokenizer.fingerprint)) for file in files]
    sides = _sides(contents, corpus)
    # Both are of another text from here on, also if this is interrupted.
    store.index_file.unlink(missing_ok=True)
    store.anchors_file.unlink(missing_ok=True)
    index = {
        "format": FORMAT,
        "of": address,
        **_counts_of(contents, sides),
        **_write(store, contents, sides, tokenizer),
        "refused": dict(list(refused.items())[:SHOWN_FILES]),
        "n_refused": len(refused),
        "shards": [
            {"key": key, "name": name, **{n: record[n] for n in ("documents", "characters")}}
            for (key, name), record in zip(shards, records)
        ],
    }
    # Shards that were made before this was counted do not have it.
    lost = [record.get("lost_bytes", (0, 0)) for record in records]
    index["tokens"]["lost_bytes"] = [sum(numbers) for numbers in zip(*lost)]
    for line in lacking(index["tokens"], store.path):
        tell(f"warning: {line}")
    write_json(store.index_file, index)
    return index


def _write(
    store: Store, contents: Sequence[Content], sides: Sequence[Sides], tokenizer: Tokenizer
) -> dict[str, Any]:
    """Write the token files; returns what index.json says of them."""
    counts, n_tokens = np.zeros(tokenizer.vocab_size, np.int64), dict[str, int]()
    for name, side in (("train", TRAIN), ("validation", VALIDATION)):
        chunks = _without_last(_chosen(contents, sides, side), tokenizer)
        chunks = _counted(chunks, counts) if side == TRAIN else chunks
        n_tokens[name] = write_token_file(
            store.tokens_file(name), chunks, tokenizer.dtype, tokenizer.fingerprint
        )
    validation = open_token_file(store.tokens_file("validation"), tokenizer.fingerprint)
    n_unknown = 0
    if tokenizer.unknown is not None:
        n_unknown = int(np.count_nonzero(validation == tokenizer.unknown))
    found: dict[str, Any] = {
        "tokens": {
            "training": n_tokens["train"],
            "validation": n_tokens["validation"],
            "unknown_in_training": unknown_in(counts, tokenizer, store.path),
            "unknown_in_validation": n_unknown,
            "vocab_size": tokenizer.vocab_size,
            "tokenizer": tokenizer.fingerprint,
        }
    }
    if len(validation) > 1:
        found["frequency_loss"] = frequency_loss(counts, validation)
    return found


# ---- which document goes where -----------------------------------------------------------


def _sides(contents: Sequence[Content], corpus: CorpusConfig) -> list[Sides]:
    """(D,) where each document of each shard goes.

    Raises:
        UserError: nothing would be left to train on, or to hold out.
    """
    side_of = np.where(_held_out(contents, corpus), VALIDATION, TRAIN).astype(np.uint8)
    sides = [side_of[_bins(rows)] for rows in _rows_of(contents)]
    if corpus.duplicates.remove == "exact":
        _mark_copies(contents, sides)
    return sides


def _rows_of(contents: Sequence[Content]) -> Iterator[Rows]:
    """The rows of each shard, whose pages count as memory of this process only meanwhile."""
    for shard in contents:
        yield shard.rows
        let_go(shard.rows)


def _bins(rows: Rows) -> NDArray[np.int64]:
    return (rows["key"] >> np.uint64(64 - BIN_BITS)).astype(np.int64)


def _held_out(contents: Sequence[Content], corpus: CorpusConfig) -> NDArray[np.bool_]:
    """(2^BIN_BITS,) which bins of keys are held out: as many of the first ones as have the tokens
    that are asked for, or up to half fewer; one that has too many is passed over. The smallest bin
    if all have too many.
    """
    tokens = np.zeros(1 << BIN_BITS)
    for rows in _rows_of(contents):
        tokens += np.bincount(_bins(rows), rows["tokens"], 1 << BIN_BITS)
    filled = np.flatnonzero(tokens)
    if len(filled) < 2:
        raise UserError(
            f"A store holds out whole documents, so that it must have two that differ, and this "
            f"one has {len(filled)}. Train from the file itself, which holds out its end."
        )
    most = min(corpus.validation_fraction * tokens.sum(), corpus.validation_tokens)
    held_out, total = np.zeros(1 << BIN_BITS, np.bool_), 0
    for number in filled.tolist():
        if total + tokens[number] <= most:
            held_out[number] = True
            total += tokens[number]
        elif total > most / 2:
            break
    if not total:
        held_out[filled[np.argmin(tokens[filled])]] = True
    return held_out


def _mark_copies(contents: Sequence[Content], sides: list[Sides]) -> None:
    """Mark all documents that an earlier one equals."""
    starts = np.cumsum([0, *(len(shard.rows) for shard in contents)])
    with closing(KeyedRows(check=np.uint64, number=np.int64)) as keyed:
        for start, rows in zip(starts.tolist(), _rows_of(contents)):
            numbers = np.arange(start, start + len(rows))
            keyed.add(rows["key"], rows["check"], numbers)
        for rows in keyed:
            rows = rows[np.lexsort((rows["number"], rows["check"], rows["key"]))]
            same = (rows["key"][1:] == rows["key"][:-1]) & (rows["check"][1:] == rows["check"][:-1])
            copies = rows["number"][1:][same]
            where = np.searchsorted(starts, copies, "right") - 1
            for i in np.unique(where).tolist():
                sides[i][copies[where == i] - starts[i]] = COPY


def _counts_of(contents: Sequence[Content], sides: Sequence[Sides]) -> dict[str, Any]:
    """Documents and characters by where they go."""
    documents, characters = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for rows, side in zip(_rows_of(contents), sides):
        documents += np.bincount(side, minlength=3)
        characters += np.bincount(side, rows["characters"], 3).astype(np.int64)
    names = ("training", "validation", "exact copies")
    return {
        "documents": dict(zip(names, documents.tolist())),
        "characters": dict(zip(names, characters.tolist())),
    }


# ---- tokens ------------------------------------------------------------------------------


def _chosen(contents: Sequence[Content], sides: Sequence[Sides], wanted: int) -> Iterator[TokenIds]:
    """The tokens of all documents that go to one side, (n,) at a time."""
    for shard, side in zip(contents, sides):
        keep = side == wanted
        ends = np.cumsum(shard.rows["tokens"]).astype(np.int64)
        for first in range(0, len(shard.ids), CHUNK_TOKENS):
            stop = min(first + CHUNK_TOKENS, len(shard.ids))
            low, high = np.searchsorted(ends, (first, stop - 1), "right").tolist()
            here = keep[low : high + 1]
            if here.any():
                edges = np.clip(ends[low : high + 1], first, stop)
                sizes = np.diff(edges, prepend=first)
                yield shard.ids[first:stop][np.repeat(here, sizes)]
            if first % (64 * CHUNK_TOKENS) == 0:
                let_go(shard.ids)  # or its pages would count as memory of this process
        let_go(shard.ids)
        let_go(shard.rows)


def _without_last(chunks: Iterator[TokenIds], tokenizer: Tokenizer) -> Iterator[TokenIds]:
    """Leave out the very last token, which ends a document that nothing follows."""
    before = next(chunks, None)
    for chunk in chunks:
        if before is not None:
            yield before
        before = chunk
    if before is not None:
        yield before if tokenizer.end_of_document is None else before[:-1]


def _counted(chunks: Iterator[TokenIds], counts: NDArray[np.int64]) -> Iterator[TokenIds]:
    for chunk in chunks:
        counts += np.bincount(chunk, minlength=len(counts))
        yield chunk
