"""GPT-2's vocabulary of 50,257 tokens, from the two files that its authors published."""

from __future__ import annotations

import json
import os
from pathlib import Path

from folio.corpus.builtin import fetched
from folio.errors import UserError
from folio.storage import atomic_write, cache_folder, sha256_of
from folio.tokenizers.base import END_OF_DOCUMENT
from folio.tokenizers.bpe.standard_json import Contents, pieces_from_names, rules_from_names
from folio.tokenizers.bpe.tokenizer import BPETokenizer

URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


def load_gpt2(folder: Path | str | None = None) -> BPETokenizer:
    """GPT-2's tokenizer; its ids are those of tiktoken's "gpt2".

    Args:
        folder: where `vocab.bpe` and `encoder.json` are. By default the folder gpt2 in
            `FOLIO_CORPORA`, or the cache; if they are in neither, they are downloaded once.

    Raises:
        UserError: a file is missing, differs from the published one, or cannot be downloaded.
    """
    merges_path, ids_path = (_find(name, Path(folder) if folder else None) for name in SHA256)
    vocabulary = json.loads(ids_path.read_text(encoding="utf-8"))
    lines = merges_path.read_text(encoding="utf-8").splitlines()
    rules = rules_from_names(vocabulary, lines[1:], str(merges_path))  # line 0 is a version
    special_tokens = {END_OF_DOCUMENT: vocabulary[END_OF_DOCUMENT]}
    pieces = pieces_from_names(vocabulary, special_tokens, str(ids_path))
    return BPETokenizer(Contents(rules, pieces, "gpt2", special_tokens, None))


def _find(name: str, folder: Path | None) -> Path:
    if folder is not None:
        return _checked(folder / name)
    corpora = os.environ.get("FOLIO_CORPORA")
    if corpora and (Path(corpora) / "gpt2" / name).exists():
        return _checked(Path(corpora) / "gpt2" / name)
    cached = cache_folder() / "gpt2" / name
    if not (cached.exists() and sha256_of(cached) == SHA256[name]):
        data = fetched(
            URL + name,
            SHA256[name],
            f"Put {name} into a folder gpt2 inside the folder that FOLIO_CORPORA names.",
        )
        with atomic_write(cached, "wb") as file:
            file.write(data)
    return cached


def _checked(path: Path) -> Path:
    if not path.exists():
        raise UserError(
            f"There is no file {path}. Put GPT-2's vocab.bpe and encoder.json there; they are at "
            f"{URL}."
        )
    if sha256_of(path) != SHA256[path.name]:
        raise UserError(
            f"{path} is not the published file: its sha256 is not {SHA256[path.name]}. "
            f"Get it anew from {URL}{path.name}."
        )
    return path
