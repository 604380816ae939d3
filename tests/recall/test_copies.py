"""What counts as a copy: word for word, nearly, and not a pattern."""

from __future__ import annotations

import random

import numpy as np
import pytest

from folio.evaluation.matching import Match, Query, find_matches
from folio.evaluation.shares import share_of
from folio.recall.blocks import blocks_of, color_at, queries_of, yardstick_of
from folio.recall.copies import covered, longest_copy, measure_copies, nearly_spans, spans_of
from folio.recall.words import is_copying
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.sequences import encode_documents
from folio.tokens.text import TokenText, from_text
from tests.recall.making import prose

TEXT = prose(400, seed=0)
RULE = "\n" + "-----+" * 30 + "\n"


def training(*documents: str) -> TokenText:
    tokenizer = CharacterTokenizer.train(iter([*documents, "#"]))
    tokens = list(encode_documents(tokenizer, ([d] for d in documents)))
    return TokenText(np.concatenate(tokens), tokenizer)


def looked_up(text: TokenText, *samples: str) -> list[Match]:
    queries = [Query(from_text(sample), number) for number, sample in enumerate(samples)]
    return find_matches(queries, text.chunks(), blocks_of(text), plain=True)


def test_a_copy_is_what_stands_in_the_text_for_so_many_characters_in_a_row():
    text = training(TEXT)
    sample = prose(40, seed=7) + TEXT[300:380] + prose(40, seed=8) + TEXT[100:149]
    (match,) = looked_up(text, sample)
    mask = covered(match, 50)
    start = sample.index(TEXT[300:380])
    assert mask[start : start + 80].all()
    assert mask.sum() <= 80 + 8, "a chance letter on either side, and not the 49 characters"
    assert 80 <= longest_copy(match, 50) <= 88


def test_a_rule_is_no_copy_though_it_stands_there():
    text = training(TEXT + RULE)
    (match,) = looked_up(text, prose(30, seed=7) + RULE)
    assert not covered(match, 50).any()
    assert covered(match, 50, patterns=True).sum() >= 150
    measured = measure_copies([match, match], text, 50)
    assert measured.copied.count == 0 < measured.with_patterns.count
    assert measured.longest < 50


def test_a_long_copy_is_no_pattern_however_often_its_letters_repeat():
    # Of 9,000 characters less than half of the runs of three differ, in any language.
    long = prose(1200, seed=3)
    text = training(long)
    (match,) = looked_up(text, long)
    assert covered(match, 50).mean() > 0.99
    assert longest_copy(match, 50) > 0.99 * len(long)


def test_a_copy_with_a_changed_letter_here_and_there_is_nearly_one():
    text = training(TEXT)
    piece = list(TEXT[200:290])
    for i in (25, 50, 75):
        piece[i] = "#"
    sample = "# # # " + "".join(piece) + " # # #"
    (match,) = looked_up(text, sample)
    assert not covered(match, 50).any()
    assert set(nearly_spans(match, text, 50)) == {(6, 96)}
    piece[60:70] = "##########"
    (match,) = looked_up(text, "".join(piece))
    # 10 changed characters end it: what is before them, with one edit in 60, remains.
    assert set(nearly_spans(match, text, 50)) == {(0, 60)}


def test_spans_say_where_they_stand_and_whether_elsewhere_too():
    first, second = prose(60, seed=1), prose(60, seed=2) + " " + TEXT[:60]
    text = training(first + TEXT, second)
    (match,) = looked_up(text, "# " + TEXT[:60] + "# " + TEXT[100:160])
    once, again = spans_of(match, 50)[0], spans_of(match, 50)[1]
    assert once.elsewhere and not again.elsewhere
    assert once.stop == 62 and again.stop == 124
    assert again.end == len(first) + 160


def test_shares_of_runs_are_those_counted_by_hand():
    text = training("abcab")
    matches = looked_up(text, "abxca", "bcab")
    measured = measure_copies(matches, text, 3)
    # Runs of 2: ab bx xc ca | bc ca ab: 5 of 7 stand there; of 3: none of 3 | bca cab: 2 of 5.
    assert measured.seen[:3] == [pytest.approx(8 / 9), pytest.approx(5 / 7), pytest.approx(2 / 5)]
    assert measured.mean_match == pytest.approx((1 + 2 + 0 + 1 + 2 + 1 + 2 + 3 + 4) / 9)


def test_the_author_is_looked_up_in_the_other_documents_only():
    shared = TEXT[:70]
    documents = [prose(50, seed=10 + i) + (shared if i in (3, 9) else "") for i in range(20)]
    text = training(*documents)
    matches = by_the_yardstick(text)
    measured = measure_copies(matches, text, 50)
    assert 140 <= measured.copied.count <= 160
    assert sum(len(match.codes) for match in matches) == sum(map(len, documents))


def by_the_yardstick(text: TokenText, *families: int) -> list[Match]:
    blocks = yardstick_of(text, families)
    queries = queries_of(text, blocks_of(text, families), 10**6, blocks)
    return find_matches(queries, text.chunks(), blocks, plain=True)


@pytest.mark.parametrize(
    ("families", "n_words"),
    [
        ((0, 0, 1, 2), (80, 80, 120, 120)),
        ((0, 0, 1), (80, 80, 60)),  # copies are most of the text
        ((0, 0), (80, 80)),  # copies are all of it
    ],
)
def test_copies_of_one_document_are_not_looked_up_in_each_other(
    families: tuple[int, ...], n_words: tuple[int, ...]
):
    text = training(*(prose(n, seed=family) for family, n in zip(families, n_words)))
    matches = by_the_yardstick(text, *families)
    copied = measure_copies(matches, text, 50).copied
    assert copied.count == 0 < copied.of
    assert len({match.query.cluster for match in matches}) >= len(families), "of the error"
    apart = measure_copies(by_the_yardstick(text, *range(len(families))), text, 50).copied
    assert apart.count > 0.3 * apart.of, "that is what is excluded"


def test_a_document_of_more_than_half_of_the_text_is_looked_up_in_its_other_stretches():
    refrain = prose(15, seed=1)
    verses = "".join(prose(60, seed=seed) + refrain for seed in range(2, 10))
    text = training(verses, prose(50, seed=11), prose(50, seed=12))
    copied = measure_copies(by_the_yardstick(text), text, 50).copied
    assert copied.count > 7 * len(refrain)
    assert len(set(color_at(yardstick_of(text), text.document_starts).tolist())) == 3


def test_one_long_document_is_compared_by_stretches():
    text = training(prose(900, seed=4))
    for blocks in (blocks_of(text), yardstick_of(text)):
        assert len(set(blocks.colors.tolist())) == 16
        assert blocks.stops[-1] == len(text)


def test_new_text_that_is_the_old_one_again_is_a_copy_however_short_it_is():
    text = training(TEXT)
    for n, share in ((600, 1.0), (300, 1.0), (30, None)):
        new = training(TEXT[:n])
        queries = queries_of(new, blocks_of(new), 10**6)
        found = find_matches(queries, text.chunks(), blocks_of(text), plain=True)
        copied = measure_copies(found, text, 50).copied
        assert (copied.value if copied.of else None) == share


def test_what_the_author_himself_wrote_is_hardly_ever_called_a_copy():
    """Twelve new documents of an author with eight stock phrases, twenty times."""
    random.seed(3)

    def letters(n: int) -> str:
        return "".join(random.choices("abcdefghijklmnopqrstuvwxyz ", k=n))

    n_alarms, shares = 0, []
    for _ in range(20):
        phrases = [letters(60) for _ in range(8)]
        documents = [
            letters(50) + random.choice(phrases) * (random.random() < 0.4) for _ in range(30)
        ]
        text = training(*documents[:18])
        blocks = yardstick_of(text)
        author = queries_of(text, blocks_of(text), 10**6, blocks)
        new = [Query(from_text(document), number) for number, document in enumerate(documents[18:])]
        found = find_matches([*author, *new], text.chunks(), blocks, plain=True)
        copied = measure_copies(found[len(author) :], text, 50).copied
        shares.append(copied.value)
        n_alarms += is_copying(copied, measure_copies(found[: len(author)], text, 50).copied)
    assert n_alarms <= 1
    assert np.mean(shares) > 0.1, "so that only the yardstick speaks for him"


def test_the_error_of_a_share_is_what_its_spread_over_samples_is():
    """Clusters of very different shares: 20 drawings against the error that each tells."""
    random.seed(5)

    def drawn() -> tuple[np.ndarray, np.ndarray]:
        clusters = np.repeat(np.arange(75), 500)
        rates = np.array([random.random() ** 6 for _ in range(75)])
        return np.random.default_rng(random.getrandbits(32)).random(75 * 500) < rates[
            clusters
        ], clusters

    shares = [share_of(*drawn()) for _ in range(20)]
    spread = float(np.std([share.value for share in shares], ddof=1))
    told = float(np.mean([share.error for share in shares]))
    assert told == pytest.approx(spread, rel=0.4)


def test_blocks_of_a_text_in_few_documents_keep_to_their_documents():
    text = training(TEXT, prose(100, seed=9))
    blocks = blocks_of(text)
    assert len(TEXT) + 1 in blocks.stops.tolist()
