from __future__ import annotations

import random
import textwrap
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folio.config import from_table
from folio.corpus import minhash
from folio.corpus.document import Document, document_from_text, make_document
from folio.corpus.duplicates import DuplicatesConfig, find_families
from folio.corpus.fingerprints import gram_hashes
from folio.corpus.minhash import Shingles, banding, buckets, jaccard, shingle_set, signature
from folio.corpus.split import split_documents
from folio.errors import UserError

SHINGLE = DuplicatesConfig.shingle_words


@cache
def shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = text.split()
    return frozenset(tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1))


def true_jaccard(a: str, b: str) -> float:
    """By sets of tuples of words."""
    common = len(shingles(a) & shingles(b))
    return common / (len(shingles(a)) + len(shingles(b)) - common)


def planted(n_families: int, n_single: int, seed: int) -> list[str]:
    """Texts of invented words: families of 2 to 5 with scattered changes, and single ones."""
    random_ = random.Random(seed)

    def word() -> str:
        return "".join(random_.choices("abcdefghijklmnopqrstuvwxyz", k=random_.randint(3, 8)))

    vocabulary = [word() for _ in range(3000)]
    texts = []
    for _ in range(n_families):
        original = random_.choices(vocabulary, k=random_.randint(80, 400))
        texts.append(" ".join(original))
        for _ in range(random_.randint(1, 4)):
            variant = list(original)
            for _ in range(max(1, round(len(original) * random_.uniform(0.002, 0.03)))):
                variant[random_.randrange(len(variant))] = word()
            texts.append(" ".join(variant))
    texts += [
        " ".join(random_.choices(vocabulary, k=random_.randint(80, 400))) for _ in range(n_single)
    ]
    random_.shuffle(texts)
    return texts


def documents_of(texts: list[str]) -> list[Document]:
    return [document_from_text(f"d{i}", text) for i, text in enumerate(texts)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_planted_families_are_found_and_none_stands_on_both_sides(seed: int):
    texts = planted(60, 120, seed)
    documents = documents_of(texts)
    config = DuplicatesConfig(contained=1.01)  # near duplicates alone
    families = find_families(documents, config).of
    similar = {
        (i, j): true_jaccard(texts[i], texts[j]) for i, j in combinations(range(len(texts)), 2)
    }
    alike = {pair for pair, value in similar.items() if value >= config.threshold}
    assert len(alike) > 60
    assert sum(similar[pair] < 0.9 for pair in alike) > 20  # hard ones too
    assert all(families[i] == families[j] for i, j in alike)
    # And none is joined to another without such a chain: the slow way gives the same families.
    slow = list(range(len(texts)))
    for i, j in sorted(alike):
        a, b = slow[i], slow[j]
        slow = [a if family == b else family for family in slow]
    assert len(set(zip(families, slow))) == len(set(slow)) == len(set(families))

    split = split_documents(documents, "clusters", 0.1, families)
    side = {part.document.source: part in split.validation for part in split.training}
    side |= {part.document.source: True for part in split.validation}
    assert all(side[f"d{i}"] == side[f"d{j}"] for i, j in alike)
    assert 0.05 < sum(map(len, split.validation)) / sum(map(len, texts)) <= 0.1


def test_the_bands_alone_propose_nineteen_of_twenty_pairs_at_the_threshold():
    """Each pair by itself, so that no chain through a third document helps."""
    threshold = DuplicatesConfig.threshold
    random_ = random.Random(0)
    proposed = total = 0
    while total < 300:
        words = [str(random_.randrange(10**6)) for _ in range(300)]
        variant = list(words)
        for _ in range(random_.randint(5, 8)):
            variant[random_.randrange(300)] = "x"
        pair = [" ".join(words), " ".join(variant)]
        if threshold <= true_jaccard(*pair) < threshold + 0.06:
            total += 1
            signatures = [signature(gram_hashes([text], SHINGLE)) for text in pair]
            stacked = np.stack([s for s in signatures if s is not None])
            proposed += next(buckets(stacked, np.ones(2, bool), threshold), None) is not None
    assert proposed / total >= 0.95


def test_jaccard_is_that_of_sets_of_words():
    a, b = planted(1, 0, 5)[:2]
    one, two = (shingle_set(document, SHINGLE) for document in documents_of([a, b]))
    assert jaccard(one, two) == pytest.approx(true_jaccard(a, b))


def test_long_texts_are_compared_by_the_same_fair_sample(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(minhash, "COMPARED_WHOLE", 20_000)
    words = [str(i) for i in range(30_000)]
    texts = [" ".join(words), " ".join(words[:15_000]), " ".join(words[:24_000]), "another one"]
    sets = Shingles(documents_of(texts), SHINGLE)
    assert 2_000 < len(sets[0]) < 5_000 and len(sets[3]) == 1
    for a, b in combinations(range(4), 2):
        assert sets.jaccard(a, b) == pytest.approx(true_jaccard(texts[a], texts[b]), abs=0.03)


def test_a_signature_estimates_the_similarity():
    texts = planted(20, 0, 7)
    errors = []
    for a, b in combinations(texts[:25], 2):
        one, two = (signature(gram_hashes([text], SHINGLE)) for text in (a, b))
        assert one is not None and two is not None
        errors.append((one == two).mean() - true_jaccard(a, b))
    assert abs(float(np.mean(errors))) < 0.01
    assert float(np.abs(errors).max()) < 0.15


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_and_rows_miss_hardly_a_pair_at_the_threshold(threshold: float):
    """Each hash of such a pair agrees with the probability of its similarity."""
    bands, rows = banding(threshold)
    assert bands * rows <= minhash.N_HASHES
    agree = np.random.default_rng(0).random((20_000, bands, rows)) < threshold
    assert agree.all(axis=-1).any(axis=-1).mean() > 0.9995


def test_a_document_that_stands_in_another_belongs_to_its_family():
    lines = [f"Line {i} of the diary tells what the weather was on day {i * 7}." for i in range(60)]
    other = [
        f"Another text, line {i}, with words of its own and number {i * 3}." for i in range(60)
    ]
    texts = ["\n".join(lines[:20]), "\n".join(lines), "\n".join(other + lines[:15])]
    documents = documents_of(texts)
    families = find_families(documents, DuplicatesConfig())
    assert families.of[0] == families.of[1] == families.of[2]  # three quarters of the first
    assert families.near_pairs == 0 and families.contained_pairs == 2
    apart = find_families(documents, DuplicatesConfig(contained=1.01))
    assert len(set(apart.of)) == 3


def invented(n_words: int, seed: int) -> str:
    return " ".join(str(random.Random(seed + i).randrange(10**6)) for i in range(n_words))


def test_a_poem_of_short_lines_belongs_to_the_family_of_the_collection():
    poems = [textwrap.fill(invented(60, 1000 * i), 24) for i in range(20)]
    families = find_families(documents_of([*poems, "\n\n".join(poems)]), DuplicatesConfig())
    assert len(set(families.of)) == 1 and families.contained_pairs == 20


def test_chapters_in_other_lines_and_cases_belong_to_the_family_of_their_book():
    chapters = [invented(400, 1000 * i) for i in range(12)]
    wrapped = [textwrap.fill(chapter, 72).replace(" ", ", ") for chapter in chapters]
    texts = [*wrapped, "\n\n".join(chapters)]
    families = find_families(documents_of(texts), DuplicatesConfig())
    assert len(set(families.of)) == 1 and families.near_pairs == 0
    assert len(set(find_families(documents_of(texts), DuplicatesConfig(contained=1.01)).of)) == 13


def test_the_words_of_a_form_and_a_short_quotation_make_no_family():
    form = [invented(40, 0), invented(40, 100)]
    letters = [f"{form[0]} {invented(30, 1000 * i)} {form[1]}" for i in range(2, 60)]
    quoted = invented(7, 90_000)
    letters += [f"{quoted} {invented(2, 1000 * i)}" for i in range(70, 73)]
    assert len(set(find_families(documents_of(letters), DuplicatesConfig()).of)) == len(letters)


def test_versions_of_a_growing_text_are_one_family_even_when_they_are_many():
    lines = [f"Day {i}: nothing happened at the harbour, said the keeper {i}." for i in range(400)]
    versions = ["\n".join(lines[: 20 * i]) for i in range(1, 21)]
    assert len(set(find_families(documents_of(versions), DuplicatesConfig()).of)) == 1


def test_of_the_many_that_share_lines_those_of_like_size_are_compared():
    def lines(of: str, n: int) -> list[str]:
        return [" ".join(f"{of}-{i}-{word}" for word in range(10)) for i in range(n)]

    texts = []
    for pair in range(6):  # a pair's own lines are two fifths, with those that all have most of it
        for draft in range(2):
            parts = lines("all", 10), lines(f"pair-{pair}", 13), lines(f"{pair}-{draft}", 9 + pair)
            texts.append("\n".join(line for part in parts for line in part))
    of = find_families(documents_of(texts), DuplicatesConfig()).of
    assert of[::2] == of[1::2] and len(set(of)) == 6


def test_a_family_is_named_by_the_smallest_sha256_of_its_members():
    documents = documents_of(planted(8, 10, 4))
    families = find_families(documents, DuplicatesConfig())
    for name, members in families.members().items():
        assert name == min(documents[i].sha256 for i in members)


def test_copies_and_repeated_lines_are_counted():
    line = "A line that is long enough to be counted as one."
    texts = [f"{line}\nand more", f"{line}\nand more", f"{line}\nand other words\n{line}"]
    found = find_families(documents_of(texts), DuplicatesConfig(contained=1.01))
    assert found.copies == 1
    assert found.repeated_lines == 3
    assert found.repeated_characters == 3 * len(line)


def test_chinese_without_spaces_is_compared_character_by_character():
    sentence = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜"
    texts = [sentence, sentence[:-1] + "雪", sentence[::-1]]
    found = find_families(documents_of(texts), DuplicatesConfig()).of
    assert found[0] == found[1] != found[2]


def test_case_and_punctuation_do_not_hide_a_copy():
    text = " ".join(f"Word{i}" for i in range(100))
    changed = f"“{text.lower().replace(' ', ', ')}” …"
    found = find_families(documents_of([text, changed]), DuplicatesConfig()).of
    assert found[0] == found[1]


@settings(max_examples=15)
@given(st.permutations(range(40)))
def test_families_do_not_depend_on_the_order_of_files(order: list[int]):
    texts = planted(8, 10, 4)[:40]
    order = [i for i in order if i < len(texts)]
    straight = find_families(documents_of(texts), DuplicatesConfig()).of
    shuffled = find_families(documents_of([texts[i] for i in order]), DuplicatesConfig()).of
    assert [straight[i] for i in order] == shuffled


def test_pieces_do_not_matter():
    text = planted(1, 0, 3)[0] + " ümläut 世界 " * 30
    for size in (1, 7, 100):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        document = make_document("cut", lambda pieces=pieces: iter(pieces))
        whole = document_from_text("whole", text)
        assert shingle_set(document, 5).tolist() == shingle_set(whole, 5).tolist()


@pytest.mark.parametrize("name", ["threshold", "shingle_words", "contained"])
def test_settings_out_of_range_are_refused(name: str):
    with pytest.raises(UserError, match=rf"corpus\.duplicates\.{name} must be .*, got 0\."):
        from_table(DuplicatesConfig, {name: 0})
