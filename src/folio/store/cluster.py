"""Steps of a datatrove pipeline that end in a store of tokens, on one machine, Slurm or Ray.

    readers = JsonlReader("s3://bucket/text")
    write = LocalPipelineExecutor([readers, WriteShard("store", "tokenizer.json")], tasks=100)
    LocalPipelineExecutor([JoinShards("store", 100)], depends=write).run()

datatrove (https://github.com/huggingface/datatrove) reads, filters and distributes; each of its
tasks writes one shard, and the last step joins them. Every executor of datatrove carries them.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterable
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from folio.config import to_table
from folio.console import say
from folio.corpus.corpus import CorpusConfig
from folio.errors import UserError
from folio.storage import locked, write_json
from folio.store.directory import FORMAT, Store
from folio.store.joining import join
from folio.store.shard import Shard, writing
from folio.tokenizers import load
from folio.tokenizers.config import TokenizerConfig
from folio.tokenizers.sequences import Sequence


class WriteShard(PipelineStep):
    """Encodes the documents of a task into a shard, and passes them on."""

    type = "Folio"
    name = "write a shard"

    def __init__(self, store: str, tokenizer: str, sequence: Sequence = "none") -> None:
        """
        Args:
            store: the folder of the store, which all machines see.
            tokenizer: a finished tokenizer.json.
            sequence: what gets `<bos>` and `<eos>`, as in TokenizerConfig.
        """
        super().__init__()
        self.store, self.tokenizer = store, tokenizer
        self.sequence: Sequence = sequence

    def run(
        self, data: Iterable[Document] | None, rank: int = 0, world_size: int = 1
    ) -> Generator[Document, None, None]:
        """Write shard `rank` of `world_size`; it appears complete or not at all."""
        store, tokenizer = Store(Path(self.store)), load(self.tokenizer)
        begin(store, Path(self.tokenizer), self.sequence)
        shard = Shard(store.shards_folder, key_of(rank, world_size))
        with writing(shard, tokenizer, self.sequence) as writer:
            for document in data or ():
                with self.track_time():
                    text = document.text.encode("utf-8", "replace").decode("utf-8")
                    writer.add(iter((text,)))
                yield document


class JoinShards(PipelineStep):
    """Joins the shards of all tasks; for a pipeline of one task that depends on them."""

    type = "Folio"
    name = "join shards"

    def __init__(self, store: str, n_shards: int, corpus: CorpusConfig | None = None) -> None:
        """
        Args:
            store: the folder of the store.
            n_shards: tasks of the pipeline that wrote them.
            corpus: what is held out, and whether copies are dropped; its sources mean nothing.
        """
        super().__init__()
        self.store, self.n_shards, self.corpus = store, n_shards, corpus or CorpusConfig()

    def run(
        self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Generator[Document, None, None]:
        """Write what a training reads.

        Raises:
            UserError: a shard is missing or damaged.
        """
        store = Store(Path(self.store))
        keys = [key_of(number, self.n_shards) for number in range(self.n_shards)]
        missing = [key for key in keys if not Shard(store.shards_folder, key).is_complete()]
        if missing:
            raise UserError(
                f"{len(missing)} of {self.n_shards} shards of {store.path} are missing, the first "
                f"is {missing[0]}. Run the pipeline again, which makes what is missing."
            )
        with locked(store.lock_file, f"The store {store.path}", wait=True):
            join(store, list(zip(keys, keys)), self.corpus, say)
        yield from data or ()


def begin(store: Store, tokenizer: Path, sequence: Sequence) -> None:
    """Make the folder of a store whose vocabulary is given.

    Raises:
        UserError: it has another one or other sequences, or files of something else.
    """
    store.require_own_folder()
    store.shards_folder.mkdir(parents=True, exist_ok=True)
    config = TokenizerConfig(kind="file", path=str(tokenizer), sequence=sequence)
    fingerprint = load(tokenizer).fingerprint
    with locked(store.lock_file, f"The store {store.path}", wait=True):
        if store.settings_file.exists():
            store.require_vocabulary(config)
            return
        shutil.copyfile(tokenizer, store.tokenizer_file)
        made = {"format": FORMAT, "tokenizer": to_table(config), "fingerprint": fingerprint}
        write_json(store.settings_file, made)


def key_of(rank: int, world_size: int) -> str:
    """The name of the shard of a task."""
    return f"task-{rank:05}-of-{world_size:05}"
