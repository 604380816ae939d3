"""A folder with a hostile file in it, and what must hold for the other one."""

from __future__ import annotations

from pathlib import Path

import pytest

from folio.corpus.corpus import CorpusConfig, read_documents
from folio.corpus.reading import Reading
from tests.corpus import making

SECRET = "the content of a file that nobody named"
ENTITY = '<!DOCTYPE x [<!ENTITY e SYSTEM "file://{}">]>'
LAUGHS = (
    "<!DOCTYPE x [<!ENTITY a0 'ha'>"
    + "".join(f"<!ENTITY a{i + 1} '{f'&a{i};' * 10}'>" for i in range(12))
    + "]>"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one good file in it, and a secret beside it."""
    making.write(tmp_path, "secret.txt", SECRET)
    making.write(tmp_path, "folder/good.txt", "The good file is read.")
    return tmp_path / "folder"


def read(source: Path, **settings: object) -> Reading:
    return read_documents([str(source)], CorpusConfig(**settings))  # type: ignore[arg-type]


def refusal(folder: Path, name: str, **settings: object) -> str:
    """Why a file was refused, while the good one was read and the secret was not."""
    reading = read(folder, **settings)
    texts = [document.text for document in reading.documents]
    assert "The good file is read." in texts
    assert not any(SECRET in text for text in texts)
    assert not any(document.source.endswith(name) for document in reading.documents)
    (found,) = [why for refused, why in reading.findings.refused.items() if refused.endswith(name)]
    return found


def bomb(n_bytes: int) -> bytes:
    return making.zip_of({"word/document.xml": bytes(n_bytes)})
