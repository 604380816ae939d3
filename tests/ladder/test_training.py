"""The plain loop of steps 0 to 6: repeatable, honest, and it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from folio.ladder.steps import STEPS
from folio.ladder.training import LadderResult, climb, write
from folio.recipe.prepare import Prepared, prepare
from folio.recipe.recipe import make_recipe


def read(*sources: str) -> Prepared:
    table = {"corpus": {"sources": list(sources)}, "tokenizer": {"kind": "character"}}
    return prepare(make_recipe(table), lambda line: None)


@pytest.fixture
def text(book: Path) -> Prepared:
    return read(str(book))


def weights(result: LadderResult) -> list[torch.Tensor]:
    return list(result.model.state_dict().values())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(text: Prepared):
    torch.manual_seed(5)
    one = climb(STEPS[6], text, seed=3, max_steps=4)
    torch.manual_seed(6)  # whatever the global state is
    two = climb(STEPS[6], text, seed=3, max_steps=4)
    other = climb(STEPS[6], text, seed=4, max_steps=4)
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two)))
    assert one.validation_loss == two.validation_loss != other.validation_loss


def test_the_seed_is_that_of_the_first_weights_too(text: Prepared):
    still = replace(STEPS[1], learning_rate=0.0)
    one, other = (climb(still, text, seed=seed, max_steps=1) for seed in (3, 4))
    heads = (climbed.model.get_parameter("lm_head.weight") for climbed in (one, other))
    assert not torch.equal(*heads)


def test_training_leaves_torchs_random_state_alone(text: Prepared):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    climb(STEPS[1], text, max_steps=1)
    assert torch.equal(before, torch.get_rng_state())


def test_evaluations_come_when_due_and_at_the_end(text: Prepared, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("folio.ladder.training.EVALUATION_INTERVAL", 2)
    shown = []
    result = climb(STEPS[0], text, max_steps=5, show=shown.append)
    assert [evaluation.step for evaluation in shown] == [2, 4, 5]
    assert shown == result.evaluations
    assert result.validation_loss == shown[-1].validation_loss


def test_the_validation_loss_is_that_of_each_held_out_token_after_the_first(text: Prepared):
    result = climb(STEPS[0], text, max_steps=3)
    ids = text.validation().astype(np.int64)
    scores = result.model.get_parameter("table.weight").detach().double().log_softmax(dim=1).numpy()
    expected = -scores[ids[:-1], ids[1:]].mean()  # a table needs no window
    assert result.validation_loss == pytest.approx(expected, rel=1e-5)


def test_the_training_loss_is_of_the_training_text(tmp_path: Path):
    path = tmp_path / "two_kinds.txt"
    path.write_text("ab" * 4500 + "aabb" * 250)  # the tail is held out
    (end,) = climb(STEPS[0], read(str(path)), max_steps=300).evaluations
    assert end.training_loss < 0.1 < 1.0 < end.validation_loss


def test_the_bigram_learns_how_often_each_pair_occurs(tmp_path: Path):
    # Each letter has two successors, the first three times as often as the second.
    draw = np.random.default_rng(0)
    letters, at = [], 0
    for _ in range(20_000):
        at = (at + (1 if draw.random() < 0.75 else 2)) % 4
        letters.append("abcd"[at])
    path = tmp_path / "pairs.txt"
    path.write_text("".join(letters))
    result = climb(STEPS[0], read(str(path)), max_steps=1500)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert result.validation_loss == pytest.approx(entropy, abs=0.05)
    rows = result.model.get_parameter("table.weight")[:4].softmax(dim=1)
    for i in range(4):
        assert rows[i, (i + 1) % 4].item() == pytest.approx(0.75, abs=0.05)
        assert rows[i, (i + 2) % 4].item() == pytest.approx(0.25, abs=0.05)


def test_attention_learns_what_a_table_cannot(tmp_path: Path):
    # What follows an x is what stood before it, so that one token back says nothing.
    draw = np.random.default_rng(0)
    path = tmp_path / "mirror.txt"
    path.write_text("".join(f"{c}x{c}" for c in draw.choice(list("abcdefgh"), 8000)))
    text = read(str(path))
    table, head = (climb(STEPS[i], text, max_steps=400).validation_loss for i in (0, 1))
    assert head < table - 0.2


def test_a_trained_step_writes_known_characters_and_repeats_with_a_seed(text: Prepared):
    result = climb(STEPS[2], text, max_steps=3)
    one, two = write(result, text, 50, seed=1), write(result, text, 50, seed=1)
    assert one == two != write(result, text, 50, seed=2)
    assert len(one) == 50 and "<" not in one  # no special token among them
