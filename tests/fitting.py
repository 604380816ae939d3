"""What Lightning needs of a test; it is loaded here, since that takes longer than most tests."""

from __future__ import annotations

from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from folio.lightning import FolioData, FolioModule, from_recipe

STEPS = 12

__all__ = ["STEPS", "FolioModule", "Losses", "ModelCheckpoint", "fit", "from_recipe"]


class Losses(Callback):
    """Collects what is logged."""

    def __init__(self) -> None:
        self.training: list[float] = []
        self.validation: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.training.append(float(trainer.callback_metrics["train_loss"]))

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.validation.append(float(trainer.callback_metrics["val_loss"]))


def fit(
    parts: tuple[FolioModule, FolioData], *callbacks: Callback, steps: int = STEPS, **others: Any
) -> None:
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        val_check_interval=STEPS // 2,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(*parts, **others)
