"""Folio: train a GPT from scratch on your own text, and see what it learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from folio.recall.measure import Recall
    from folio.recipe.finish import Result
    from folio.run.opening import OpenRun

__version__ = "0.1.0"
__all__ = ["load", "measure_recall", "train"]


def train(*sources: str, name: str | None = None, **settings: Any) -> Result:
    """Train a model on some text, as `folio train` does.

    Args:
        sources: files, folders or built-in corpora; python-docs where there are none.
        name: of the run, below runs/.
        settings: tables and values of a recipe: `model={"n_layers": 6}, seed=2`.

    Returns:
        The run, how it ended, and its diagnosis.
    """
    from folio.recipe.recipe import lay_over, make_recipe
    from folio.recipe.train import train_recipe
    from folio.recipe.watcher import Watcher

    table = lay_over({"corpus": {"sources": list(sources)}} if sources else {}, settings)
    return train_recipe(make_recipe(table), name, Watcher(), given=table)


def load(run: str | None = None, checkpoint: str = "best") -> OpenRun:
    """A trained model: `folio.load("runs/x").generate("ROMEO:")`.

    Args:
        run: a name or a path; the newest run where it is None.
        checkpoint: `best`, `last` or a step.
    """
    from folio.run.directory import find_run
    from folio.run.opening import open_run

    return open_run(find_run(run), checkpoint)


def measure_recall(run: str | None = None, checkpoint: str = "best", **settings: Any) -> Recall:
    """Did it learn, or copy? As `folio recall` finds it, without writing anything.

    Args:
        run, checkpoint: as in `load`.
        settings: of RecallConfig: `samples=75, temperature=0.8, passages=4096, length=50, seed=1`.
    """
    from folio.recall import config, measure

    return measure.measure_recall(load(run, checkpoint), config.RecallConfig(**settings))
