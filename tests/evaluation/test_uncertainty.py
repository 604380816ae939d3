from __future__ import annotations

import math

import numpy as np
import pytest

from folio.evaluation.score import exact_windows, score
from folio.evaluation.uncertainty import (
    FEWEST_BLOCKS,
    seed_noise,
    standard_error,
    student_quantile,
    text_blocks,
)
from folio.testing import tiny_gpt

TOKENS = np.random.default_rng(0).integers(0, 11, 29).astype(np.uint8)


def test_the_nll_of_each_token_sums_to_the_score():
    model = tiny_gpt(initialization_std=0.5)
    each = list[np.ndarray]()
    total = score(model, TOKENS, exact_windows(len(TOKENS), 8), "exact", each)
    nats = np.concatenate(each)
    assert len(nats) == total.targets == len(TOKENS) - 1
    assert nats.sum() == pytest.approx(total.nats, rel=1e-5)


def test_the_error_is_that_of_drawing_texts_again():
    """Texts of many lengths and levels; the spread of the loss over fresh draws is the truth."""
    random = np.random.default_rng(1)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        lengths = random.integers(20, 200, 60)
        levels = random.normal(2.0, 0.5, 60)
        nll = np.concatenate([random.normal(m, 1.0, n) for m, n in zip(levels, lengths)])
        return nll, np.repeat(np.arange(60), lengths)

    draws = [draw() for _ in range(300)]
    truth = float(np.std([nll.mean() for nll, _ in draws]))
    estimates = [standard_error(*one) for one in draws]
    assert float(np.mean(estimates)) == pytest.approx(truth, rel=0.1)
    naive = np.mean([nll.std() / len(nll) ** 0.5 for nll, _ in draws])
    assert naive < truth / 3  # as if tokens were independent


def test_one_block_says_nothing():
    assert standard_error(np.ones(5), np.zeros(5, np.int64)) == float("inf")


def test_documents_of_one_family_are_one_block():
    tokens = np.array([1, 9, 2, 2, 9, 3] * 10 + [4])
    n_documents = 21
    blocks = text_blocks(tokens, 9, families=list(range(n_documents)))
    assert len(set(blocks.tolist())) == n_documents >= FEWEST_BLOCKS
    assert blocks[:5].tolist() == [0, 0, 1, 1, 1]  # an end belongs to what it ends
    together = text_blocks(tokens, 9, families=[max(i - 1, 0) for i in range(n_documents)])
    assert len(set(together.tolist())) == n_documents - 1


def test_a_long_text_is_cut_into_stretches():
    blocks = text_blocks(np.zeros(16_000, np.uint8), None)
    assert FEWEST_BLOCKS <= len(set(blocks.tolist())) <= FEWEST_BLOCKS + 1
    few = np.zeros(16_000, np.uint8)
    few[8000] = 9
    blocks = text_blocks(few, 9)
    assert blocks[8000] != blocks[8001]
    assert FEWEST_BLOCKS <= len(set(blocks.tolist())) <= FEWEST_BLOCKS + 2


def test_recipes_of_one_run_and_of_none_say_nothing_about_the_noise():
    noise = seed_noise([[1.0, 3.0], [5.0], []])
    assert noise is not None and noise.deviation == pytest.approx(math.sqrt(2))
    assert noise.freedom == 1 and noise.error(1) == noise.deviation
    assert noise.error(2, 2) == pytest.approx(noise.deviation)
    assert seed_noise([[1.0], [5.0]]) is None


@pytest.mark.parametrize("freedom", [1, 2, 5, 10])
def test_the_quantile_holds_95_percent_of_students_distribution(freedom: int):
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2)
    scale /= math.sqrt(freedom * math.pi)
    n, end = 20_000, student_quantile(freedom)
    middles = ((i + 0.5) * end / n for i in range(n))
    inside = sum((1 + t * t / freedom) ** (-(freedom + 1) / 2) for t in middles) * end / n
    assert 2 * scale * inside == pytest.approx(0.95, abs=1e-4)
