"""Small texts of many kinds. All of them are made here, or are on every machine with Python."""

from __future__ import annotations

import random
import sysconfig
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

from scripts.gallery.chess import game, share_of_legal


@dataclass(frozen=True)
class Text:
    """A text, what to say about it, and what can be counted in a sample."""

    name: str
    title: str
    about: str
    make: Callable[[random.Random], str]
    prompt: str = ""
    counted: Callable[[str, str], str] | None = None
    """Of a sample and the text: how much of the sample is right, in words."""
    suffix: str = ".txt"
    """Of the file that the text is read from."""


def diary(draw: random.Random, days: int = 1500) -> str:
    """A person who never was, day after day: weather, work, people, and what is on her mind."""
    day, lines = date(1987, 3, 2), []
    worry = draw.choice(WORRIES)
    for _ in range(days):
        day += timedelta(days=draw.choice((1, 1, 1, 2, 3)))
        if draw.random() < 0.15:
            worry = draw.choice(WORRIES)
        season = ("Winter", "Spring", "Summer", "Autumn")[(day.month % 12) // 3]
        sentences = [
            draw.choice(WEATHER[season]),
            draw.choice(DEEDS).format(
                who=draw.choice(PEOPLE), what=draw.choice(THINGS), where=draw.choice(PLACES)
            ),
            draw.choice(MEETINGS).format(who=draw.choice(PEOPLE), said=draw.choice(SAID)),
            f"Still no word about {worry}." if draw.random() < 0.4 else "Early to bed.",
        ]
        kept = [s for s in sentences if draw.random() < 0.85] or sentences[:1]
        lines.append(f"{day:%A}, {day.day} {day:%B} {day.year}\n{' '.join(kept)}\n")
    return "\n".join(lines)


def mails(draw: random.Random, letters: int = 1200) -> str:
    """A mailbox of friends who write and answer, with headers, quoted lines and signatures."""
    at, box, quoted = datetime(2003, 9, 1, 9), [], ""
    sender, receiver, subject = "Marta", "Jonas", "the house"
    for number in range(letters):
        at += timedelta(hours=draw.randint(2, 60))
        is_answer = quoted and draw.random() < 0.6
        if is_answer:
            sender, receiver = receiver, sender
        else:
            sender, receiver = draw.sample(FRIENDS, 2)
            subject = draw.choice(WORRIES)
        first = THANKS if is_answer else ABOUT
        sentences = [draw.choice(first).format(about=subject)] + [
            draw.choice(NEWS).format(
                who=draw.choice(PEOPLE), what=draw.choice(THINGS), where=draw.choice(PLACES)
            )
            for _ in range(draw.randint(1, 4))
        ]
        told = " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
        body = f"Dear {receiver},\n\n{told}\n\n{draw.choice(GOODBYES)}\n{sender}\n"
        letter = EmailMessage()
        letter["From"], letter["To"] = (
            f"{sender.lower()}@example.org",
            f"{receiver.lower()}@example.org",
        )
        letter["Subject"] = f"Re: {subject}" if is_answer else subject
        letter["Date"], letter["Message-ID"] = at, f"<{number}@example.org>"
        letter.set_content(f"{body}-- \n{sender}, by the canal\n{quoted if is_answer else ''}")
        quoted = "\n" + "".join(f"> {line}\n" for line in body.splitlines())
        box.append(f"From {letter['From']} {at:%a %b %d %H:%M:%S %Y}\n{letter.as_string()}\n")
    return "".join(box)


def lighthouse(draw: random.Random, days: int = 1500) -> str:
    """The log of a lighthouse, in German: wind, ships, repairs."""
    day, lines = date(1911, 1, 1), []
    oil = 400
    for _ in range(days):
        day += timedelta(days=1)
        oil = oil - draw.randint(3, 6) if oil > 20 else 400
        wind, force = draw.choice(WIND), draw.randint(1, 11)
        ships = draw.randrange(len(GESICHTET))
        sentences = [
            f"Wind aus {wind}, Stärke {force}, {'schwere See' if force > 7 else 'ruhige See'}.",
            GESICHTET[ships] + (f", darunter die „{draw.choice(SCHIFFE)}“." if ships else "."),
            draw.choice(ARBEITEN).format(teil=draw.choice(TEILE)),
            f"Noch {oil} Liter Öl." if oil < 400 else "Das Versorgungsboot brachte Öl und Brot.",
        ]
        lines.append(f"{day.day}. {MONATE[day.month - 1]} {day.year}. {' '.join(sentences)}")
    return "\n".join(lines) + "\n"


def genome(draw: random.Random, genes: int = 700) -> str:
    """A made-up genome: genes from ATG to a stop, whose codons are not equally frequent; between
    them much A and T, and an element that recurs with small changes.
    """
    bases = "ACGT"
    codons = [a + b + c for a in bases for b in bases for c in bases]
    frequent = [c for c in codons if c not in STOPS]
    weights = [draw.expovariate(1.0) for _ in frequent]
    element = "".join(draw.choices(bases, k=60))
    letters: list[str] = []
    for _ in range(genes):
        letters += draw.choices(bases, (3, 1, 1, 3), k=draw.randint(40, 120))
        if draw.random() < 0.5:
            letters += [draw.choice(bases) if draw.random() < 0.05 else b for b in element]
        letters += ["ATG", *draw.choices(frequent, weights, k=draw.randint(40, 90))]
        letters.append(draw.choice(STOPS))
    sequence = "".join(letters)
    return "\n".join(sequence[i : i + 60] for i in range(0, len(sequence), 60)) + "\n"


def chess(draw: random.Random, games: int = 400) -> str:
    """Games of two careless players who know the rules, one a line."""
    return "\n".join(game(draw) for _ in range(games)) + "\n"


def names(draw: random.Random, most: int = 12000) -> str:
    """The names of Unicode's characters, as every Python has them, in a random order."""
    known = (unicodedata.name(chr(code), "") for code in range(0x2FFFF))
    boring = ("CJK ", "HANGUL SYLLABLE", "EGYPTIAN", "TANGUT", "KHITAN", "NUSHU", "CUNEIFORM")
    chosen = [name for name in known if name and not name.startswith(boring)]
    draw.shuffle(chosen)
    return "\n".join(chosen[:most]) + "\n"


def code(draw: random.Random, most: int = 300_000) -> str:
    """Modules of Python's standard library, in a random order."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py"))
    draw.shuffle(files)
    parts: list[str] = []
    for path in files:
        if sum(map(len, parts)) >= most:
            break
        parts.append(path.read_text(encoding="utf-8"))
    return "\n".join(parts)[:most]


def legal(sample: str, text: str) -> str:
    """How many moves of a sample are legal."""
    right, tried = share_of_legal(sample)
    return f"{right} of {tried} moves are legal, counting in each game up to the first that is not"


def new_names(sample: str, text: str) -> str:
    """How many lines of a sample are names that the text does not have."""
    there = set(text.splitlines())
    lines = sample.splitlines()[:-1]  # the last one may be cut off
    new = sum(line not in there for line in lines)
    return f"{new} of {len(lines)} names are not in the text"


STOPS = ("TAA", "TAG", "TGA")

WEATHER = {
    "Winter": ["Frost on the window.", "It snowed until noon.", "A grey day, and cold."],
    "Spring": ["Rain, then sun.", "The plum tree is in bloom.", "Mild, with a wet wind."],
    "Summer": ["Hot from early on.", "A storm in the night.", "Not a cloud all day."],
    "Autumn": ["Fog over the canal.", "The first leaves are down.", "Wind from the west."],
}
PEOPLE = ["Marta", "old Brandt", "my sister", "Jonas", "the doctor", "Aunt Ilse", "Mr. Okoro"]
THINGS = ["bread", "stamps", "a pair of gloves", "lamp oil", "two letters", "blue wool"]
PLACES = ["the market", "the mill", "the station", "the library", "the harbour", "the bakery"]
DEEDS = [
    "Went to {where} and came back with {what}.",
    "Mended the gate with {who}, who had brought {what}.",
    "Took {what} to {who} at {where}.",
    "Looked for {what} everywhere; it was at {where}.",
    "Worked until dark, then walked to {where}.",
    "Wrote to {who} and asked for {what}.",
]
MEETINGS = [
    'Met {who}, who said: "{said}"',
    "{who} came by, but did not stay.",
    "Supper with {who}. We spoke little.",
    'At the door {who} turned round and said: "{said}"',
    "Dreamt of {who} again.",
]
SAID = [
    "You should leave before the winter.",
    "The mill will be sold.",
    "Nobody has seen him since Sunday.",
    "It was not your fault.",
    "Keep the key, I have another.",
    "There is a letter for you.",
]
WORRIES = ["the house", "the money", "his ship", "the results", "the key", "the child"]

FRIENDS = ["Marta", "Jonas", "Ilse", "Ada", "Tomas"]
ABOUT = [
    "I have been thinking about {about} all week.",
    "Have you heard anything about {about}?",
    "It is about {about} that I write.",
    "You will have guessed that this is about {about}.",
]
THANKS = [
    "thank you for what you wrote about {about}.",
    "your letter came this morning, and I read it twice.",
    "you are right about {about}, as always.",
    "no, I have heard nothing about {about}.",
]
NEWS = [
    "On Friday I met {who} at {where}, and we spoke of old times.",
    "Could you bring {what} when you come?",
    "They say that {where} will be closed until spring.",
    "I have sent you {what}; {who} will give it to you.",
    "Do not believe what {who} told you at {where}.",
    "If the weather holds we shall walk to {where} on Sunday.",
    "I lost {what} somewhere between {where} and here.",
    "{who} asked after you, and I said that you were well.",
]
GOODBYES = ["Yours,", "With love,", "In haste,", "Write soon,", "Until Sunday,"]

WIND = ["Nord", "Nordost", "Ost", "Südost", "Süd", "Südwest", "West", "Nordwest"]
GESICHTET = [
    "Kein Schiff gesichtet",
    "Ein Schiff zog vorbei",
    "Zwei Schiffe zogen vorbei",
    "Drei Schiffe zogen vorbei",
]
SCHIFFE = ["Hoffnung", "Anna Maria", "Möwe", "Seestern", "Königin Luise", "Albatros", "Frieda"]
TEILE = ["die Linse", "das Uhrwerk", "die Treppe", "den Docht", "das Geländer", "die Fenster"]
ARBEITEN = [
    "Am Vormittag {teil} gereinigt.",
    "Am Abend {teil} geprüft, alles in Ordnung.",
    "Musste {teil} noch einmal richten.",
    "Der Gehilfe hat {teil} gestrichen.",
    "In der Nacht war nichts zu tun.",
]
MONATE = [
    *("Januar", "Februar", "März", "April", "Mai", "Juni"),
    *("Juli", "August", "September", "Oktober", "November", "Dezember"),
]

TEXTS = (
    Text(
        "mails",
        "Mails",
        "A mailbox of friends who write and answer. Folio leaves out headers, quoted lines and "
        "signatures.",
        mails,
        "Have you heard ",
        suffix=".mbox",
    ),
    Text("diary", "A diary", "A person who never was, day after day.", diary, "Monday, "),
    Text(
        "lighthouse",
        "A log in German",
        "Wind, ships and repairs at a lighthouse, day after day.",
        lighthouse,
        "1. Mai 1915. ",
    ),
    Text(
        "chess",
        "Chess",
        "Games of two careless players who know the rules, in coordinates.",
        chess,
        "e2e4 ",
        legal,
    ),
    Text(
        "genome",
        "DNA",
        "A made-up genome with genes, codons that are not equally frequent, and an element that "
        "recurs with small changes.",
        genome,
    ),
    Text("names", "Names", "What Unicode calls its characters.", names, counted=new_names),
    Text("code", "Code", "Modules of Python's standard library.", code, "def "),
)
"""In the order of the gallery."""
