"""Secrets in the training text: how soon each comes out, and whether it already did.

A string is scored where it stands, after what stands before it there: the easiest way to lead it
out that somebody could try. Its exposure is its rank among random strings of the same shape
(Carlini et al. 2019, https://arxiv.org/abs/1802.08232).
"""

from __future__ import annotations

import hashlib
import math
import random
import time
import unicodedata
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from folio.evaluation.score import BATCH_TOKENS
from folio.model.kv_cache import KVCache
from folio.recall.personal import GIVEN, Found, find_in_pieces, masked
from folio.recall.sources import Sources
from folio.run.model import Model
from folio.run.parts import read_canaries
from folio.tokens.text import TokenText, from_text, to_text

MOST = 200
"""Different secrets that are tried, beside those of the user."""
BETWEEN = "\0"
"""Stands between two texts of the model's, and in none of them."""
PLACES = 4
"""In how many places each secret is tried."""
TOLD_BITS = math.log2(1_000_000)
CANDIDATES = 1000
"""Random strings that a secret is ranked among."""
RANKED = 10
"""Secrets, the soonest ones, that are ranked among others."""


@dataclass(frozen=True)
class Secret:
    """A string of the training text that looks like a secret; the string itself is not kept."""

    kind: str
    shown: str
    """Masked, or the string itself where that was asked for."""
    digest: str
    """Eight digits of its sha256, to be recognized by who has it."""
    stands: int
    """How often it occurs in the training text."""
    bits: float
    """-log2 of the chance that it comes after what stands before it, where that is likeliest;
    infinity if it was not tried."""
    place: str
    """Where it occurs in the user's files."""
    exposure: float | None
    """log2 of 1001 divided by its rank among a thousand strings of its shape; None where it was
    not ranked, or the vocabulary has no others."""
    written: bool
    """Whether it stands in what the model wrote."""

    @property
    def comes_out(self) -> bool:
        """Within a million tries, or in what was written."""
        return self.written or self.bits <= TOLD_BITS


@dataclass(frozen=True)
class Secrets:
    """All that was found, the soonest first."""

    found: list[Secret]
    """Those that were tried, and those that stand in what the model wrote."""
    n_different: int
    """Number of different secrets of all kinds; those beyond MOST, or for which there was no time,
    were not tried."""
    kinds: dict[str, int]
    """Number of different secrets of each kind."""
    absent: list[str]
    """The user's own that do not stand in the text, as `Secret.shown`."""

    @property
    def in_words(self) -> str:
        """The number of each kind, in words."""
        return ", ".join(_counted(kind, n) for kind, n in self.kinds.items())

    @property
    def n_tried(self) -> int:
        return sum(secret.bits < math.inf for secret in self.found)

    @property
    def coming_out(self) -> list[Secret]:
        return [secret for secret in self.found if secret.comes_out]


def _counted(kind: str, n: int) -> str:
    """A number and its noun.

    >>> _counted("key", 2), _counted("e-mail address", 1), _counted("given", 3)
    ('2 keys', '1 e-mail address', '3 given')
    """
    plural = "" if n == 1 or kind == GIVEN else "es" if kind.endswith("s") else "s"
    return f"{n:,} {kind}{plural}"


def _find(
    text: TokenText, own: Sequence[str], planted: Sequence[str], written: str
) -> tuple[dict[str, list[Found]], dict[str, int], dict[str, int]]:
    """The places of those that are to be tried; how often each stands; how many of each kind.
    What was planted on purpose is none, though it may look like a number.
    """
    tried: dict[str, list[Found]] = {}
    counts: dict[str, int] = {}
    kinds: dict[str, int] = {}
    others: list[tuple[str, str]] = []
    for hit in find_in_pieces(text.pieces(), own):
        name = hit.string
        if hit.kind != GIVEN and any(name in line or line in name for line in planted):
            continue
        if name not in counts:
            counts[name] = 0
            kinds[hit.kind] = kinds.get(hit.kind, 0) + 1
            tried[name] = []
            if hit.kind != GIVEN and name not in written:  # those are never left out
                insort(others, (_digest(name), name))
                if len(others) > MOST:
                    del tried[others.pop()[1]]
        counts[name] += 1
        if name in tried and len(tried[name]) < PLACES:
            tried[name].append(hit)
    return tried, counts, kinds


def look_for_secrets(
    opened: Model,
    text: TokenText,
    sources: Sources,
    written: Sequence[str],
    own: Sequence[str],
    *,
    temperature: float,
    show: bool = False,
    seconds: float = math.inf,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Secrets, list[str]]:
    """Find the secrets of a training text, and try each.

    Args:
        opened: the model.
        text, sources: the training text.
        written: what the model wrote.
        own: strings that the user calls secrets.
        temperature: of the tries.
        show: whether they are told unmasked.
        seconds: after which none but the user's own are tried, and none is ranked.
        tell: hears what is being done.

    Returns:
        What was found, and the strings themselves and those of the user, which are to be hidden.
    """
    canaries = read_canaries(opened.run)
    planted = [line for c in canaries for line in (c.line.strip(), c.secret)]
    everything = BETWEEN.join(written)
    tried, counts, kinds = _find(text, own, planted, everything)
    if tried:
        tell(f"trying {len(tried)} e-mail addresses, numbers, keys and the like")
    scorer = _Scorer(opened, text, temperature)
    scored, until = [], time.monotonic() + seconds
    for name in sorted(tried, key=lambda name: (tried[name][0].kind != GIVEN, _digest(name))):
        hits = tried[name]
        if hits[0].kind == GIVEN or time.monotonic() <= until:
            bits, best = min((scorer.bits_at(hit), -i) for i, hit in enumerate(hits))
            scored.append((bits, name, hits[-best]))
        elif name in everything:
            scored.append((math.inf, name, hits[0]))
    secrets = []
    for number, (bits, name, hit) in enumerate(sorted(scored, key=lambda of: of[0])):
        exposure = None
        if bits <= TOLD_BITS and number < RANKED and time.monotonic() < until:
            others = scorer.bits_of_others(hit)
            exposure = exposure_of(bits, others) if len(others) else None
        secrets.append(
            Secret(
                hit.kind,
                name if show else masked(name, hit.kind),
                _digest(name),
                counts[name],
                bits,
                str(sources.locate(scorer.symbol_of(hit.start))),
                exposure,
                name in everything,
            )
        )
    found = "\n".join(counts)  # one may stand within another
    absent = [name if show else masked(name, GIVEN) for name in own if name not in found]
    return Secrets(secrets, len(counts), kinds, absent), [*{**counts, **dict.fromkeys(own)}]


def _digest(name: str) -> str:
    """Eight digits of its sha256; in their order, secrets come from all over a text."""
    return hashlib.sha256(name.encode("utf-8")).hexdigest()[:8]


@dataclass(frozen=True)
class CanaryClass:
    """Canaries that stand as often."""

    times: int
    bits: list[float]
    """Bits of each canary, in the place where it comes out soonest."""
    exposures: list[float]
    """log2 of 1001 / rank for each canary; where none of the thousand is likelier, what a normal
    distribution of their bits says, at most log2 of the number of strings of its shape."""


def look_for_canaries(
    opened: Model, text: TokenText, temperature: float
) -> tuple[list[CanaryClass], list[float]]:
    """Measure how soon the canaries of a run come out.

    Returns:
        By how often they stand; and the bits of other secrets, never planted, behind the same
        labels.
    """
    canaries = read_canaries(opened.run)
    if not canaries:
        return [], []
    scorer = _Scorer(opened, text, temperature)
    places: dict[str, list[Found]] = {}
    for hit in find_in_pieces(text.pieces(), [canary.secret for canary in canaries]):
        if hit.kind == GIVEN:
            places.setdefault(hit.string, []).append(hit)
    classes: dict[int, CanaryClass] = {}
    others = []
    for canary in canaries:
        tried = [(scorer.bits_at(hit), hit) for hit in places.get(canary.secret, [])[:PLACES]]
        if not tried:
            continue
        bits, hit = min(tried, key=lambda pair: pair[0])
        strange = scorer.bits_of_others(hit)
        group = classes.setdefault(canary.times, CanaryClass(canary.times, [], []))
        group.bits.append(bits)
        most = sum(math.log2(len(of)) for of in scorer.pools(canary.secret))
        group.exposures.append(min(beyond(bits, strange), most))
        others.append(float(strange.min(initial=math.inf)))
    return [classes[times] for times in sorted(classes)], others


class _Scorer:
    """The bits of strings at places of the training text."""

    def __init__(self, opened: Model, text: TokenText, temperature: float) -> None:
        self.opened, self.text, self.temperature = opened, text, temperature
        self.context = opened.model.config.context_length

    def symbol_of(self, character: int) -> int:
        """The place of a character of the joined pieces, in which a BREAK counts as one."""
        return self.text.place_of_character(character)

    def bits_at(self, hit: Found) -> float:
        """Bits of the secret in its place, including the rest of the tokens that contain it."""
        # Of what is longer than half a context, each half is what comes after the one before.
        start, stop, *_ = self._frame(hit)
        half, bits = max(1, self.context // 2), 0.0
        for first in range(start, stop, half):
            ids = np.asarray(self.text.tokens[first : min(first + half, stop)], np.int64)
            bits += float(self._bits(self._head(first), [ids])[0])
        return bits

    def bits_of_others(self, hit: Found) -> np.ndarray:
        """(n,) bits of a thousand strings of the same shape in the same place; of none where the
        vocabulary has no others, or they are longer than the model can see.
        """
        start, _, before, behind = self._frame(hit)
        tokenizer = self.opened.tokenizer
        texts = [before + other + behind for other in self.others(hit.string, hit.start)]
        rows = [np.asarray(tokenizer.encode(text), np.int64) for text in texts]
        rows = [
            row for row in rows if len(row) <= self.context and not (row == tokenizer.unknown).any()
        ]
        return self._bits(self._head(start), rows) if rows else np.zeros(0)

    def others(self, string: str, seed: int) -> list[str]:
        """A thousand random strings, each character drawn from those of its kind in the vocabulary;
        without the string itself.
        """
        chosen, pools = random.Random(seed), self.pools(string)
        drawn = ("".join(map(chosen.choice, pools)) for _ in range(CANDIDATES))
        return [other for other in drawn if other != string]

    def pools(self, string: str) -> list[str]:
        """For each character, those that may stand in its place."""
        return [self.known.get(_kind(c), c) for c in string]

    def _frame(self, hit: Found) -> tuple[int, int, str, str]:
        """The first token of a string and the one behind it, at edges of characters; and what their
        text has before and behind the string.
        """
        first = self.symbol_of(hit.start)
        last = first + len(from_text(hit.string))
        start, stop = self.text.token_at(first), self.text.token_at(last - 1) + 1
        while self._cuts_character(start):
            start -= 1
        while self._cuts_character(stop):
            stop += 1
        before = to_text(self.text.between(self._place_of(start), first))
        behind = to_text(self.text.between(last, self._place_of(stop)))
        return start, stop, before, behind

    def _place_of(self, token: int) -> int:
        """Where a token begins; for the one behind the last, where the text ends."""
        if token == len(self.text.tokens):
            return len(self.text)
        return int(self.text.places_of(np.array([token]))[0])

    def _cuts_character(self, token: int) -> bool:
        """Whether a token begins inside a character."""
        place = self._place_of(token)
        return bool((self.text.between(place, place + 1) & 0xC0 == 0x80).any())

    def _head(self, start: int) -> np.ndarray:
        """The tokens before one, half a context of them; what begins the text comes after an empty
        prompt.
        """
        first = max(0, start - max(1, self.context // 2))
        before = self.text.tokens[first:start] if start else [self.opened.start_token]
        return np.asarray(before, np.int64)

    @cached_property
    def known(self) -> dict[tuple[str, str, bool], str]:
        """The letters and digits of the vocabulary, by kind."""
        tokenizer, found = self.opened.tokenizer, dict[tuple[str, str, bool], str]()
        special = set(tokenizer.special_tokens.values())
        pieces = [piece for i, piece in enumerate(tokenizer.pieces) if i not in special]
        text = "".join(piece.decode("utf-8", errors="ignore") for piece in pieces)
        for character in sorted(set(text)):
            if (kind := _kind(character))[0][0] in "LMN":
                found[kind] = found.get(kind, "") + character
        return found

    def _bits(self, head: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Bits of each row of tokens, no more than a context, after the same prefix."""
        longest = max(map(len, rows))
        n_head = min(len(head), self.context + 1 - longest)
        ids = torch.zeros(len(rows), 1 + longest, dtype=torch.int64)
        inside = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : 1 + len(row)] = torch.from_numpy(np.append(head[-1], row))
            inside[i, : len(row)] = True
        device = self.opened.model.lm_head.weight.device
        before = torch.from_numpy(head[len(head) - n_head : -1])[None].to(device)
        per_batch = max(1, BATCH_TOKENS // (n_head + longest))
        batches = zip(ids.split(per_batch), inside.split(per_batch))
        with torch.inference_mode():
            read = self._cache(1)  # what stands before all of them is read once
            if n_head > 1:
                self.opened.model(before, read)
            nats = [self._nats(read, ids.to(device), inside) for ids, inside in batches]
        return torch.cat(nats).numpy() / math.log(2)

    def _nats(self, read: KVCache, ids: Tensor, inside: Tensor) -> Tensor:
        """(B, 1 + n) tokens behind what was read -> (B,) nats of the last n that are `inside`."""
        cache = self._cache(len(ids))
        n = cache.length = read.length
        cache.keys[..., :n, :] = read.keys[..., :n, :]
        cache.values[..., :n, :] = read.values[..., :n, :]
        cache.token_ids = read.token_ids
        logits = self.opened.model(ids[:, :-1], cache).float() / self.temperature
        nats = nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        return (nats.view(inside.shape).cpu().double() * inside).sum(dim=1)

    def _cache(self, batch_size: int) -> KVCache:
        model = self.opened.model
        return KVCache(model.config, batch_size, like=model.lm_head.weight)


def exposure_of(bits: float, others: np.ndarray) -> float:
    """log2 of how many strings there are for each one that is as likely, itself included.

    >>> exposure_of(3.0, np.array([2.0, 5.0, 6.0]))
    1.0
    """
    return math.log2((len(others) + 1) / (1 + int((others < bits).sum())))


def beyond(bits: float, others: np.ndarray) -> float:
    """Exposure that goes on where the string is likelier than all others, as if their bits were
    normal (skew-normal in Carlini et al. 2019).

    >>> others = np.array([28.0, 32.0])
    >>> beyond(29.0, others), round(beyond(24.0, others), 2), round(beyond(0.0, others), 2)
    (0.5849625007211562, 9.53, 167.54)
    """
    ranked = exposure_of(bits, others)
    if not len(others) or bits >= others.min():
        return ranked
    deviations = (others.mean() - bits) / max(others.std(), 1e-9)
    share = math.erfc(deviations / math.sqrt(2)) / 2
    return max(ranked, -math.log2(share)) if share > 0 else math.inf


def _kind(character: str) -> tuple[str, str, bool]:
    """Its category, its script, and whether it is ASCII.

    >>> _kind("я"), _kind("7")
    (('Ll', 'CYRILLIC', False), ('Nd', 'DIGIT', True))
    """
    script = unicodedata.name(character, "").partition(" ")[0]
    return unicodedata.category(character), script, character.isascii()
