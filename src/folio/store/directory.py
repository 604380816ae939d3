"""The file names in a store, and how it is opened.

A store is a folder:

    store.json                  the settings that decide the bytes of its shards
    tokenizer.json
    shards/KEY.bin, .documents, .json       one shard: ids, one row per document, its record
    shards/KEY.lock             held by the process that makes the shard
    parts/1-of-3.json           the keys of the shards that one command made
    train.bin, validation.bin   what a training reads
    index.json                  counts; written last
    anchors.json                what `folio plan` measured of the text
"""

from __future__ import annotations

import os
import shlex
from collections import abc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folio.corpus.files import local_path
from folio.errors import UserError
from folio.storage import read_json, visible
from folio.tokenizers.config import TokenizerConfig, resolve, train_tokenizer
from folio.tokenizers.sequences import Sequence

FORMAT = 1
"""Version of the layout and of everything that a shard's key does not name."""


@dataclass(frozen=True)
class Store:
    """The paths of a store."""

    path: Path

    @property
    def settings_file(self) -> Path:
        """The settings that decide the bytes of its shards."""
        return self.path / "store.json"

    @property
    def tokenizer_file(self) -> Path:
        """The vocabulary of all shards."""
        return self.path / "tokenizer.json"

    @property
    def shards_folder(self) -> Path:
        """The shards, named by what they are made of."""
        return self.path / "shards"

    @property
    def index_file(self) -> Path:
        """The counts of a finished store."""
        return self.path / "index.json"

    @property
    def anchors_file(self) -> Path:
        """What `folio plan` measured of this text."""
        return self.path / "anchors.json"

    @property
    def lock_file(self) -> Path:
        """Held by the command that writes what all of them share."""
        return self.path / "lock"

    def part_file(self, part: int, n_parts: int) -> Path:
        """The keys of the shards of one part; part 1 is the first."""
        return self.path / "parts" / f"{part}-of-{n_parts}.json"

    def tokens_file(self, part: str) -> Path:
        """The token file of a part: `train` or `validation`."""
        return self.path / f"{part}.bin"

    def require_own_folder(self) -> None:
        """Refuse a folder with files of something else, some of which would be replaced.

        Raises:
            UserError: it has files, and is not a store.
        """
        if not self.path.is_dir():
            return
        there = visible(self.path)
        begun = {self.lock_file.name, self.shards_folder.name, "parts", "lost+found"}
        if self.lock_file.name in there:
            begun.add(self.tokenizer_file.name)
        if self.settings_file.name not in there and (others := sorted(there - begun)):
            raise UserError(
                f"{self.path} is there and is not a store: it has {others[0]}. Give a folder of "
                f"its own: --into FOLDER"
            )

    def require_vocabulary(self, asked: TokenizerConfig) -> None:
        """Refuse a vocabulary that is named and is not the store's.

        Raises:
            UserError: it has other ids, or other sequences have `<bos>` and `<eos>`.
        """
        if not asked.path:
            return
        given = train_tokenizer(resolve(asked, 0)[0], ())
        if given.fingerprint != read_json(self.settings_file, dict)["fingerprint"]:
            raise UserError(
                f"The vocabulary must be that of the store {self.path}, got {asked.path}. Make a "
                f"store with that one: folio tokens SOURCES --into FOLDER --tokenizer.path FILE"
            )
        if asked.sequence != self.sequence:
            raise UserError(
                f"tokenizer.sequence must be {self.sequence}, as in the store {self.path}, got "
                f"{asked.sequence}. Make another one: folio tokens SOURCES --into FOLDER"
            )

    @property
    def sequence(self) -> Sequence:
        """What has `<bos>` and `<eos>`, as in TokenizerConfig."""
        return read_json(self.settings_file, dict)["tokenizer"]["sequence"]

    def index(self) -> dict[str, Any]:
        """The content of index.json.

        Raises:
            UserError: the store is not finished, or of another version.
        """
        if not self.index_file.is_file():
            raise UserError(
                f"The store {self.path} is not finished: it must have an index.json. Run again "
                f"what made it: folio tokens SOURCES --into {shlex.quote(str(self.path))}"
            )
        index = read_json(self.index_file, dict)
        if index.get("format") != FORMAT:
            raise UserError(
                f"The store {self.path} is of version {index.get('format')}, and this Folio reads "
                f"version {FORMAT}. Make it again: folio tokens SOURCES --into FOLDER"
            )
        return index


def store_of(sources: abc.Sequence[str]) -> Store | None:
    """The store that a training is to read; None if its sources are texts.

    Raises:
        UserError: there are other sources beside it.
    """
    stores = [Store(local_path(source)) for source in sources]
    # Path.exists raises an error where a user's text is not a path at all.
    stores = [store for store in stores if os.path.exists(store.settings_file)]  # noqa: PTH110
    if stores and len(sources) > 1:
        raise UserError(
            f"A store of tokens stands alone, but {len(sources)} sources were given with "
            f"{stores[0].path}. Add the others to it: folio tokens ALL SOURCES --into FOLDER"
        )
    return stores[0] if stores else None
