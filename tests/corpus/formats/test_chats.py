from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from folio.corpus.corpus import CorpusConfig, read_corpus, read_documents
from folio.errors import UserError
from tests.corpus.making import write


def texts(path: Path, **settings: object) -> list[str]:
    documents = read_documents([str(path)], CorpusConfig(**settings)).documents  # type: ignore[arg-type]
    return [document.text for document in documents]


TELEGRAM = {
    "name": "Ben",
    "messages": [
        {"id": 1, "type": "service", "date": "2026-01-01", "actor": "Ben"},
        {"id": 2, "type": "message", "date": "2026-01-01", "from": "Ben", "text": "Grüße"},
        {"id": 3, "type": "message", "date": "2026-01-01", "from": "Anna",
         "text": ["See ", {"type": "link", "text": "this"}, "."]},
    ],
}  # fmt: skip
DISCORD = {
    "guild": {"name": "g"},
    "messages": [
        {"id": "1", "type": "Default", "timestamp": "2026", "content": "Hi.",
         "author": {"name": "ben1", "nickname": "Ben"}},
    ],
}  # fmt: skip
SLACK = [
    {"type": "message", "user": "U1", "text": "Morning.", "ts": "1.0"},
    {"type": "message", "subtype": "channel_join", "user": "U1", "text": "joined", "ts": "2.0"},
]


@pytest.mark.parametrize(
    ("export", "text"),
    [
        (TELEGRAM, "Ben: Grüße\nAnna: See this.\n"),
        ({"chats": {"list": [TELEGRAM]}}, "Ben: Grüße\nAnna: See this.\n"),
        (DISCORD, "Ben: Hi.\n"),
        (SLACK, "U1: Morning.\n"),
    ],
    ids=["telegram", "all of telegram", "discord", "slack"],
)
def test_an_export_of_a_chat_gives_who_said_what(tmp_path: Path, export: object, text: str):
    assert texts(write(tmp_path, "a.json", json.dumps(export))) == [text]


CHATGPT = [
    {
        "title": "Rain",
        "current_node": "d",
        "mapping": {
            "root": {"message": None, "parent": None},
            "a": {"parent": "root", "message": {"author": {"role": "system"},
                  "content": {"content_type": "text", "parts": [""]}}},
            "b": {"parent": "a", "message": {"author": {"role": "user"}, "create_time": 1.7e9,
                  "content": {"content_type": "text", "parts": ["Why does it rain?"]}}},
            "c": {"parent": "b", "message": {"author": {"role": "assistant"},
                  "content": {"content_type": "text", "parts": ["Another answer."]}}},
            "d": {"parent": "b", "message": {"author": {"role": "assistant"},
                  "content": {"content_type": "text", "parts": ["Clouds ", {"asset": 1}]}}},
        },
    },
    {"mapping": {"x": {"parent": "x", "message": {"author": {"role": "user"},
                 "content": {"parts": ["A circle."]}}}}},
]  # fmt: skip
CLAUDE = [
    {"name": "n", "chat_messages": [
        {"sender": "human", "text": "Hi.", "created_at": "2026-01-02T03:04:05Z"}]},
]  # fmt: skip


def test_an_export_of_an_assistant_gives_the_branch_that_is_shown(tmp_path: Path):
    path = write(tmp_path, "conversations.json", json.dumps(CHATGPT))
    corpus = read_corpus(CorpusConfig(sources=(str(path),)))
    assert [d.text for d in corpus.documents] == [
        "user: Why does it rain?\nassistant: Clouds \n",
        "user: A circle.\n",
    ]
    ledger = corpus.record()["ledger_bytes"]
    assert ledger["dropped"].keys() == {"answers that were replaced", "other fields"}
    assert ledger["dropped"]["answers that were replaced"] == len("Another answer.")
    assert texts(write(tmp_path, "b.json", json.dumps(CLAUDE))) == ["human: Hi.\n"]


@pytest.mark.parametrize(
    ("export", "text"),
    [
        (CHATGPT[:1], "[2023-11-14 22:13] user: Why does it rain?\nassistant: Clouds \n"),
        (CLAUDE, "[2026-01-02T03:04:05Z] human: Hi.\n"),
        (SLACK, "[1970-01-01 00:00] U1: Morning.\n"),
        (TELEGRAM, "[2026-01-01] Ben: Grüße\n[2026-01-01] Anna: See this.\n"),
    ],
    ids=["chatgpt", "claude", "slack", "telegram"],
)
def test_messages_keep_their_times_where_that_is_wanted(tmp_path: Path, export: object, text: str):
    assert texts(write(tmp_path, "a.json", json.dumps(export)), chat_times=True) == [text]


IOS = (
    "\u200e[12.03.24, 14:05:33] Chor: \u200eNachrichten sind verschlüsselt.\r\n"
    "[12.03.24, 14:06:01] ~\u202fÄnne Öz: Kommt ihr?\r\nUm 10:30: vor der Tür.\r\n"
    "\u200e[12.03.24, 14:07:00] Ben: \u200eBild weggelassen\r\n"
    "[12.03.24, 14:08:00] Ben: Ja. \u200e<Diese Nachricht wurde bearbeitet>\r\n"
)
ANDROID = (
    "3/12/24, 2:05\u202fPM - Messages and calls are end-to-end encrypted.\n"
    "3/12/24, 2:06\u202fPM - Änne Öz: Kommt ihr?\nUm 10:30: vor der Tür.\n"
    "3/12/24, 2:07\u202fPM - Ben: <Media omitted>\n"
    "3/12/24, 2:07\u202fPM - Ben: This message was deleted\n"
    "3/12/24, 2:08\u202fPM - Ben: Ja.\n"
)


@pytest.mark.parametrize("export", [IOS, ANDROID], ids=["ios", "android"])
def test_a_chat_of_whatsapp_gives_who_said_what(tmp_path: Path, export: str):
    path = write(tmp_path, "_chat.txt", export)
    corpus = read_corpus(CorpusConfig(sources=(str(path),)))
    (text,) = [d.text for d in corpus.documents]
    assert text == "Änne Öz: Kommt ihr?\nUm 10:30: vor der Tür.\nBen: Ja.\n".replace(
        "?\n", "?\r\n" if export is IOS else "?\n"
    )
    ledger = corpus.record()["ledger_bytes"]
    assert ledger["in"] == len(export.encode())
    assert set(ledger["dropped"]) == {"what the service reports", "times of messages"}


def test_times_of_whatsapp_are_kept_as_they_are_written(tmp_path: Path):
    (text,) = texts(write(tmp_path, "a.txt", ANDROID), chat_times=True)
    assert text.startswith("[3/12/24, 2:06\u202fPM] Änne Öz: Kommt ihr?\n")


@pytest.mark.parametrize(
    "line",
    [
        "2024/03/12 14:05 - 花子: おはよう",
        "12.03.24, 14:05 - Ben: Hi",
        "12/03/2024, 2:05 p. m. - Ben: Hola",
        "[2024-03-12, 2:05:33 PM] Ben: Hi",
    ],
)
def test_dates_of_many_countries_begin_a_message(tmp_path: Path, line: str):
    (text,) = texts(write(tmp_path, "a.txt", f"{line}\n{line}\n"))
    assert text == (line.split("- ")[-1].split("] ")[-1] + "\n") * 2


@pytest.mark.parametrize(
    "diary",
    [
        "12.03.24, 14:05 - it rained.\nA long day: nobody came.\n",
        "2024-03-12 14:05 - Bought apples.\n2024-03-12 18:30 - Dinner.\n2024-03-13 08:00 - Up.\n",
        "12.03.24, 14:05 - Met: them.\n12.03.24, 15:10 - Wrote.\n12.03.24, 16:00 - Sent.\n",
        "12.03.24, 14:05 - Seen: a heron.\n" * 2 + "\n" * 30 + "12.03.24, 14:06 - Gone.\n" * 3,
    ],
)
def test_a_diary_with_dates_is_no_chat(tmp_path: Path, diary: str):
    assert texts(write(tmp_path, "a.txt", diary)) == [diary]


MESSENGER = {
    "participants": [{"name": "Zo\u00c3\u00ab"}],
    "messages": [
        {"sender_name": "Ben", "timestamp_ms": 1700000002000,
         "content": "Gr\u00c3\u00bc\u00c3\u009fe"},
        {"sender_name": "Ben", "timestamp_ms": 1700000001000, "photos": [{"uri": "a.jpg"}]},
        {"sender_name": "Zo\u00c3\u00ab", "timestamp_ms": 1700000000000, "content": "Hallo"},
    ],
}  # fmt: skip


def test_messenger_gives_the_newest_first_and_escapes_bytes(tmp_path: Path):
    path = write(tmp_path, "message_1.json", json.dumps(MESSENGER))
    assert texts(path) == ["Zoë: Hallo\nBen: Grüße\n"]
    (text,) = texts(path, chat_times=True)  # type: ignore[arg-type]
    assert text.startswith("[2023-11-14 22:13] Zoë: ")


def test_an_encrypted_chat_of_messenger_is_a_chat(tmp_path: Path):
    messages = [
        {"senderName": "Zoë", "text": "Hallo", "timestamp": 1700000000000, "type": "text"},
        {"senderName": "Ben", "text": "Grüße", "timestamp": 1700000060000, "type": "text"},
    ]
    path = write(tmp_path, "a.json", json.dumps({"threadName": "Ben_1", "messages": messages}))
    assert texts(path) == ["Zoë: Hallo\nBen: Grüße\n"]
    assert texts(path, chat_times=True)[0].startswith("[2023-11-14 22:13] Zoë: ")


def test_who_speaks_in_slack_and_discord_and_what_their_programs_report(tmp_path: Path):
    slack = [
        {"user": "U1", "user_profile": {"real_name": "Ulla"}, "ts": "1.0", "text":
         "A &amp; B, <@U2>: <https://a.org|the page> in <#C1|general>, <https://b.org>"},
        {"user": "U2", "ts": "2.0", "subtype": "thread_broadcast", "text": "Said to all."},
        {"user": "U2", "ts": "3.0", "subtype": "channel_join", "text": "has joined"},
    ]  # fmt: skip
    discord = {"messages": [
        {"type": "Default", "timestamp": "2026", "content": "Hi.", "author": {"name": "ben"}},
        {"type": "Reply", "timestamp": "2026", "content": "Ho.", "author": {"name": "eva"}},
        {"type": "GuildMemberJoin", "timestamp": "2026", "content": "Joined the server.",
         "author": {"name": "max"}},
    ]}  # fmt: skip
    assert texts(write(tmp_path, "s.json", json.dumps(slack))) == [
        "Ulla: A & B, @U2: the page in #general, https://b.org\nU2: Said to all.\n"
    ]
    assert texts(write(tmp_path, "d.json", json.dumps(discord))) == ["ben: Hi.\neva: Ho.\n"]


def test_an_export_whose_first_chat_is_empty_is_an_export_all_the_same(tmp_path: Path):
    said = {"sender": "human", "created_at": "2026", "text": "Why?"}
    export = [{"name": "", "chat_messages": []}, {"name": "b", "chat_messages": [said]}]
    assert texts(write(tmp_path, "c.json", json.dumps(export))) == ["human: Why?\n"]


def test_a_list_of_records_gives_their_texts(tmp_path: Path):
    records = [{"id": 1, "text": "One."}, {"id": 2, "text": "Two."}]
    assert texts(write(tmp_path, "a.json", json.dumps({"data": records}))) == ["One.", "Two."]


@pytest.mark.parametrize("more", [{}, {"author": "Ann"}])
def test_articles_with_dates_are_records_and_no_chat(tmp_path: Path, more: dict[str, str]):
    news = [
        {"date": f"2026-01-0{n}", "title": f"No {n}", "text": f"Day {n}.", **more} for n in (2, 1)
    ]
    assert texts(write(tmp_path, "a.json", json.dumps(news))) == ["Day 2.", "Day 1."]


def test_lines_of_records_that_are_named_json_are_read_as_lines(tmp_path: Path):
    lines = [json.dumps({"stars": i, "text": f'review {i}\u2028"quoted"'}) for i in range(5)]
    assert texts(write(tmp_path, "reviews.json", "\n".join(lines) + "\n")) == [
        f'review {i}\u2028"quoted"' for i in range(5)
    ]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_title_above_paragraphs_is_not_taken_for_the_text(tmp_path: Path, name: str):
    def read(record: object) -> list[str]:
        return texts(write(tmp_path, name, json.dumps([record] if name == "a.json" else record)))

    with pytest.raises(UserError, match=r"the records have 'title', 'paragraphs'\. Name one"):
        read({"title": "A", "paragraphs": [{"context": "A long story."}, {"context": "An end."}]})
    story = "A story of some length."
    assert read({"abstract": story, "authors": [{"name": "A. B."}]}) == [story]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_text_inside_a_record_of_a_record_has_a_name_that_the_error_gives(
    tmp_path: Path, name: str
):
    record = {"id": "7", "lang": "en", "text": {"body": "A long story.", "by": {"name": "A. B."}}}
    path = write(tmp_path, name, json.dumps([record] if name == "a.json" else record))
    with pytest.raises(UserError, match=r"'text\.body', 'text\.by\.name'"):
        texts(path)
    assert texts(path, text_column="text.body") == ["A long story."]
    corpus = read_corpus(CorpusConfig(sources=(str(path),), text_column="text.body"))
    dropped = corpus.record()["ledger_bytes"]["dropped"]
    assert (dropped["other columns"], dropped["other fields"]) == (len("7en"), len("A. B."))


def test_json_of_no_known_kind_is_refused_in_words(tmp_path: Path):
    with pytest.raises(UserError, match=r"--corpus\.text-column"):
        texts(write(tmp_path, "a.json", json.dumps({"name": "x", "version": "1"})))


def test_parquet_and_arrow_give_a_document_for_each_row(tmp_path: Path):
    table = pyarrow.table({"id": [1, 2], "text": ["Eins.", "Zwei."]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with (
        pyarrow.OSFile(str(tmp_path / "b.arrow"), "wb") as file,
        pyarrow.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)
    assert texts(tmp_path / "a.parquet") == texts(tmp_path / "b.arrow") == ["Eins.", "Zwei."]
    with pytest.raises(UserError, match="it has id, text"):
        texts(tmp_path / "a.parquet", text_column="body")


@pytest.mark.parametrize(
    ("head", "next_head"),
    [
        ("09/12/2012 17:03:48: ", "09/12/2012 17:04:48: "),
        ("2023/3/4 下午3:02 - ", "2023/3/4 下午3:03 - "),
        ("2023. 3. 4. 오후 3:02, ", "2023. 3. 4. 오후 3:03, "),
        ("[4/3/2566 BE 15:02:11] ", "[4/3/2566 BE 15:02:12] "),
        ("٢٠٢٣/٣/٤، ٣:٠٢ م - ", "٢٠٢٣/٣/٤، ٣:٠٣ م - "),
        ("4.3.2023 klo 15.02 - ", "4.3.2023 klo 15.03 - "),
        ("04/03/2023 à 15:02 - ", "04/03/2023 à 15:03 - "),
        ("6/13/23, 7:35\u202fPM - ", "6/13/23, 7:36\u202fPM - "),
        ("12\u200f/3\u200f/2024، 2:05\u202fم - ", "12\u200f/3\u200f/2024، 2:06\u202fم - "),
        ("12.03.24 г., 14:05 - ", "12.03.24 г., 14:06 - "),
    ],
)
def test_dates_of_more_telephones_begin_a_message(tmp_path: Path, head: str, next_head: str):
    path = write(tmp_path, "chat.txt", f"{head}Ben: Hi\n{next_head}Eva: Ho: 1\n")
    assert texts(path) == ["Ben: Hi\nEva: Ho: 1\n"]


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-28 10:00:00 - ERROR: x",
        "[2026-11-28 10:00:00] local.ERROR: x",
        "2026/11/28 10:00:00: main: x",
        "12.03.24: Dear diary",
    ],
)
def test_a_log_of_a_program_is_no_chat(tmp_path: Path, line: str):
    assert texts(write(tmp_path, "log.txt", f"{line}\n{line}\n")) == [f"{line}\n{line}\n"]


@pytest.mark.parametrize(
    "name", ['Max "Maxi" Muster', "Max “Maxi” Muster", "„Maxi“ Muster", "«Макс»", 'ד"ר כהן']
)
def test_a_name_with_quotes_speaks_and_a_subject_with_a_colon_does_not(tmp_path: Path, name: str):
    chat = (
        f"12.03.24, 14:05 - {name}: Hi: all\n12.03.24, 14:06 - Eva: Ho\n"
        f'12.03.24, 14:07 - {name} changed the subject from "A" to "Re: all"\n'
    )
    assert texts(write(tmp_path, "chat.txt", chat)) == [f"{name}: Hi: all\nEva: Ho\n"]


def test_without_a_mark_only_words_of_the_app_itself_are_a_report(tmp_path: Path):
    chat = (
        "3/12/24, 2:05\u202fPM - Ben: Hi <This message was edited>\n"
        "3/12/24, 2:06\u202fPM - Ben: folio.io (my new site)\n"
        "3/12/24, 2:07\u202fPM - Ben: Write to Anna <Anna Berg>\n"
        "3/12/24, 2:08\u202fPM - Eva: IMG-20240312-WA0001.jpg (file attached)\nNice?\n"
        "3/12/24, 2:09\u202fPM - Eva: \u200eMy report.pdf (file attached)\nRead it.\n"
    )
    assert texts(write(tmp_path, "chat.txt", chat)) == [
        "Ben: Hi\nBen: folio.io (my new site)\nBen: Write to Anna <Anna Berg>\n"
        "Eva: Nice?\nEva: Read it.\n"
    ]


def test_what_a_telephone_puts_beside_a_message_is_counted(tmp_path: Path):
    chat = (
        "[1/2/24, 10:00:00] Ben: Hi \u200e<This message was edited>\n"
        "[1/2/24, 10:00:01] Ben: \u200e<attached: 1.opus>\n"
        "[1/2/24, 10:00:02] Ben changed the subject to “Re: all”\n"
        "[1/2/24, 10:00:03] Ben: This message was deleted.\n"
        "[1/2/24, 10:00:04] Eva: IMG-1.jpg (archivo adjunto)\nSee this\n"
    )
    corpus = read_corpus(CorpusConfig(sources=(str(write(tmp_path, "a.txt", chat)),)))
    assert corpus.documents[0].text == "Ben: Hi\nEva: See this\n"
    assert corpus.record()["ledger_bytes"]["dropped"]["what the service reports"] > 130
