"""Folio's training for Lightning (extra `lightning`): its loggers, callbacks and strategies.

    from lightning import Trainer
    from folio.lightning import from_recipe
    from folio.recipe.recipe import make_recipe

    module, data = from_recipe(make_recipe({"training": {"max_steps": 200}}))
    every = data.parts.config.evaluation_interval  # steps; without these two there is no val_loss
    trainer = Trainer(
        max_steps=data.max_steps, val_check_interval=every, check_val_every_n_epoch=None
    )
    trainer.fit(module, data)

Model, batches and their order, loss, optimizer, clipping and schedule are those of `folio train`,
so the losses are, too. Precision, devices and checkpoints are the Trainer's: give it neither
`gradient_clip_val` nor a scheduler. DDP is understood: each process computes a share of every
batch. FSDP is not, since Muon takes whole matrices. What needs Folio's own loop is missing: minutes
that are kept, the fast layers, cards and `folio resume`.

Shapes:  B windows in a batch · T context length
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import count
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from folio.device import DeviceConfig
from folio.errors import UserError
from folio.evaluation.score import BATCH_TOKENS, Window, sampled_windows, score
from folio.recipe.budget import freeze_budget
from folio.recipe.build import build
from folio.recipe.recipe import Recipe
from folio.recipe.settle import settle
from folio.recipe.watcher import Watcher
from folio.tokens.ignored import IGNORED
from folio.tokens.stream import StreamPosition
from folio.training.batches import evaluated_length, next_batch
from folio.training.config import is_timed
from folio.training.gradients import gradient_norm, gradients_of, require_gradients
from folio.training.loop import update_weights
from folio.training.parts import Training
from folio.training.step import Gradient, PlainStep


def from_recipe(recipe: Recipe) -> tuple[FolioModule, FolioData]:
    """Prepare the text of a recipe, and build what `Trainer.fit` takes.

    Args:
        recipe: with a budget in steps, tokens or epochs; its device is left to the Trainer.

    Raises:
        UserError: as `folio train`, and for what only Folio's own loop does.
    """
    if is_timed(recipe.training):
        raise UserError(
            "Minutes are kept by Folio's own loop, and Lightning has another one. Give a number of "
            "steps: training.max_steps."
        )
    if recipe.start.run:
        raise UserError("Lightning begins with random weights here. Go on with folio train --from.")
    plain = DeviceConfig(kind="cpu", precision="float32", fast="off")
    settled = settle(replace(recipe, device=plain), Watcher())
    prepared = settled.prepared
    if prepared.loss_masks():
        raise UserError("Conversations are learned by folio train; give a text to Lightning.")
    texts = prepared.training(), prepared.validation()
    frozen = freeze_budget(settled.recipe, settled.device, *texts)
    training = build(frozen.recipe, settled.device, *texts)
    return FolioModule(training), FolioData(training)


class FolioModule(LightningModule):
    """The model with its loss; logs `train_loss` and `val_loss`, in nats per token."""

    def __init__(self, training: Training) -> None:
        """Take the parts of a training; `model` is the model, with its weights in float32."""
        super().__init__()
        self.parts, self.model = training, training.model
        self._read = [0.0, 0]  # nats and targets of the validation text

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The mean loss of a batch over all of its targets, in every process its own share."""
        self.trainer.datamodule.load_state_dict(batch)  # pyright: ignore
        inputs, targets = batch["inputs"], batch["targets"]  # each (B, T)
        own = slice(self.global_rank, None, self.trainer.world_size)
        loss = self.parts.step.loss(self.model, inputs[own], targets[own])  # summed, in nats
        share = self.trainer.world_size / max(int((targets != IGNORED).sum()), 1)  # DDP averages
        self.log("train_loss", loss.detach() * share, prog_bar=True, sync_dist=True)
        return loss * share

    def validation_step(self, windows: list[list[int]], batch_idx: int) -> None:
        """Add up the loss of some windows of the validation text."""
        read = [Window(*window) for window in windows]
        found = score(self.model, self.parts.validation, read, "exact")
        self._read[0] += found.nats
        self._read[1] += found.targets

    def on_validation_epoch_end(self) -> None:
        """Log the exact loss of the validation text, of which each process read its share."""
        read, self._read = self._read, [0.0, 0]
        if self.trainer.world_size > 1:
            shares = self.all_gather(torch.tensor(read, dtype=torch.float64, device=self.device))
            read = shares.sum(0).tolist()  # pyright: ignore
        nats, n_targets = read
        if n_targets:
            self.log("val_loss", nats / n_targets, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer, on the device on which the model is by now."""
        return ScheduledOptimizer(self.parts, self.model)


class FolioData(LightningDataModule):
    """The batches of a training in their order, and the windows of the validation text."""

    def __init__(self, training: Training) -> None:
        """Take the parts of a training."""
        super().__init__()
        self.parts = training
        self.place, self.step = asdict(StreamPosition()), 0
        """The position behind the batch that was trained on last, and the number of that batch;
        both go into checkpoints."""

    @property
    def max_steps(self) -> int:
        """Steps of the budget, for the Trainer."""
        return self.parts.config.max_steps

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches without end, from `place` on."""
        # A generator of its own: the usual one draws from torch's global state, as dropout does.
        return DataLoader(Batches(self), batch_size=None, generator=torch.Generator())

    def val_dataloader(self) -> DataLoader[Any]:
        """Lists of windows of the validation text, as `folio train` reads them, each list by one
        of the processes.
        """
        return DataLoader(Chunks(self), batch_size=None, generator=torch.Generator())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the position, the number of batches so far, and what dropout on
        a processor draws from.
        """
        return {"place": self.place, "step": self.step, "random": torch.get_rng_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the position of a checkpoint."""
        # Checkpoints from before short windows have no step, and need none.
        self.place, self.step = state_dict["place"], state_dict.get("step", 0)
        if "random" in state_dict:
            torch.set_rng_state(state_dict["random"])


class Batches(IterableDataset[dict[str, Any]]):
    """Each batch with the position behind it: Lightning reads one ahead of the step."""

    def __init__(self, data: FolioData) -> None:
        """Read from where `data` says."""
        self.data = data

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield (B, T) inputs and targets, without end."""
        parts = self.data.parts
        parts.stream.place = StreamPosition.of(self.data.place)
        trainer = self.data.trainer
        batches_a_step = trainer.accumulate_grad_batches if trainer else 1
        for number in count(self.data.step):
            batch = next_batch(parts, number // batches_a_step)
            yield batch._asdict() | {"place": asdict(parts.stream.place), "step": number + 1}


class Chunks(IterableDataset[list[list[int]]]):
    """Windows of the validation text, without an index: by that the Trainer would share them out
    once more, and read windows twice where there is no even share.
    """

    def __init__(self, data: FolioData) -> None:
        """Read the text of `data`."""
        self.data = data

    def __iter__(self) -> Iterator[list[list[int]]]:
        """Yield lists of the start, length and skip of windows, as long as those of an evaluation
        after this step.
        """
        parts, trainer = self.data.parts, self.data.trainer
        step, rank, n_ranks = (
            (trainer.global_step, trainer.global_rank, trainer.world_size) if trainer else (0, 0, 1)
        )
        length = evaluated_length(parts, step)
        sample = sampled_windows(len(parts.validation), length, parts.config.validation_sample)
        windows = [list(window) for window in sample]
        at_once = max(1, BATCH_TOKENS // length)
        chunks = [windows[i : i + at_once] for i in range(0, len(windows), at_once)]
        yield from chunks[rank::n_ranks]


class ScheduledOptimizer(torch.optim.Optimizer):
    """Folio's optimizer with its clipping and its schedule, a function of the step."""

    def __init__(self, training: Training, model: nn.Module) -> None:
        """Assign rules to the parameters of a model."""
        config = training.optimizer_config
        step = PlainStep(model, training.device, training.config, config)
        self.model, self.inner = model, step.optimizer
        self.parts, self.steps = replace(training, step=step), 0
        super().__init__(self.inner.parameters, {"lr": config.learning_rate})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore
        """Compute the gradient, clip it, and update the weights.

        Raises:
            FloatingPointError: the weights would not be finite; they are as they were.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        require_gradients(gradients_of(self.model))
        norm = float(gradient_norm(self.inner.parameters))
        gradient = Gradient(0.0 if loss is None else float(loss), norm)
        learning_rate = update_weights(self.parts, self.steps, gradient)
        self.param_groups[0]["lr"] = learning_rate  # for those who log it
        self.steps += 1
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The steps done, and the state of the rules by name."""
        return {"steps": self.steps, "tensors": dict(self.inner.tensors)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.steps = state_dict["steps"]
        self.inner.load(state_dict["tensors"])
