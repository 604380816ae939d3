"""Tika, against a server on the loopback that speaks its published protocol.

https://cwiki.apache.org/confluence/display/TIKA/TikaServer: GET /version names it; PUT /rmeta/text
takes the bytes of a file and answers with a list of objects, one for the file and one for each file
attached to it, with the text in X-TIKA:content. No genuine server was at hand.
"""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from folio.corpus.corpus import CorpusConfig, read_documents
from folio.errors import UserError
from tests.corpus.making import write


class Tika(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(200, b"Apache Tika 3.2.3")

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/rmeta/text" or self.headers["Accept"] != "application/json":
            self._answer(405, b"")
        elif b"broken" in data:
            self._answer(422, b"")
        else:
            parts = [{"X-TIKA:content": f"\n\n\n{data.decode()}\n", "Content-Type": "text/rtf"}]
            if b"attached" in data:
                parts.append({"X-TIKA:content": "the attachment", "resourceName": "note.txt"})
                parts[0]["X-TIKA:EXCEPTION:warn"] = "half read\n at org.apache"
            self._answer(200, json.dumps(parts).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Tika) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "letters/a.txt", "Plain text is read by Folio.")
    write(tmp_path, "letters/b.rtf", "A letter that only Tika reads.")
    write(tmp_path, "letters/c.doc", "A letter with an attached note.")
    write(tmp_path, "letters/d.ppt", "broken")
    return tmp_path / "letters"


def test_tika_reads_what_folio_does_not_know(folder: Path, server: str):
    reading = read_documents([str(folder)], CorpusConfig(engine="tika", tika=server))
    texts = {Path(document.source).name: document.text for document in reading.documents}
    assert texts == {
        "a.txt": "Plain text is read by Folio.",
        "b.rtf": "A letter that only Tika reads.\n",
        "c.doc": "A letter with an attached note.\n\nthe attachment\n",
    }
    assert "status 422" in reading.findings.refused[str(folder / "d.ppt")]
    assert any("half read" in line for line in reading.warnings())
    assert reading.documents[2].places == ((33, "note.txt"),)


def test_without_tika_the_others_are_skipped(folder: Path):
    reading = read_documents([str(folder)], CorpusConfig())
    assert [Path(document.source).name for document in reading.documents] == ["a.txt"]
    assert reading.findings.skipped == {".rtf": 1, ".doc": 1, ".ppt": 1}


def test_a_jar_that_the_user_names_is_started_and_ended(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    java = write(tmp_path / "bin", "java", JAVA)
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    jar = write(tmp_path, "tika-server.jar", "")
    monkeypatch.setenv("PATH", str(java.parent), prepend=":")
    monkeypatch.setenv("ENDED", str(tmp_path / "ended"))
    reading = read_documents([str(folder)], CorpusConfig(engine="tika", tika=str(jar)))
    assert "A letter that only Tika reads.\n" in [d.text for d in reading.documents]
    assert (tmp_path / "ended").read_text() == f"-jar {jar} --host 127.0.0.1"


JAVA = f"""#!/usr/bin/env -S {__import__("sys").executable}
import os, signal, sys, pathlib
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from http.server import HTTPServer
from tests.corpus.formats.test_tika import Tika
def end(*_):
    pathlib.Path(os.environ["ENDED"]).write_text(" ".join(sys.argv[1:5]))
    os._exit(0)
signal.signal(signal.SIGTERM, end)
HTTPServer(("127.0.0.1", int(sys.argv[6])), Tika).serve_forever()
"""


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("http://127.0.0.1:9", r"no Tika server at http://127.0.0.1:9.*java -jar"),
        ("/nowhere/tika.jar", "must be an address .* or a tika-server jar, got '/nowhere"),
    ],
)
def test_no_server_and_no_jar_say_what_to_do(folder: Path, where: str, message: str):
    with pytest.raises(UserError, match=message):
        read_documents([str(folder)], CorpusConfig(engine="tika", tika=where))


def test_without_the_package_it_says_what_to_install(
    folder: Path, server: str, monkeypatch: pytest.MonkeyPatch
):
    from folio.corpus import extraction

    monkeypatch.setattr(extraction.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'foliolm\[tika\]'"):
        read_documents([str(folder)], CorpusConfig(engine="tika", tika=server))
