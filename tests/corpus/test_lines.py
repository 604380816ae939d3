from __future__ import annotations

from collections import Counter
from contextlib import closing
from itertools import combinations, pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio.corpus import lines, shards
from folio.corpus.lines import LINE_CHARACTERS, Lines, Overlaps

LINES = [f"line {i} ".ljust(LINE_CHARACTERS + i, "x") for i in range(6)] + ["short", ""]
TEXTS = st.lists(st.lists(st.sampled_from(LINES), max_size=8).map("\n".join), max_size=8)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a few documents reach."""
    monkeypatch.setattr(shards, "RUN_ROWS", 5)
    monkeypatch.setattr(shards, "SHARD_ROWS", 3)
    monkeypatch.setattr(lines, "COMPARED_PAIRWISE", 4)


def longer(text: str) -> list[str]:
    return [line for line in text.split("\n") if len(line) >= LINE_CHARACTERS]


def straightforward(texts: list[str], share: float) -> set[tuple[int, int]]:
    """All lines in memory, each pair in a dictionary."""
    of = [longer(text) for text in texts]
    shared: Counter[tuple[int, int]] = Counter()
    for line in set().union(*of):
        group = [i for i, own in enumerate(of) if line in own]
        pairs = combinations(group, 2) if len(group) <= 4 else pairwise(group)
        shared.update({pair: len(line) for pair in pairs})
    sizes = [sum(map(len, set(own))) for own in of]
    return {(a, b) for (a, b), n in shared.items() if n >= share * min(sizes[a], sizes[b])}


@given(TEXTS, st.sampled_from([0.2, 0.5, 1.01]), st.integers(1, 50), st.randoms())
def test_shards_find_what_all_lines_in_memory_find(
    texts: list[str], share: float, size: int, random: Random
):
    with closing(Lines(len(texts))) as found:
        # In any order, as threads read them.
        for i, text in random.sample(list(enumerate(texts)), len(texts)):
            found.read(i, [text[at : at + size] for at in range(0, len(text), size)])
        found.compare()
        pairs = list(found.contained(share))
        everything = [line for text in texts for line in longer(text)]
        assert len(pairs) == len(set(pairs)) and set(pairs) == straightforward(texts, share)
        assert found.counts.tolist() == [len(longer(text)) for text in texts]
        assert found.characters.sum() == sum(map(len, everything))
        assert found.n_different == len(set(everything))
        assert found.different_length == sum(map(len, set(everything)))


def test_parts_that_stand_in_many_documents_and_too_few_shared_ones_can_be_left_out_of_account():
    own, shared = [np.arange(10 * i, 10 * i + 3, dtype=np.uint64) for i in (1, 2)]
    everywhere = np.array([1], np.uint64)
    with closing(Overlaps(5)) as found:
        for i, parts in enumerate([shared, shared[:2], own, shared[:1], own[:0]]):
            parts = np.concatenate([everywhere, parts])
            found.add(i, parts, np.ones(len(parts), np.int64))
        found.compare(widespread=False)
        assert found.distinct_lengths.tolist() == [4, 3, 4, 2, 1]
        assert set(found.contained(0.5)) == {(0, 1), (0, 3), (1, 3)}
        assert set(found.contained(0.5, 2)) == {(0, 1)}


def test_a_text_that_repeats_its_lines_is_contained_in_one_that_has_them():
    refrain, verses = LINES[0], LINES[1:6]
    with closing(Lines(2)) as found:
        found.read(0, [f"{refrain}\n" * 10])
        found.read(1, ["\n".join([refrain, *verses])])
        found.compare()
        assert list(found.contained(1.0)) == [(0, 1)]


def test_a_line_that_comes_again_a_thousand_times_is_one_row():
    """A shard holds all rows of a key, so that it must not grow with the text."""
    with closing(Lines(1)) as found:
        found.read(0, [f"{LINES[0]}\n" * 1000])
        assert sum(len(rows) for rows in found._parts) == 1
        assert found.counts.tolist() == [1000]
