"""Sources of every kind that a store reads, and a store of them made in this process."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from folio.corpus.corpus import CorpusConfig
from folio.corpus.processes import Process
from folio.store import making, plan, worker
from folio.store.directory import Store
from folio.store.making import Made, Part, make_store
from folio.tokenizers.config import TokenizerConfig

TEXTS = [f"Text {n} " + f"has the words {n * 7} and {n % 5}. " * (1 + n % 9) for n in range(60)]
VOCABULARY = TokenizerConfig(vocab_size=300)


class Inside(Process):
    """A worker in this process, which takes no time to start."""

    def __init__(self, module: str = "", **environment: str) -> None:
        self.ended = False

    def ask(self, request: dict[str, Any], limit_seconds: float | None = None) -> dict[str, Any]:
        # A limit would be one of this process.
        answer = worker._answer(json.loads(json.dumps(request | {"seconds": None})))
        return json.loads(json.dumps(answer))

    def end(self) -> None:
        self.ended = True


def work_inside(patch: pytest.MonkeyPatch, start: Callable[[], Process] = Inside) -> None:
    """Make shards in this process, each of about one file."""
    patch.setattr(making, "Process", Inside)
    patch.setattr(making, "_worker", start)
    patch.setattr(plan, "SHARD_BYTES", 400)


def write_sources(folder: Path) -> Path:
    """One file of each format, and a folder of small ones."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS[10:20])
    (folder / "texts").mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS[:10]}), folder / "a.parquet")
    (folder / "b.jsonl").write_text(lines)
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(lines.replace("Text 1", "C").encode()))
    packed = zstandard.ZstdCompressor().compress(lines.replace("Text 1", "D").encode())
    (folder / "d.jsonl.zst").write_bytes(packed)
    for number, text in enumerate(TEXTS[20:]):
        (folder / "texts" / f"{number:02}.txt").write_text(text)
    return folder


def quiet(line: str) -> None:
    """Say nothing."""


def make(
    folder: Path,
    *sources: Path,
    workers: int = 2,
    part: str = "1/1",
    tokenizer: TokenizerConfig = VOCABULARY,
    **corpus: Any,
) -> tuple[Store, Made]:
    """Make a store, or go on with it."""
    store = Store(folder)
    config = CorpusConfig(sources=tuple(map(str, sources)), **corpus)
    return store, make_store(store, config, tokenizer, workers, quiet, Part.parse(part))


def content(store: Store) -> dict[str, bytes]:
    """The bytes of all that does not say which command made it."""
    files = (path for path in store.path.rglob("*") if path.is_file())
    named = {str(path.relative_to(store.path)): path for path in files}
    return {
        name: path.read_bytes()
        for name, path in named.items()
        if not name.startswith("parts") and not name.endswith("lock")
    }
