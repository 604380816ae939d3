"""Short trainings on parts of a text."""

from __future__ import annotations

import numpy as np
import pytest

from folio.device import Device, DeviceConfig
from folio.planning.starvation import measure_starvation
from folio.planning.trial import part_of, trial_loss
from folio.recipe.recipe import Recipe, make_recipe
from folio.tokenizers.base import TokenIds

CPU = Device(DeviceConfig(kind="cpu", precision="float32", threads=1), "test")
TEXT = np.tile(np.arange(10, dtype=np.uint8), 400)


@pytest.mark.parametrize("share", [0.12, 0.25, 0.5, 1.0])
def test_a_part_has_something_of_the_whole_text_in_its_order(share: float):
    tokens = np.arange(100_000, dtype=np.uint32)
    part = part_of(tokens, share)
    assert len(part) == pytest.approx(share * len(tokens), rel=0.05)
    assert (np.diff(part) > 0).all()
    assert np.diff(part).max() < 2 * len(tokens) / 64 / share
    assert part.max() > 0.8 * len(tokens)


def test_a_trial_learns_and_says_how_well():
    model = {"vocab_size": 10, "n_layers": 1, "n_heads": 2, "d_model": 16, "context_length": 8}
    recipe = make_recipe({"model": model, "optimizer": {"learning_rate": 1e-2}})
    losses = [trial_loss(recipe, CPU, steps, TEXT[:-200], TEXT[-200:]) for steps in (1, 30)]
    assert losses[1] < 1.0 < losses[0]


def test_starvation_trains_on_each_part_as_often(monkeypatch: pytest.MonkeyPatch):
    """A loss of 1 + 1 / sqrt(D), and 0.1 less for twice the layers, stands in for training."""
    trials = []

    def loss(
        recipe: Recipe, device: Device, steps: int, training: TokenIds, validation: TokenIds
    ) -> float:
        trials.append((len(training), steps, recipe.model.n_layers))
        return 1 + len(training) ** -0.5 - (0.1 if recipe.model.n_layers > 4 else 0)

    monkeypatch.setattr("folio.planning.starvation.trial_loss", loss)
    tokens, lines = np.zeros(200_000, np.uint8), []
    found = measure_starvation(tokens, tokens[:100], 10, CPU, lines.append)
    *parts, twice = trials
    assert [n for n, _, _ in parts] == [n for n, _ in found.points]
    assert all(steps == round(6 * n / 512) for n, steps, _ in trials)
    assert twice[2] == 8 and len(lines) == 5
    assert found.gain_from_model == pytest.approx(0.1)
    n = parts[-1][0]
    assert found.gain_from_text == pytest.approx(n**-0.5 - (2 * n) ** -0.5, abs=1e-3)
    assert "the model is the limit" in found.lines()[1] and len(found.lines()) == 2


def test_of_a_text_that_is_read_in_part_the_gain_is_that_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(
        "folio.planning.starvation.trial_loss",
        lambda recipe, device, steps, training, validation: 1 + (len(training) / 1e4) ** -0.3,
    )
    monkeypatch.setattr("folio.planning.starvation.MOST_TOKENS", 30_000)
    tokens = np.zeros(3_000_000, np.uint8)
    found = measure_starvation(tokens, tokens[:100], 10, CPU, lambda line: None)
    assert found.gain_from_text == pytest.approx(300**-0.3 - 600**-0.3, rel=0.05)
    assert -found.record()["twice_the_text"] == found.gain_from_text
    low, high = found.record()["twice_the_text_interval"]
    assert low < -found.gain_from_text < high
    read = found.points[-1][0]
    assert found.lines()[-1].startswith(f"measured on {read:,} of 3,000,000 tokens, and extra")
    assert read < 31_000
