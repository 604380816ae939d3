"""Canaries: random secrets planted in the training text, to see how soon a model leaks them.

After Carlini et al. 2019, "The Secret Sharer", https://arxiv.org/abs/1802.08232. A canary is a
line of its own, a label and the secret; it occurs once, twice, four or eight times. It tells in
advance what would happen to a real number in the text.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from folio.corpus.document import Part
from folio.errors import UserError

TIMES = (1, 2, 4, 8)
SYMBOLS = 8
LABEL_SYMBOLS = 4


@dataclass(frozen=True)
class Canary:
    """A planted line and how often it occurs."""

    label: str
    secret: str
    times: int

    @property
    def line(self) -> str:
        """The whole line, as it is written into the text."""
        return f"\n{self.label} {self.secret}\n"

    def record(self) -> dict[str, Any]:
        """Return its entry for canaries.json."""
        return asdict(self)


def make_canaries(number: int, known: set[str], seed: int) -> list[Canary]:
    """Draw canaries, equally many for each count in TIMES.

    Args:
        number: how many canaries.
        known: characters in the vocabulary.
        seed: equal seeds give equal canaries.

    Raises:
        UserError: the vocabulary has too few letters and digits, no space or no line end.
    """
    digits = sorted(set("0123456789") & known)
    letters = sorted(c for c in known if len(c) == 1 and c.isalpha())
    symbols = digits if len(digits) == 10 else letters
    if len(symbols) < 10 or not {" ", "\n"} <= known:
        raise UserError(
            "corpus.canaries needs ten digits or letters, a space and a line end in the "
            "vocabulary. Leave it out, or take tokens that know all bytes: --tokenizer.kind bpe."
        )
    chosen = random.Random(f"canaries {seed}")

    def drawn(n: int) -> str:
        return "".join(chosen.choice(symbols) for _ in range(n))

    return [
        Canary(drawn(LABEL_SYMBOLS), drawn(SYMBOLS), TIMES[i % len(TIMES)]) for i in range(number)
    ]


def plant(parts: Sequence[Part], canaries: Sequence[Canary], seed: int) -> list[Iterator[str]]:
    """Insert the canaries into some texts, each after a line end.

    Args:
        parts: the training text.
        canaries: what to plant.
        seed: chooses the positions, which are uniform over all characters.
    """
    chosen = random.Random(f"places {seed}")
    total = sum(map(len, parts))
    places = sorted(
        (chosen.randrange(max(total, 1)), canary.line)
        for canary in canaries
        for _ in range(canary.times)
    )
    texts, begin = [], 0
    for part in parts:
        mine = [(at - begin, line) for at, line in places if begin <= at < begin + len(part)]
        texts.append(_planted(part.pieces(), mine))
        begin += len(part)
    return texts


def _planted(pieces: Iterator[str], lines: Sequence[tuple[int, str]]) -> Iterator[str]:
    """A text with each line inserted after the first line end at or after its position, or at the
    end.
    """
    waiting, position = list(lines), 0
    for piece in pieces:
        first = 0
        while waiting:
            end = piece.find("\n", max(first, waiting[0][0] - position))
            if end < 0:
                break
            yield piece[first : end + 1]
            yield waiting.pop(0)[1]
            first = end + 1
        yield piece[first:]
        position += len(piece)
    yield from (line for _, line in waiting)
