"""JSON lines: the text of each record, under a key that is chosen from the first thousand."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from folio.corpus.formats.conversations import CONVERSATION_KEYS, conversation, instruction
from folio.corpus.formats.passage import Notes, Passage
from folio.corpus.formats.tables import TEXT_COLUMNS
from folio.corpus.turns import SPEAKERS, is_answered, marked, messages_in, turns_of
from folio.errors import UserError

FIRST_RECORDS = 1000
FIRST_CHARACTERS = 1 << 24
"""In characters; the key is chosen from as many, or from a thousand records."""
BAD_LINES = 0.01
"""Share of lines that may be invalid JSON; one line always may."""
OTHERS_SPEAK = "conversations in which others speak"


class Record(NamedTuple):
    """A record, its position, and the size of its source."""

    place: str
    value: Any
    n_bytes: int


def read_jsonl(
    lines: Iterator[str], column: str, notes: Notes, conversations: str = "text"
) -> Iterator[Passage]:
    """Read the text of each line; a line may also be a bare string, or a conversation."""
    yield from texts_of_records(_parsed(lines, notes), column, notes, conversations)


def texts_of_records(
    records: Iterable[Record], column: str, notes: Notes, conversations: str = "text"
) -> Iterator[Passage]:
    """Read one document per record that has a text.

    Args:
        records: the records of a file.
        column: the key of the text, if the user named one; of a record inside the record, with a
            dot between the keys, as in `answer.body`.
        notes: records what is left out.
        conversations: `turns` if they are to be kept apart from text.

    Raises:
        UserError: no record has text, or none under the key that was named.
    """
    coming = iter(records)
    first = list(_first(coming))
    chosen = column or _choose([record.value for record in first])
    n = n_without = 0
    seen, left_out = Counter[str](), Counter[str]()
    talks = conversations == "turns" and not column
    answered = talks and any(is_answered(messages_in(record.value) or ()) for record in first)
    for record in itertools.chain(first, coming):
        n += 1
        said = messages_in(record.value) if talks else None
        if said and (answered or is_answered(said)):
            if why := _why_left_out(said):
                notes.dropped[why] += record.n_bytes
                left_out[why] += 1
            else:
                text = _turns(record, said, notes)
                yield Passage(text, record.place, document=True, conversation=True)
            continue
        text = _text(record.value, chosen, notes)
        if text:
            yield Passage(text, record.place, document=True)
        else:
            n_without += 1
            notes.dropped["records without text"] += record.n_bytes
            if isinstance(record.value, dict):
                seen.update(_columns(record.value))
    if n and n_without == n and seen and chosen not in seen:
        names = ", ".join(repr(name) for name, _ in seen.most_common(12))
        raise UserError(
            f"{first[0].place} has no text in '{chosen or 'text'}'; the records have {names}. "
            f"Name one with --corpus.text-column"
        )
    for why, count in left_out.items():
        who = f" than {', '.join(SPEAKERS)}" if why == OTHERS_SPEAK else ""
        notes.warnings.append(f"{count:,} of {n:,} records are {why}{who}; they are left out")
    if n_without:
        key = f" in '{chosen}'" if chosen else ""
        notes.warnings.append(f"{n_without:,} of {n:,} records have no text{key}")


def _parsed(lines: Iterator[str], notes: Notes) -> Iterator[Record]:
    n_lines = n_bad = 0
    first_bad = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        n_lines += 1
        n_bytes = len(line.encode("utf-8", "replace"))
        try:
            value = json.loads(line.lstrip("\ufeff"))
        except (ValueError, RecursionError):
            n_bad += 1
            first_bad = first_bad or number
            notes.dropped["lines that are not JSON"] += n_bytes
            continue
        yield Record(f"line {number}", value, n_bytes)
    if n_bad > max(1, BAD_LINES * n_lines) or n_bad == n_lines > 0:
        raise UserError(
            f"{n_bad:,} of its {n_lines:,} lines are not JSON, the first is line {first_bad}"
        )
    if n_bad:
        notes.warnings.append(
            f"{n_bad:,} of {n_lines:,} lines {'is' if n_bad == 1 else 'are'} not JSON and left "
            f"out, the first is line {first_bad}"
        )


def _first(records: Iterator[Record]) -> Iterator[Record]:
    n_characters = 0
    for record in itertools.islice(records, FIRST_RECORDS):
        yield record
        n_characters += record.n_bytes
        if n_characters > FIRST_CHARACTERS:
            return


def _choose(values: list[Any]) -> str:
    """The key under which most records have text; names of text columns take precedence."""
    counts: Counter[str] = Counter()
    for value in values:
        if isinstance(value, dict):
            counts.update(key for key, text in value.items() if isinstance(text, str) and text)
    lower = {key.strip().lower(): key for key in reversed(counts)}
    known = [lower[name] for name in TEXT_COLUMNS if name in lower]
    most = max((counts[key] for key in known), default=0)
    if known:
        return next(key for key in known if counts[key] >= most / 2)
    converses = any(isinstance(v, dict) and set(v) & set(CONVERSATION_KEYS) for v in values)
    if len(counts) != 1 or converses:
        return ""
    (only,) = counts
    records = [value for value in values if isinstance(value, dict)]
    n_only = sum(len(record.get(only) or "") for record in records)
    deeper = [x for record in records for x in record.values() if isinstance(x, dict | list)]
    # A title above paragraphs is not the text.
    return only if n_only >= sum(map(len, strings(deeper))) else ""


def _columns(record: dict[str, Any]) -> Iterator[str]:
    """The keys of a record; of the records in it, their keys behind a dot."""
    for key, value in record.items():
        if isinstance(value, dict) and value:
            yield from (f"{key}.{name}" for name in _columns(value))
        else:
            yield key


def _find(record: dict[str, Any], column: str) -> tuple[str, Any]:
    """Find a column: its key in the record itself, and its value; None if there is none."""
    key, dot, rest = column.partition(".")
    if column in record or not dot or not isinstance(record.get(key), dict):
        return column, record.get(column)
    return key, _find(record[key], rest)[1]


def _text(value: Any, chosen: str, notes: Notes) -> str:
    """The text of a record; everything else in it is counted."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        return ""
    key, found = _find(value, chosen)
    text, used = "", {key}
    if isinstance(found, str):
        text = found
    elif isinstance(found, list):
        text = conversation(found)
    else:
        for key in CONVERSATION_KEYS:
            if not text and isinstance(value.get(key), list):
                text, used = conversation(value[key]), {key}
        if not text:
            text, used = instruction(value)
    if text:
        for key, other in value.items():
            if key not in used:
                notes.drop("other columns", " ".join(strings(other)))
            elif not isinstance(other, str):  # turns, of which only what is said is text
                drop_other_fields(other, len(text.encode("utf-8", "replace")), notes)
    return text


def _why_left_out(said: Sequence[tuple[str, str]]) -> str:
    """Name what keeps a conversation from being learned; empty if nothing does."""
    if any(role not in SPEAKERS for role, _ in said):
        return OTHERS_SPEAK
    if not is_answered(said):
        return "conversations without an answer"
    if not any(role == "assistant" and text for role, text in said):
        return "conversations whose answers have no text"
    return ""


def _turns(record: Record, said: Sequence[tuple[str, str]], notes: Notes) -> str:
    """A conversation with its marks."""
    table = record.value
    used = {"messages"} if "messages" in table else {"prompt", "completion"}
    n_known = sum(len(text.encode("utf-8", "replace")) for message in said for text in message)
    drop_other_fields([table[key] for key in used], n_known, notes)
    for key in table.keys() - used:
        notes.drop("other columns", " ".join(strings(table[key])))
    return marked(turns_of(said))


def drop_other_fields(value: Any, n_known: int, notes: Notes) -> None:
    """Count what a value holds beyond the bytes that were read from it or counted before."""
    n_bytes = sum(len(text.encode("utf-8", "replace")) for text in strings(value))
    notes.dropped["other fields"] += max(n_bytes - n_known, 0)


def strings(value: Any) -> Iterator[str]:
    """The strings and numbers inside a value."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))
        elif value is not None:
            yield str(value)
