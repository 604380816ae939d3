from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from folio.corpus import builtin
from folio.corpus.corpus import CorpusConfig, read_corpus
from folio.errors import UserError
from folio.tokenizers import gpt2
from folio.tokenizers.bpe.standard_json import byte_characters

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


def test_a_download_that_breaks_off_is_an_error_in_a_line(
    server: Path, monkeypatch: pytest.MonkeyPatch
):
    class HalfATen(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"First")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), HalfATen) as listening:
        Thread(target=listening.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{listening.server_port}/input.txt"
        monkeypatch.setattr(builtin, "SHAKESPEARE_URL", url)
        with pytest.raises(UserError, match=r"could not be fetched.*FOLIO_CORPORA"):
            text_of_shakespeare()


def test_what_a_proxy_gave_in_place_of_a_vocabulary_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    names = {character: i for i, character in enumerate([*byte_characters(), "<|endoftext|>"])}
    files = {"vocab.bpe": "#version: 0.2\n", "encoder.json": json.dumps(names)}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        monkeypatch.setitem(gpt2.SHA256, name, hashlib.sha256(text.encode()).hexdigest())
    monkeypatch.delenv("FOLIO_CORPORA")
    monkeypatch.setattr(gpt2, "URL", f"{tmp_path.as_uri()}/")
    (tmp_path / "vocab.bpe").write_text("<html>Please sign in")
    with pytest.raises(UserError, match="sha256"):
        gpt2.load_gpt2()
    (tmp_path / "vocab.bpe").write_text(files["vocab.bpe"])
    assert gpt2.load_gpt2().vocab_size == 257
