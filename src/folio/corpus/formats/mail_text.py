"""What the sender of a mail wrote: without signature, quoted mail, and files packed into
the text.
"""

from __future__ import annotations

import re

from folio.corpus.formats.passage import Notes

SIGNATURE_LINES = 20
"""A signature has at most so many lines; a longer ending after a line of dashes is text."""
ATTRIBUTION_CHARACTERS = 500
_QUOTED = re.compile(r"^\s*>")
_WROTE = (
    r"wrote|writes|schrieb|a écrit|escribió|ha scritto|schreef|escreveu|pisze|napisał|написал|"
    r"пишет|skrev|kirjoitti|yazdı|写道|さん"
)
_ATTRIBUTION = re.compile(
    rf"^(?!\s*>).{{0,300}}(?:{_WROTE}|\d{{1,2}}[:.h]\d{{2}}\b|\S@\S).{{0,200}}[:：]$", re.DOTALL
)
"""The line before a quote that says who wrote it, or when."""
_BEGUN = re.compile(r"(?:On|Am|Le|El|Il|Op|Em|W dniu|Den|Dne|В|\d{1,4}[./-]\d)\b")
"""How such a line begins if it takes two lines."""
_ORIGINAL = re.compile(
    r"^\s*-{2,}\s*(Original Message|Ursprüngliche Nachricht|Message d'origine|Mensaje original|"
    r"Messaggio originale|Mensagem original|Oorspronkelijk bericht|Исходное сообщение|"
    r"Forwarded message|Begin forwarded message)",
    re.IGNORECASE,
)
_FROM = re.compile(r"^[\s*]*(From|Von|De|Da|Van|Od|Från|Fra|От|发件人|差出人)\s*[:：]")
_SENT = re.compile(
    r"^[\s*]*(Sent|Gesendet|Envoyé|Enviado|Inviato|Verzonden|Wysłano|Skickat|Отправлено|发送时间|"
    r"送信日時)\s*[:：]"
)
_DATE = re.compile(r"^[\s*]*(Date|Datum|Data|Дата|日期)\s*[:：]")
_OF_A_MAIL = re.compile(
    r"^[\s*]*(Subject|Betreff|Objet|Asunto|Assunto|Oggetto|Onderwerp|Temat|Ämne|Тема|主题|件名)\s*[:：]|"
    r"\S@\S"
)
"""What a mail has beside sender and date, and a journey has not."""
HEAD_LINES = 6
_LIST = re.compile(r"^_{40,}$")
_ARMOR = re.compile(
    r"^-----BEGIN PGP SIGNED MESSAGE-----\n(?:\w+: [^\n]*\n)*\n?|"
    r"^-----BEGIN PGP (?P<kind>[A-Z ]+)-----$.*?(?:^-----END PGP (?P=kind)-----$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_PACKED = re.compile(
    r"^begin [0-7]{3,4} [^\n]+\n(?:[ -`]{1,90}\n)*end *$|"
    r"^begin-base64 [0-7]{3,4} [^\n]+\n(?:[A-Za-z0-9+/=]{1,90}\n)*==== *$",
    re.MULTILINE,
)
"""Matches a uuencoded file."""
_PARAMETER = re.compile(r"<param>.{0,1000}?</param>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"<<|</?[\w-]{1,60}>")
_LINE_ENDS = re.compile(r"\n+")


def written(body: str, notes: Notes) -> str:
    """Remove the signature, quoted lines and their attributions."""
    lines = _unpacked(body.replace("\r\n", "\n"), notes).split("\n")
    for reason, end_of in (("quoted mail", _original), ("signatures", _signature)):
        end = end_of(lines)
        notes.drop(reason, "\n".join(lines[end:]))
        lines = lines[:end]
    kept: list[str] = []
    for line in lines:
        if not _QUOTED.match(line):
            kept.append(line)
            continue
        notes.drop("quoted mail", line)
        while kept and not kept[-1].strip():
            kept.pop()
        if n := _attribution(kept):
            notes.drop("quoted mail", "\n".join(kept[-n:]))
            del kept[-n:]
        kept.append("")
    return (
        re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n") + "\n"
        if any(map(str.strip, kept))
        else ""
    )


def unwrapped(text: str, joined: bool) -> str:
    """Join lines that end with a space to the next line, as in RFC 3676 (format=flowed).

    >>> unwrapped("This is \\none line.\\n> q \\n-- \\nAnn", joined=False)
    'This is one line.\\n> q \\n-- \\nAnn'
    """
    lines: list[str] = []
    goes_on = False
    for line in text.replace("\r\n", "\n").split("\n"):
        plain = not line.startswith(">") and line != "-- "
        line = line.removeprefix(" ") if plain else line
        if goes_on and plain:
            before = lines.pop()
            line = (before.removesuffix(" ") if joined else before) + line
        lines.append(line)
        goes_on = plain and line.endswith(" ")
    return "\n".join(lines)


def enriched(text: str, notes: Notes) -> str:
    """The text of RFC 1896: a line end is a space unless several follow each other.

    >>> enriched("<bold>Good</bold>\\nmorning <<b>.\\n\\nAnn", Notes())
    'Good morning <b>.\\nAnn'
    """
    for setting in _PARAMETER.findall(text):
        notes.drop("attributes", setting)
    text = _TAG.sub(
        lambda tag: "<" if tag[0] == "<<" else "", _PARAMETER.sub("", text.strip("\r\n"))
    )
    return _LINE_ENDS.sub(lambda ends: ends[0][1:] or " ", text.replace("\r\n", "\n"))


def quoted_in_a_page(tag: str, given: dict[str, str | None]) -> str:
    """Why an element of an HTML mail is skipped: mail programs put quotes into it."""
    names = (given.get("class") or "").split()
    is_quote = tag == "blockquote" and (given.get("type") == "cite" or "gmail_quote" in names)
    is_quote |= tag == "div" and bool({"gmail_quote", "yahoo_quoted", "moz-cite-prefix"} & {*names})
    if is_quote:
        return "quoted mail"
    return "signatures" if {"gmail_signature", "moz-signature"} & {*names} else ""


def _unpacked(text: str, notes: Notes) -> str:
    """Remove files packed into a text, and the armor of encryption."""
    for match in _PACKED.finditer(text):
        notes.drop("attachments", match[0])
    text = _PACKED.sub("", text)
    if "-----BEGIN PGP" not in text:
        return text
    for match in _ARMOR.finditer(text):
        kind = match["kind"]
        notes.drop("encrypted text" if kind == "MESSAGE" else "signatures", match[0])
    return re.sub(r"^- (?=-)", "", _ARMOR.sub("", text), flags=re.MULTILINE)


def _signature(lines: list[str]) -> int:
    """The line at which the signature, or that of a mailing list, begins; else the end.

    Several lines of bare dashes separate paragraphs.
    """
    dashes = ("-- ", "--") if lines.count("--") == 1 else ("-- ",)
    n_after = 0
    begin = len(lines)
    for i in range(len(lines) - 1, 0, -1):
        is_list = _LIST.match(lines[i]) and "list" in "".join(lines[i + 1 : i + 3])
        if n_after <= SIGNATURE_LINES and (lines[i] in dashes or is_list):
            begin, n_after = i, 0
        n_after += not _QUOTED.match(lines[i])
        if n_after > SIGNATURE_LINES:
            break
    return begin


def _original(lines: list[str]) -> int:
    """The line at which a mail that is quoted as a whole begins; else the end."""
    for i, line in enumerate(lines):
        if _ORIGINAL.match(line) or (
            i > 0 and _FROM.match(line) and _heads(lines[i : i + HEAD_LINES])
        ):
            return i
    return len(lines)


def _heads(lines: list[str]) -> bool:
    """Whether lines of which the first names a sender, or a place, are the head of a mail."""
    dated = any(map(_DATE.match, lines[1:3])) and any(map(_OF_A_MAIL.search, lines))
    return dated or any(map(_SENT.match, lines[1:3]))


def _attribution(kept: list[str]) -> int:
    """How many lines before a quote attribute it; "On Monday ... wrote:" may take two."""
    for n in (2, 1):
        said = kept[-n:]
        text = "\n".join(said)
        begins = n == 1 or (len(said) == 2 and _BEGUN.match(said[0]) and said[1].strip())
        if begins and len(text) < ATTRIBUTION_CHARACTERS and _ATTRIBUTION.match(text):
            return n
    return 0
