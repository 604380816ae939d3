from __future__ import annotations

from pathlib import Path

import pytest

from folio.corpus.corpus import CorpusConfig, read_corpus, read_documents
from folio.corpus.formats.mail import written
from folio.corpus.formats.passage import Notes
from tests.corpus.making import write

MAIL = (
    "From: Anna <anna@example.org>\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nMIME-Version: 1.0\n"
    "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n"
    "Wir kommen gegen sieb=\nen. Sch=C3=B6n!\n\nOn Monday Ben wrote:\n> When do you come?\n\n"
    "-- \nAnna\n+49 000\n"
)


def test_a_mail_gives_what_its_sender_wrote(tmp_path: Path):
    path = write(tmp_path, "a.eml", MAIL)
    corpus = read_corpus(CorpusConfig(sources=(str(path),)))
    assert corpus.documents[0].text == "Wir kommen gegen sieben. Schön!\n"
    ledger = corpus.record()["ledger_bytes"]
    assert ledger["in"] == path.stat().st_size
    assert ledger["dropped"]["signatures"] == len("-- \nAnna\n+49 000\n")
    quoted = len("> When do you come?") + len("On Monday Ben wrote:")
    assert ledger["dropped"]["quoted mail"] == quoted


def test_header_fields_are_kept_on_request(tmp_path: Path):
    path = write(tmp_path, "a.eml", MAIL)
    config = CorpusConfig(mail_headers=("subject",))
    (document,) = read_documents([str(path)], config).documents
    assert document.text == "Subject: Grüße\n\nWir kommen gegen sieben. Schön!\n"


def test_each_message_of_a_mailbox_is_a_document(tmp_path: Path):
    body = MAIL.replace("Wir kommen", ">From Köln kommen wir")
    path = write(tmp_path, "a.mbox", f"From a@b Mon\n{MAIL}\nFrom c@d Tue\n{body}")
    documents = read_documents([str(path)], CorpusConfig()).documents
    assert len(documents) == 2
    assert documents[0].source.endswith("message 1")


def test_a_mailbox_may_begin_with_something_else(tmp_path: Path):
    path = write(tmp_path, "a.mbox", f"saved by a program\nFrom a@b Mon\n{MAIL}")
    (document,) = read_documents([str(path)], CorpusConfig()).documents
    assert document.text == "Wir kommen gegen sieben. Schön!\n"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("Yes.\n\nAm 3. Mai schrieb Ben:\n> So?\n", "Yes.\n"),
        ("Above.\n> quoted\nBelow.\n", "Above.\n\nBelow.\n"),
        ("Yes.\n----- Original Message -----\nFrom: x\n", "Yes.\n"),
        ("> only quoted\n", ""),
    ],
)
def test_what_is_quoted_goes_and_what_is_written_stays(body: str, text: str):
    assert written(body, Notes()) == text


def test_an_attachment_is_counted_and_not_read(tmp_path: Path):
    mixed = (
        'Content-Type: multipart/mixed; boundary="x"\n\n--x\nContent-Type: text/plain\n\nSee it.\n'
        "--x\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\nQUJD\n--x--\n"
    )
    corpus = read_corpus(CorpusConfig(sources=(str(write(tmp_path, "a.eml", mixed)),)))
    assert corpus.documents[0].text == "See it.\n"
    assert corpus.record()["ledger_bytes"]["dropped"]["attachments"] == len("QUJD")
