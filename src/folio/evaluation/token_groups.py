"""The loss of kinds of tokens: of letters, digits, spaces ..., and of places within a word.

They tell what a model learns when: first how often characters occur, then how words are spelled,
and only then which word comes next, which the first letter of a word shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.uncertainty import ratio_error
from folio.tokenizers.base import TokenIds, Tokenizer

CLASSES = ("letters", "upper case", "digits", "spaces", "punctuation")
"""Of a token, by its first character that is no space."""
PLACES = ("first letter", "second", "third", "fourth and fifth", "later")
"""Of a token's first letter within its word."""
OF_PLACE = np.array([-1, 0, 1, 2, 3, 3, 4])
"""Number of a letter in its word, 6 and more being 6 -> index in PLACES; 0 is no letter."""

Losses = dict[str, tuple[float, float]]
"""Name of a group -> nats per token, and their standard error."""


@dataclass(frozen=True)
class TokenGroups:
    """The groups of the N - 1 targets of a text; -1 is none."""

    classes: NDArray[np.int64]
    """(N - 1,) indices in CLASSES."""
    places: NDArray[np.int64]
    """(N - 1,) indices in PLACES."""
    clusters: NDArray[np.int64]
    """(N - 1,) which targets belong to one text, for the standard error."""

    @classmethod
    def of(
        cls,
        tokens: TokenIds,
        tokenizer: Tokenizer,
        clusters: NDArray[np.integer] | None = None,
        counted: NDArray[np.bool_] | None = None,
    ) -> TokenGroups:
        """Sort the targets of a text.

        Args:
            tokens: (N,) token ids.
            tokenizer: that made them.
            clusters: (N,) the text of each; None takes each token as one.
            counted: (N,) which of them count; None is all.
        """
        tokens = np.asarray(tokens)
        classes, letters, whole, joined = _kinds(tokenizer)[:, tokens]
        inside = (joined == 1) & _is_word(classes)
        before = np.append(0, _letters_behind(letters, whole == 1))[:-1]
        number = np.where(inside, before + 1, np.where(_is_word(classes), 1, 0))
        places = OF_PLACE[np.minimum(number, 6)]
        if counted is not None:
            classes, places = np.where(counted, classes, -1), np.where(counted, places, -1)
        texts = np.arange(len(tokens)) if clusters is None else clusters
        return cls(classes[1:], places[1:], texts[1:].astype(np.int64))

    def losses(self, nll: NDArray[np.floating]) -> tuple[Losses, Losses]:
        """The losses of the classes and of the places that occur, from the (N - 1,) nats of each
        target, nan being one that was not read.
        """
        return self._means(nll, self.classes, CLASSES), self._means(nll, self.places, PLACES)

    def _means(
        self, nll: NDArray[np.floating], groups: NDArray[np.int64], names: tuple[str, ...]
    ) -> Losses:
        found: Losses = {}
        for index, name in enumerate(names):
            inside = (groups == index) & ~np.isnan(nll)
            if not inside.any():
                continue
            texts, each = self.clusters[inside], nll[inside].astype(np.float64)
            error = ratio_error(np.bincount(texts, each), np.bincount(texts))
            found[name] = float(each.mean()), error
        return found


def _is_word(classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    return (classes == CLASSES.index("letters")) | (classes == CLASSES.index("upper case"))


def _kinds(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """(4, V) of each id: its class; how many letters it ends with; 1 if it is letters alone; and 1
    if its first letter continues what stands before it.
    """
    rows = []
    special = set(tokenizer.special_tokens.values())
    for token_id, piece in enumerate(tokenizer.pieces):
        text = "" if token_id in special else piece.decode("utf-8", errors="replace")
        body = text.lstrip()
        ending = text[len(text.rstrip(_letters_of(text))) :]
        joined = not tokenizer.separator and len(body) == len(text)
        whole = joined and bool(text) and len(ending) == len(text)
        rows.append((_class(text, body), len(ending), int(whole), int(joined)))
    return np.array(rows, np.int64).T


def _letters_of(text: str) -> str:
    """Those characters of a text that are letters."""
    return "".join(c for c in text if c.isalpha()) or "\0"


def _class(text: str, body: str) -> int:
    if not body or body[0] == "\ufffd":  # a special token, or a part of a character
        return CLASSES.index("spaces") if text and not body else -1
    if body[0].isalpha():
        return CLASSES.index("upper case" if body[0].isupper() else "letters")
    return CLASSES.index("digits" if body[0].isdigit() else "punctuation")


def _letters_behind(letters: NDArray[np.int64], whole: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) how many letters in a row stand before the end of each token, across tokens.

    >>> _letters_behind(np.array([2, 3, 1, 0, 4]), np.array([True, True, False, False, True]))
    array([2, 5, 1, 0, 4])
    """
    total = np.cumsum(np.where(whole, letters, 0))
    last = np.maximum.accumulate(np.where(whole, -1, np.arange(len(letters))))
    began = np.where(last < 0, 0, total[last] - letters[last])
    return total - began
