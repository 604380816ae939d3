"""Lightning trains what the loop trains."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from folio.errors import UserError
from folio.recipe.recipe import Recipe, make_recipe
from folio.recipe.watcher import Watcher
from folio.training.loop import train
from folio.training.parts import Evaluation, Training
from folio.training.state import TrainingState

STEPS = 12

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Lightning's own, of torch and of its advice
    pytest.mark.skipif(find_spec("lightning") is None, reason="the extra lightning"),
    pytest.mark.xdist_group("lightning"),  # loaded once, and not where tests are collected
]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    loud = logging.getLogger("lightning.pytorch")
    level = loud.level
    loud.setLevel(logging.ERROR)
    yield
    loud.setLevel(level)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{n} times {n} is {n * n}.\n" for n in range(200)), encoding="utf-8")
    return path


def recipe_of(text: Path, preset: str, **model: Any) -> Recipe:
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 32, "context_length": 16}
    return make_recipe(
        {
            "preset": preset,
            "corpus": {"sources": [str(text)], "validation_fraction": 0.1},
            "model": shape | model,
            "schedule": {"short_fraction": 0.6, "short_length": 4},  # for seven steps
            "training": {"max_steps": STEPS, "batch_size": 4, "evaluation_interval": STEPS // 2},
        }
    )


class Heard(Watcher):
    """The same, from Folio's loop."""

    def __init__(self) -> None:
        self.training: list[float] = []
        self.validation: list[float] = []

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        self.training.append(loss)

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        if state.step:
            self.validation.append(evaluation.validation_loss)


def by_the_loop(training: Training) -> Heard:
    heard = Heard()
    train(training, TrainingState(), heard)
    return heard


@pytest.mark.parametrize(
    ("preset", "changes", "sample"),
    [("gpt2", {}, 0), ("modern", {}, 64), ("gpt2", {"residual_dropout": 0.2}, 0)],
    ids=["gpt2", "modern", "dropout"],
)
def test_losses_are_those_of_the_loop(
    text: Path, preset: str, changes: dict[str, Any], sample: int
):
    from tests.fitting import Losses, fit, from_recipe

    recipe = recipe_of(text, preset, **changes)
    recipe = replace(recipe, training=replace(recipe.training, validation_sample=sample))
    expected = by_the_loop(from_recipe(recipe)[0].parts)
    losses, parts = Losses(), from_recipe(recipe)
    fit(parts, losses)
    assert losses.training == pytest.approx(expected.training, abs=1e-5)
    assert losses.validation == pytest.approx(expected.validation, abs=1e-5)
    assert len(losses.training) == STEPS and len(losses.validation) == 2
    assert losses.training[-1] < losses.training[0]


def test_windows_are_short_for_a_share_of_the_steps_however_many_batches_one_takes(text: Path):
    from folio.lightning import Batches
    from tests.fitting import from_recipe

    _, data = from_recipe(recipe_of(text, "modern"))
    for accumulated in (1, 3):
        trainer: Any = SimpleNamespace(accumulate_grad_batches=accumulated)
        data.trainer = trainer
        batches = iter(Batches(data))
        lengths = [next(batches)["inputs"].shape[1] for _ in range(STEPS * accumulated)]
        assert lengths == [4] * 7 * accumulated + [16] * 5 * accumulated


@pytest.mark.parametrize(("preset", "dropout"), [("gpt2", 0.0), ("modern", 0.0), ("gpt2", 0.3)])
def test_a_checkpoint_goes_on_where_it_was_saved(
    text: Path, tmp_path: Path, preset: str, dropout: float
):
    from tests.fitting import Losses, ModelCheckpoint, fit, from_recipe

    recipe, whole = recipe_of(text, preset, residual_dropout=dropout), Losses()
    kept = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=5, save_top_k=-1)
    fit(from_recipe(recipe), whole, kept)
    rest, parts = Losses(), from_recipe(recipe)
    fit(parts, rest, ckpt_path=str(tmp_path / "step=5.ckpt"), weights_only=False)
    assert rest.training == whole.training[5:], "to the last bit"


def test_a_module_and_its_data_can_be_sent_to_a_process_that_is_spawned(text: Path):
    from tests.fitting import from_recipe

    module, data = from_recipe(recipe_of(text, "gpt2"))
    copied, its_data = pickle.loads(pickle.dumps((module, data)))
    batch = next(iter(its_data.train_dataloader()))
    assert torch.equal(batch["inputs"], next(iter(data.train_dataloader()))["inputs"])
    given = torch.as_tensor(batch["inputs"]), torch.as_tensor(batch["targets"])
    losses = [each.parts.step.loss(each.model, *given).item() for each in (module, copied)]
    assert losses[0] == losses[1]


def test_each_process_of_several_computes_a_share_of_every_batch(text: Path):
    from tests.fitting import FolioModule, from_recipe

    module, data = from_recipe(recipe_of(text, "gpt2"))
    batch = next(iter(data.train_dataloader()))
    trainer = SimpleNamespace(world_size=2, datamodule=data)
    module.log = lambda *_, **__: None  # pyright: ignore
    losses = []
    for rank in range(2):
        shadow = type("Rank", (FolioModule,), {"global_rank": rank, "trainer": trainer})
        module.__class__ = shadow
        losses.append(float(module.training_step(batch, 0)))
    trainer.world_size = 1
    shadow.global_rank = 0  # pyright: ignore
    assert sum(losses) / 2 == pytest.approx(float(module.training_step(batch, 0)), abs=1e-6)


def test_several_processes_log_the_validation_loss_of_all_of_the_text(
    text: Path, monkeypatch: pytest.MonkeyPatch
):
    from tests.fitting import FolioModule, from_recipe

    monkeypatch.setattr("folio.lightning.BATCH_TOKENS", 64)  # so that there are many chunks
    module, data = from_recipe(recipe_of(text, "gpt2"))
    read, targets, logged = list[list[float]](), list[list[float]](), list[float]()
    module.log = lambda _, value, **__: logged.append(value)  # pyright: ignore

    def gathered(own: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.tensor(each, dtype=own.dtype) for each in read])

    monkeypatch.setattr(module, "all_gather", gathered)
    for n_ranks in (1, 5):
        for rank in range(n_ranks):
            trainer: Any = SimpleNamespace(world_size=n_ranks, global_rank=rank, global_step=STEPS)
            data.trainer = trainer
            module.__class__ = type("Rank", (FolioModule,), {"trainer": trainer})
            for chunk in data.val_dataloader():
                module.validation_step(chunk, 0)
            read.append(list(module._read))
            if rank < n_ranks - 1:
                module._read = [0.0, 0]
        module.on_validation_epoch_end()
        targets.append([own[1] for own in read])
        read.clear()
    assert logged[1] == pytest.approx(logged[0], abs=1e-12)
    assert sum(targets[1]) == targets[0][0] and max(targets[1]) < targets[0][0] / 3


def test_what_only_the_loop_does_is_refused(text: Path):
    from tests.fitting import from_recipe

    recipe = recipe_of(text, "gpt2")
    timed = replace(recipe, training=replace(recipe.training, max_steps=0, minutes=1.0))
    with pytest.raises(UserError, match="Minutes are kept by Folio's own loop"):
        from_recipe(timed)


def test_weights_that_would_not_be_finite_are_left_as_they_were(text: Path):
    from tests.fitting import from_recipe

    module, data = from_recipe(recipe_of(text, "gpt2"))
    optimizer = module.configure_optimizers()
    batch = next(iter(data.train_dataloader()))
    loss = module.parts.step.loss(module.model, batch["inputs"], batch["targets"])
    before = [p.detach().clone() for p in module.model.parameters()]

    def closure() -> float:
        (loss * float("nan")).backward()
        return float("nan")

    with pytest.raises(FloatingPointError):
        optimizer.step(closure)
    assert all(torch.equal(p, old) for p, old in zip(module.model.parameters(), before))


def test_a_parameter_that_takes_no_part_in_the_loss_is_named(text: Path):
    from tests.fitting import from_recipe

    module, _ = from_recipe(recipe_of(text, "gpt2"))
    with pytest.raises(UserError, match=r"take part in the loss, but token_embedding\.weight"):
        module.configure_optimizers().step()
