from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from folio.corpus import builtin
from folio.corpus.corpus import CorpusConfig, read_corpus
from folio.errors import UserError

TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that stands for the one on the network."""
    source = tmp_path / "input.txt"
    source.write_text(TEXT)
    monkeypatch.delenv("FOLIO_CORPORA")
    monkeypatch.setattr(builtin, "SHAKESPEARE_URL", source.as_uri())
    monkeypatch.setattr(builtin, "SHAKESPEARE_SHA256", hashlib.sha256(TEXT.encode()).hexdigest())
    return source


def text_of_shakespeare() -> str:
    return read_corpus(CorpusConfig(sources=("shakespeare",))).documents[0].text


def test_shakespeare_is_fetched_once(server: Path):
    assert text_of_shakespeare() == TEXT
    server.unlink()
    assert text_of_shakespeare() == TEXT


def test_another_text_than_expected_is_refused_and_not_kept(server: Path):
    server.write_text("another text")
    with pytest.raises(UserError, match="sha256"):
        text_of_shakespeare()
    server.write_text(TEXT)
    assert text_of_shakespeare() == TEXT


def test_without_a_network_the_error_says_what_to_do(server: Path):
    server.unlink()
    with pytest.raises(UserError, match=r"could not be fetched.*FOLIO_CORPORA.*python-docs"):
        text_of_shakespeare()


def test_the_folder_that_the_user_names_comes_first(
    server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "tinyshakespeare.txt").write_text(TEXT)
    monkeypatch.setenv("FOLIO_CORPORA", str(tmp_path / "corpora"))
    server.unlink()
    assert text_of_shakespeare() == TEXT
