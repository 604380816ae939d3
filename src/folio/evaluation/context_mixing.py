"""Context mixing: copies of a model, n-grams and counts after many contexts, mixed bit by bit with
weights that are learned while reading, compiled.

Each bit of a token (`token_bits.py`) is predicted by logistic regression on the log-odds that the
inputs give it, and each error moves the weights a little, as in PAQ (Mahoney 2005, Florida Tech
CS-2005-16, https://cs.fit.edu/~mmahoney/compression/cs200516.pdf, where bit histories are, too).
The inputs are

- *experts*, whose log-odds come from outside: copies of the model, and n-grams;
- for each of some contexts (the last 0 ... 7 tokens; the letters of the word so far; these and the
  word before) two numbers of what followed it: how often this bit was 1, as a frequency; and how it
  turned out elsewhere after a *bit history* like that of this context, which is how often it was 0
  and 1 of late.

There are three sets of weights, each of which learns on its own: the first is chosen by the longest
context that was seen before, the second by the bits of the token so far, the third by the token
before. The mean of their log-odds is the prediction.

Shapes:  N tokens · n of them · E experts · V vocabulary · K contexts · M longest count
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, takewhile

import numpy as np
from numpy.typing import NDArray

from folio.evaluation.learning_ngrams import LearningNGrams
from folio.evaluation.token_bits import n_bits
from folio.jit import kernel

N_ORDERS = 8
"""Contexts of 0 ... 7 tokens."""
_WORD, _TWO_WORDS, _N_CONTEXTS = N_ORDERS, N_ORDERS + 1, N_ORDERS + 2
MOST_SLOTS = 1 << 22
"""Of the table of a context, which takes 8 bytes for each; 2^20 cost 0.002 nats."""
LONGEST_COUNT = 47
"""Of a bit history."""
SLOWEST = 250
"""A frequency is that of about so many last times."""
SLOWEST_GUESS = 1023.0
"""The same of what followed a bit history."""
RATE, RATE_WITH_EXPERTS = 0.002, 0.0014
"""Of the weights, while the training text is read and then."""
START, COUNTS_KEEP, EXPERTS_START = 0.15, 0.5, 0.55
"""The weight of each input; the share of it that stays where the experts come in; and theirs, all
together."""

ZEROS, ONES, TIMES = 0, 1, 2
"""Columns of a history: how often each bit came of late, and how often any."""
_SURE_GUESS, _SURE_FREQUENCY, _SURE_SET, _SURE = 1e-4, 1e-3, 15.0, 1e-5
"""Bounds on a probability by a history, on one by a frequency, on the log-odds of a set, and on the
probability of the mixture."""
_MIX, _OTHER = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_START = np.uint64(0x9E3779B97F4A7C15)
_SHIFT, _HALF = np.uint64(29), np.uint64(32)
_NOTHING = np.uint64(0)


def read_with_counts(
    training: NDArray[np.integer],
    text: NDArray[np.integer],
    odds: NDArray[np.float32],
    pieces: Sequence[str],
    vocab_size: int,
) -> NDArray[np.float64]:
    """Mix what copies of a model say of a text with what counting says, both texts being counted.

    Args:
        training: (m,) tokens that are read before the text, without the copies.
        text: (N,) tokens.
        odds: (E - 1, N, bits) log-odds by each copy that a bit is 1; nan for the first token and
            from where a copy has left on.
        pieces: the text of each id, for words.
        vocab_size: V.

    Returns:
        (N,) nats of each token; nan for the first, which no copy predicts.
    """
    tokens = np.concatenate([training, text]).astype(np.int64)
    start = len(training) + 1
    ngrams = _ngrams(tokens, start, vocab_size)
    experts = np.concatenate([odds[:, 1:], ngrams[None]])  # (E, N - 1, bits)
    there = np.asarray(~np.isnan(experts).any(axis=2))  # (E, N - 1)
    changes = np.flatnonzero((there[:, 1:] != there[:, :-1]).any(axis=0)) + 1
    mixer = ContextMixing(vocab_size, len(tokens), len(experts))
    words = words_before(tokens, pieces)
    mixer.read(tokens, words, 0, min(start, len(tokens)))
    mixer.let_in_experts()
    nats = [np.array([np.nan])]
    for begin, end in pairwise([0, *changes.tolist(), experts.shape[1]]):
        mixer.go_on_with(np.all(there[:, begin:end], axis=1))
        said = np.nan_to_num(experts[:, begin:end])
        nats.append(mixer.read(tokens, words, start + begin, start + end, said))
    return np.concatenate(nats)


def _ngrams(tokens: NDArray[np.int64], start: int, vocab_size: int) -> NDArray[np.float32]:
    table = LearningNGrams(vocab_size, len(tokens))
    table.learn(tokens[:start])
    return table.predict(tokens[start:])


def words_before(tokens: NDArray[np.int64], pieces: Sequence[str]) -> NDArray[np.uint64]:
    """(N, 2) for each token a number for the letters of the word so far, and one for the word
    before; 0 where there is none.
    """
    numbers: dict[str, int] = {"": 0}
    endings, breaks = np.zeros(len(pieces), np.int64), np.zeros(len(pieces), np.bool_)
    for token_id, piece in enumerate(pieces):
        letters = len(list(takewhile(str.isalpha, reversed(piece))))
        ending = piece[len(piece) - letters :].lower()
        endings[token_id] = numbers.setdefault(ending, len(numbers))
        breaks[token_id] = letters < len(piece)
    found = np.zeros((len(tokens), 2), np.uint64)
    _words(tokens, endings, breaks, found)
    return found


class ContextMixing:
    """Counts and weights of what was read so far."""

    def __init__(self, vocab_size: int, n_tokens: int, n_experts: int) -> None:
        """Begin without counts.

        Args:
            vocab_size: V.
            n_tokens: how many will be read, which is what tables are made for.
            n_experts: E; 1 or more.
        """
        self.vocab_size, self.n_experts, self.bits = vocab_size, n_experts, n_bits(vocab_size)
        n_slots = min(1 << (4 * n_tokens).bit_length(), MOST_SLOTS)
        self.histories = np.zeros((_N_CONTEXTS, n_slots, 4), np.uint8)
        self.frequencies = np.zeros((_N_CONTEXTS, n_slots), np.float32)
        """(K, slots) how often the bit was 1 in each context, as a frequency less a half."""
        zeros, ones = np.indices((LONGEST_COUNT + 1, LONGEST_COUNT + 1))
        guess = (ones + 0.4) / (zeros + ones + 0.8)
        self.guesses = np.repeat(np.stack([guess, 0 * guess], axis=2)[None], _N_CONTEXTS, axis=0)
        """(K, M + 1, M + 1, 2) after a bit history, the frequency of a 1, and how often it came."""
        n_rows = N_ORDERS + (1 << self.bits) + vocab_size
        self.weights = np.full((n_rows, 2 * _N_CONTEXTS + n_experts), START)
        """Those of all sets, one below the other; of experts last."""

    def let_in_experts(self) -> None:
        """Give the experts a weight, and the counts less."""
        self.weights[:, : -self.n_experts] *= COUNTS_KEEP
        self.weights[:, -self.n_experts :] = EXPERTS_START / self.n_experts

    def go_on_with(self, there: NDArray[np.bool_]) -> None:
        """Share the weights of experts that have left among those (E,) that are there."""
        weights = self.weights[:, -self.n_experts :]
        left = weights[:, ~there].sum(axis=1, keepdims=True)
        weights[:, ~there] = 0.0
        weights[:, there] += left / there.sum()

    def read(
        self,
        tokens: NDArray[np.int64],
        words: NDArray[np.uint64],
        begin: int,
        end: int,
        odds: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float64]:
        """Predict the tokens begin ... end - 1 of a text and learn from each when it was predicted.

        Args:
            tokens: (N,) the text.
            words: (N, 2) from `words_before`.
            begin, end: places in the text; what stands before was read already.
            odds: (E, n, bits) log-odds by the experts, if they take part.

        Returns:
            (n,) nats.
        """
        rate = RATE if odds is None else RATE_WITH_EXPERTS
        if odds is None:
            odds = np.zeros((self.n_experts, 0, self.bits), np.float32)
        nats = np.zeros(end - begin)
        tables = self.histories, self.frequencies, self.guesses
        _read(tokens, words, begin, odds, self.vocab_size, tables, self.weights, rate, nats)
        return nats


@kernel(inner=True)
def _hash(a, b):
    mixed = (a + _START) * _MIX + np.uint64(b) * _OTHER
    mixed = (mixed ^ mixed >> _SHIFT) * _MIX
    return mixed ^ mixed >> _HALF


@kernel()
def _words(tokens, endings, breaks, found):
    word, before = _NOTHING, _NOTHING
    for i in range(len(tokens)):
        found[i, 0], found[i, 1] = word, before
        token = tokens[i]
        if breaks[token]:
            before = word if word else before
            word = _NOTHING
        if endings[token]:
            word = _hash(word, endings[token])


@kernel()
def _read(tokens, words, begin, odds, vocab_size, tables, weights, rate, nats):
    n_experts, n_said, bits = odds.shape
    hashes, slots = np.zeros(_N_CONTEXTS, np.uint64), np.zeros(_N_CONTEXTS, np.int64)
    x, rows, said = np.zeros(weights.shape[1]), np.zeros(3, np.int64), np.zeros(3)
    for place in range(len(nats)):
        i = begin + place
        _find_contexts(tokens, words, i, hashes)
        rows[2] = N_ORDERS + (1 << bits) + (tokens[i - 1] if i else 0)
        start = 1  # and the bits so far
        for d in range(bits):
            if ((2 * start + 1) << (bits - 1 - d)) - (1 << bits) >= vocab_size:
                start = 2 * start  # no id has a 1 here
                continue
            bit = tokens[i] >> (bits - 1 - d) & 1
            rows[0] = _look_up(hashes, start, tables, slots, x)
            rows[1] = N_ORDERS + start
            if n_said:
                x[-n_experts:] = odds[:, place, d]
            p = _chance(_mix(weights, rows, x, said))
            p = min(max(p, _SURE), 1 - _SURE)
            nats[place] -= np.log(p if bit else 1 - p)
            _correct(weights, rows, x, said, bit, rate)
            _count(tables, slots, bit)
            start = 2 * start + bit


@kernel(inner=True)
def _find_contexts(tokens, words, i, hashes):
    before = _NOTHING
    for n in range(N_ORDERS):
        hashes[n] = _hash(before, n)
        if i > n:
            before = _hash(before, tokens[i - 1 - n] + 1)
    hashes[_WORD] = _hash(_hash(words[i, 0], _WORD), 0)
    hashes[_TWO_WORDS] = _hash(_hash(words[i, 0], _TWO_WORDS), words[i, 1])


@kernel(inner=True)
def _look_up(hashes, start, tables, slots, x):
    """Set the inputs of all contexts, and return the longest order that was seen before."""
    histories, frequencies, guesses = tables
    longest, mask = 0, np.uint64(histories.shape[1] - 1)
    for c in range(_N_CONTEXTS):
        slot = np.int64(_hash(hashes[c], start) & mask)
        slots[c] = slot
        history = histories[c, slot]
        if history[TIMES] == 0:
            x[2 * c] = x[2 * c + 1] = 0.0
            continue
        if c < N_ORDERS:
            longest = c
        guess = guesses[c, history[ZEROS], history[ONES], 0]
        x[2 * c] = _odds(guess, _SURE_GUESS)
        x[2 * c + 1] = _odds(frequencies[c, slot] + 0.5, _SURE_FREQUENCY)
    return longest


@kernel(inner=True)
def _odds(p, least):
    p = min(max(p, least), 1 - least)
    return np.log(p / (1 - p))


@kernel(inner=True)
def _chance(odds):
    return 1 / (1 + np.exp(-odds))


@kernel(inner=True, fastmath=True)
def _mix(weights, rows, x, said):
    """The mean log-odds of all sets; what each says is kept."""
    total = 0.0
    for s in range(len(rows)):
        odds = 0.0
        for k in range(len(x)):
            odds += weights[rows[s], k] * x[k]
        said[s] = min(max(odds, -_SURE_SET), _SURE_SET)
        total += said[s]
    return total / len(rows)


@kernel(inner=True)
def _correct(weights, rows, x, said, bit, rate):
    for s in range(len(rows)):
        step = rate * (bit - _chance(said[s]))
        for k in range(len(x)):
            weights[rows[s], k] += step * x[k]


@kernel(inner=True)
def _count(tables, slots, bit):
    histories, frequencies, guesses = tables
    for c in range(_N_CONTEXTS):
        history = histories[c, slots[c]]
        times = history[TIMES]
        if times:
            guess = guesses[c, history[ZEROS], history[ONES]]
            guess[1] += 1
            guess[0] += (bit - guess[0]) / min(guess[1] + 1.5, SLOWEST_GUESS)
        frequency = frequencies[c, slots[c]]
        frequencies[c, slots[c]] = frequency + (bit - 0.5 - frequency) / (times + 1.5)
        history[TIMES] = min(times + 1, SLOWEST)
        same, other = (ONES, ZEROS) if bit else (ZEROS, ONES)
        history[same] = min(history[same] + 1, LONGEST_COUNT)
        if history[other] > 2:  # old news
            history[other] = history[other] // 2 + 1
