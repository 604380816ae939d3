from __future__ import annotations

import gzip
import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from folio.corpus.corpus import CorpusConfig, read_corpus, read_documents
from folio.corpus.formats.mail_text import written
from folio.corpus.formats.passage import Notes
from tests.corpus.making import write, zip_of

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


TICKET = "Your trip:\n\nFrom: Berlin\nTo: Paris\nDate: 12 March\n\nDo not forget the tickets.\n"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("Yes.\n\nAm 3. Mai schrieb Ben:\n> So?\n", "Yes.\n"),
        ("Above.\n> quoted\nBelow.\n", "Above.\n\nBelow.\n"),
        ("Yes.\n----- Original Message -----\nFrom: x\n", "Yes.\n"),
        ("> only quoted\n", ""),
        ("    \n\n  \n", ""),
        ("Yes.\n\nOp 3 mei 2024 om 12:30 schreef Ben:\n> So?\n", "Yes.\n"),
        ("Да.\n\n3 мая 2024, 12:30 Ben <b@c.ru>:\n> So?\n", "Да.\n"),
        ("Yes.\n\nOn Mon, 3 May 2024 at 12:30, Ben Berg\n<b@c.org> wrote:\n> So?\n", "Yes.\n"),
        ("The list:\n> quoted\n", "The list:\n"),
        ("Yes.\n\nVon: Ben\nGesendet: Montag\nAn: Anna\n\nSo?\n", "Yes.\n"),
        ("Yes.\n\n*From:* Ben\n*Sent:* Monday\n\nSo?\n", "Yes.\n"),
        ("From: the sea\nwe came.\n", "From: the sea\nwe came.\n"),
        ("Yes.\n\nFrom: Ben\nTo: Anna\nDate: Monday\nSubject: Rain\n\nSo?\n", "Yes.\n"),
        ("Yes.\n\nDe: Ben <b@c.fr>\nDate: lundi\n\nSo?\n", "Yes.\n"),
        (TICKET, TICKET),
        ("Yes.\n-- \nAnna\n\n-- \nlist\n", "Yes.\n"),
        ("Plan:\n--\nMonday.\n--\nTuesday.\n", "Plan:\n--\nMonday.\n--\nTuesday.\n"),
        ("Plan:\n--\nMonday.\n--\nTuesday.\n-- \nAnna\n", "Plan:\n--\nMonday.\n--\nTuesday.\n"),
        ("Yes.\n--\nAnna\n---- Original Message ----\nSo?\n--\nBen\n", "Yes.\n"),
        ("One.\n--\n" + "A line.\n" * 30, "One.\n--\n" + "A line.\n" * 30),
        (f"Yes.\n{'_' * 47}\nPython mailing list\nhttps://l.org\n", "Yes.\n"),
        ("See:\n\nbegin 644 a.txt\n#0V%T\n`\nend\n\nBye.\n", "See:\n\nBye.\n"),
        ("begin 644 here, and so on\nto the end\n", "begin 644 here, and so on\nto the end\n"),
        ("-----BEGIN PGP MESSAGE-----\n\nhQEM\n-----END PGP MESSAGE-----\n", ""),
        (
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n- - a\n- b\n"
            "-----BEGIN PGP SIGNATURE-----\n\niQ\n-----END PGP SIGNATURE-----\n",
            "- a\n- b\n",
        ),
    ],
)
def test_what_is_quoted_goes_and_what_is_written_stays(body: str, text: str):
    notes = Notes()
    assert written(body, notes) == text
    left_out = len("".join(body.split())) - len("".join(text.split()))
    assert left_out <= notes.dropped.total() + body.count("\n- -")  # which was added to a dash


def test_an_attachment_is_counted_and_not_read(tmp_path: Path):
    mixed = (
        'Content-Type: multipart/mixed; boundary="x"\n\n--x\nContent-Type: text/plain\n\nSee it.\n'
        "--x\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\nQUJD\n--x--\n"
    )
    corpus = read_corpus(CorpusConfig(sources=(str(write(tmp_path, "a.eml", mixed)),)))
    assert corpus.documents[0].text == "See it.\n"
    assert corpus.record()["ledger_bytes"]["dropped"]["attachments"] == len("QUJD")


BEGIN = "From a@b Mon Jan  1 12:00:00 2024\n"


def bodies(folder: Path, mailbox: str | bytes) -> list[str]:
    documents = read_documents([str(write(folder, "a.mbox", mailbox))], CorpusConfig()).documents
    return [document.text.rstrip("\n") for document in documents]


@pytest.mark.parametrize(
    "line",
    [
        "From a@b Mon Jan  1 12:00:00 2024",
        "From a@b Mon Jan 01 12:00:00 +0200 2024",
        "From - Mon, 1 Jan 2024 12:00:00 +0100",
        "From foo at example.org  Mon Jan  1 12:00 CET 2024",
        'From "Anna Berg" <a@b> Mon Jan  1 12:00:00 2024 remote from moon',
    ],
)
@pytest.mark.parametrize("between", ["\n", ""], ids=["after an empty line", "after a line"])
def test_a_sender_and_a_date_begin_a_message(tmp_path: Path, line: str, between: str):
    mailbox = f"{line}\nSubject: x\n\nOne.\n{between}{line}\n\nTwo.\n"
    assert bodies(tmp_path, mailbox) == ["One.", "Two."]


@pytest.mark.parametrize(
    "sentence",
    [
        "From there we went on foot.",
        "From Monday at 12:00 on it is open.",
        "From 1 Jan 2024 on.\nNote: the door is closed.",
    ],
)
def test_a_sentence_that_begins_with_from_begins_no_message(tmp_path: Path, sentence: str):
    mailbox = f"{BEGIN}Subject: x\n\nHello.\n\n{sentence}\n\n{BEGIN}\nTwo.\n"
    assert bodies(tmp_path, mailbox) == [f"Hello.\n\n{sentence}", "Two."]


def test_where_no_date_is_written_a_header_tells_a_message(tmp_path: Path):
    mailbox = "From \r\nSubject: x\r\n\r\nOne.\r\n\r\nFrom c@d\r\nReceived: y\r\n\r\nTwo.\r\n"
    assert bodies(tmp_path, mailbox) == ["One.", "Two."]


@pytest.mark.parametrize("signs", [">", ">>"])
def test_lines_that_a_mailbox_escaped_lose_one_sign(tmp_path: Path, signs: str):
    mailbox = f"{BEGIN}\nHello.\n\n{signs}From there on.\n"
    kept = {">": ["Hello.\n\nFrom there on."], ">>": ["Hello."]}  # what is left is a quoted line
    assert bodies(tmp_path, mailbox) == kept[signs]


def test_a_length_that_is_true_ends_a_message(tmp_path: Path):
    body = f"A log:\n\n{BEGIN}Subject: no message\n\nStill the first.\n"
    head = f"{BEGIN}Content-Length: {len(body)}\n\n"
    assert bodies(tmp_path, f"{head}{body}\n{BEGIN}\nTwo.\n") == [body.rstrip("\n"), "Two."]
    assert bodies(tmp_path, head + body) == [body.rstrip("\n")]


@pytest.mark.parametrize("length", [3, 10_000_000])
def test_a_length_that_is_wrong_is_not_believed(tmp_path: Path, length: int):
    head = f"{BEGIN}Content-Length: {length}\n\n"
    assert bodies(tmp_path, f"{head}The first.\n\n{BEGIN}\nTwo.\n") == ["The first.", "Two."]


@pytest.mark.parametrize("before", [b"", b"\n", b"\r\n\r\n", b"\xef\xbb\xbf"])
def test_a_mailbox_of_windows_or_after_empty_lines_is_read(tmp_path: Path, before: bytes):
    mailbox = f"{BEGIN}Subject: x\n\nOne.\n\n{BEGIN}\nTwo.\n".replace("\n", "\r\n").encode()
    assert bodies(tmp_path, before + mailbox) == ["One.", "Two."]


@pytest.mark.parametrize(
    "name", ["Inbox", "Sent.mbox/mbox", "Letters.2019", "Inbox.gz", "a.zip", "a.tar"]
)
def test_a_mailbox_of_any_name_is_found_wherever_it_lies_and_read_as_one(tmp_path: Path, name: str):
    mailbox = f"{BEGIN}Subject: x\n\nOne.\n\n{BEGIN}\nTwo.\n".encode()
    if name == "a.zip":
        write(tmp_path, name, zip_of({"Mail/Inbox": mailbox}))
    elif name == "a.tar":
        with tarfile.open(tmp_path / name, "w") as file:
            info = tarfile.TarInfo("Mail/Inbox")
            info.size = len(mailbox)
            file.addfile(info, io.BytesIO(mailbox))
    else:
        write(tmp_path, name, gzip.compress(mailbox) if name.endswith(".gz") else mailbox)
    write(tmp_path, "Makefile", "From here: there\n")
    for source in (tmp_path, tmp_path / name):
        reading = read_documents([str(source)], CorpusConfig())
        assert [document.text.rstrip("\n") for document in reading.documents] == ["One.", "Two."]
        assert reading.findings.skipped == ({"Makefile": 1} if source == tmp_path else {})


def test_a_diary_that_begins_with_a_place_and_a_date_is_no_mailbox(tmp_path: Path):
    diary = "From Lisbon, Mon Jan 5 10:00\nDear diary, it rains."
    (document,) = read_documents(
        [str(write(tmp_path, "diary.log", diary))], CorpusConfig()
    ).documents
    assert document.text.rstrip("\n") == diary


@pytest.mark.parametrize("before", [b"\r\n", b"\xef\xbb\xbf"])
def test_a_mail_after_an_empty_line_is_read(tmp_path: Path, before: bytes):
    path = write(tmp_path, "a.eml", before + MAIL.encode())
    (document,) = read_documents([str(path)], CorpusConfig()).documents
    assert document.text == "Wir kommen gegen sieben. Schön!\n"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_mail_that_was_saved_in_two_bytes_a_character_is_read(tmp_path: Path, codec: str):
    path = write(tmp_path, "a.eml", MAIL.encode(codec))
    (document,) = read_documents([str(path)], CorpusConfig()).documents
    assert document.text == "Wir kommen gegen sieben. Schön!\n"


def test_a_mail_in_a_mail_is_read_once(tmp_path: Path):
    inner = f">{BEGIN}Subject: inner\n\nInner.\n"
    outer = (
        'Content-Type: multipart/mixed; boundary="x"\n\n--x\nContent-Type: text/plain\n\nOuter.\n'
        f"--x\nContent-Type: message/rfc822\n\n{inner}\n--x--\n"
    )
    assert bodies(tmp_path, f"{BEGIN}{outer}\n{BEGIN}\nTwo.\n") == ["Outer.\n\nInner.", "Two."]


def mail_of(*parts: str, kind: str = "mixed") -> str:
    """A mail of several parts."""
    inside = "".join(f"--x{kind}\n{part}\n" for part in parts)
    return f'Content-Type: multipart/{kind}; boundary="x{kind}"\n\n{inside}--x{kind}--\n'


def text_of(folder: Path, mail: str) -> tuple[str, Counter[str]]:
    reading = read_documents([str(write(folder, "a.eml", mail))], CorpusConfig())
    assert reading.n_bytes == sum(d.n_bytes for d in reading.documents) + sum(
        reading.tally.dropped.values()
    ) + sum(reading.tally.rewritten.values())
    return reading.documents[0].text, reading.tally.dropped


PLAIN = "Content-Type: text/plain; charset=utf-8\n\n{}\n"
PAGE = "Content-Type: text/html; charset=utf-8\n\n<p>{}</p>\n"


def test_of_alternatives_the_plain_one_is_read_and_the_other_is_counted(tmp_path: Path):
    both = mail_of(PLAIN.format("Hello."), PAGE.format("Hello."), kind="alternative")
    related = mail_of(both, "Content-Type: image/png\n\niVBO", kind="related")
    for mail in (both, related):
        text, dropped = text_of(tmp_path, mail)
        assert text == "Hello.\n"
        assert dropped["the same message in another form"] == len("<p>Hello.</p>\n")


def test_a_page_beside_the_footer_of_a_list_is_read(tmp_path: Path):
    text, _ = text_of(tmp_path, mail_of(PAGE.format("Hello."), PLAIN.format("The list's footer.")))
    assert text == "Hello.\n\nThe list's footer.\n"


def test_an_empty_plain_part_does_not_hide_the_page(tmp_path: Path):
    mail = mail_of(PLAIN.format(" "), PAGE.format("Hello."), kind="alternative")
    assert text_of(tmp_path, mail)[0] == "Hello.\n"


def test_a_signature_ends_its_part_and_not_the_mail(tmp_path: Path):
    text, _ = text_of(tmp_path, mail_of(PLAIN.format("One.\n-- \nAnna"), PLAIN.format("Two.")))
    assert text == "One.\n\nTwo.\n"


@pytest.mark.parametrize(("delsp", "between"), [("no", " "), ("yes", "")])
def test_lines_that_flow_are_joined(tmp_path: Path, delsp: str, between: str):
    head = f"Content-Type: text/plain; format=flowed; delsp={delsp}\n\n"
    mail = head + "One \nline.\n From here.\n> quoted \n> on\n\n-- \nAnna \nBerg\n"
    assert text_of(tmp_path, mail)[0] == f"One{between}line.\nFrom here.\n"


def test_what_a_page_quotes_is_counted(tmp_path: Path):
    quote = "</p><div class='gmail_quote gmail_attr'>On Monday: <p>So?</p></div><p>"
    text, dropped = text_of(tmp_path, PAGE.format(f"Yes.{quote}Bye.<blockquote type=cite>x"))
    assert text == "Yes.\n\nBye.\n"
    assert dropped["quoted mail"] == len("On Monday:So?x")


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("markdown", "# Rain\nIt *rains*.\n", "# Rain\nIt *rains*.\n"),
        ("enriched", "<color><param>red</param>It</color>\nrains.\n\nAnn\n", "It rains.\nAnn\n"),
    ],
)
def test_a_mail_in_markdown_or_enriched_text_is_read(
    tmp_path: Path, kind: str, body: str, said: str
):
    assert text_of(tmp_path, f"Content-Type: text/{kind}\n\n{body}")[0] == said


@pytest.mark.parametrize(
    ("status", "n_read"),
    [
        ("X-Mozilla-Status: 0009", 1),
        ("X-Mozilla-Status: 0001", 2),
        ("X-Status: AD", 1),
        ("X-Status: unread", 2),
    ],
)
def test_what_was_deleted_from_a_mailbox_is_counted(tmp_path: Path, status: str, n_read: int):
    deleted = f"Subject: x\n{status}\n\nGone.\n\n"
    mailbox = f"{BEGIN}{deleted}{BEGIN}\nX-Mozilla-Status: 0009 is what it says.\n"
    path = write(tmp_path, "a.mbox", mailbox)
    reading = read_documents([str(path)], CorpusConfig())
    assert len(reading.documents) == n_read
    counted = reading.tally.dropped["messages that were deleted"]
    assert counted == (len(deleted) if n_read == 1 else 0)


def test_an_encrypted_mail_is_counted_as_one(tmp_path: Path):
    secret = "Content-Type: application/pkcs7-mime; name=smime.p7m\n\nMIIB\n"
    _, dropped = text_of(tmp_path, mail_of(PLAIN.format("See below."), secret))
    assert dropped["encrypted text"] == len("MIIB\n")


@pytest.mark.parametrize("said", ["boundary=----=_Next?1", 'boundary="another"', "x=y"])
def test_parts_are_found_whatever_the_header_says_about_them(tmp_path: Path, said: str):
    mail = mail_of(PLAIN.format("Hello."), PAGE.format("Hello."), kind="alternative")
    mail = mail.replace("--xalternative", "------=_Next?1").replace('boundary="xalternative"', said)
    assert text_of(tmp_path, mail)[0] == "Hello.\n"


@pytest.mark.parametrize("codec", ["iso-2022-jp", "utf-7"])
def test_encodings_whose_bytes_are_those_of_ascii_are_told_by_their_names(
    tmp_path: Path, codec: str
):
    said = "Das Meer (海)." if codec == "iso-2022-jp" else "Die Größe."
    mail = f"Content-Type: text/plain; charset={codec}\n\n".encode() + said.encode(codec)
    path = write(tmp_path, "a.eml", mail)
    assert read_documents([str(path)], CorpusConfig()).documents[0].text == said + "\n"


@pytest.mark.parametrize(
    "head",
    [
        "Content-Type: multipart/mixed\n",
        'Content-Type: multipart/mixed; boundary="never"\n',
        "Content-Type: text\n",
        "Content-Type: text/plain; charset=no-such-charset\n",
        "Content-Transfer-Encoding: x-unknown\n",
        "",
    ],
)
def test_a_mail_against_the_rules_still_gives_its_text(tmp_path: Path, head: str):
    assert "Größe" in text_of(tmp_path, f"{head}Subject: x\n\nDie Größe.\n")[0]


@pytest.mark.parametrize(
    "charset",
    ["charset=undefined", "charset=idna", 'charset="a\0b"', "charset*=a\0b'en'x", "charset*=x''y"],
)
def test_no_name_of_a_charset_loses_a_mailbox(tmp_path: Path, charset: str):
    said = f"From a@b Mon\nContent-Type: text/plain; {charset}\n\nDie Größe.\n\n"
    attached = said.replace("text/plain", "text/x-log")
    mails = said + attached + f"From a@b Mon\n{MAIL}"
    path = write(tmp_path, "a.mbox", mails.encode("cp1252"))
    reading = read_documents([str(path)], CorpusConfig())
    said, after = (document.text for document in reading.documents)
    assert "Die Gr" in said and after == "Wir kommen gegen sieben. Schön!\n"
    assert reading.tally.dropped["attachments"] == len("Die Größe.\n\n")


@pytest.mark.parametrize("name", ["a.mht", "a.mhtml"])
def test_a_saved_page_is_read_as_a_page(tmp_path: Path, name: str):
    page = PAGE.format("Hello.</p><pre>&gt; kept\n--\nend</pre><p>")
    saved = mail_of(page, "Content-Type: text/css\n\na{}", kind="related")
    reading = read_documents([str(write(tmp_path, name, saved))], CorpusConfig())
    assert reading.documents[0].text == "Hello.\n\n> kept\n--\nend\n"
    assert reading.tally.dropped["attachments"] == len("a{}")
