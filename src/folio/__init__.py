"""Folio: train a GPT from scratch on your own text, and see what it learned.

>>> import folio
>>> result = folio.train("book.txt", minutes=5)                     # doctest: +SKIP
>>> folio.load(result.run.path).generate("The ", max_tokens=100)    # doctest: +SKIP

Anything that is not in `__all__` may change with any version.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from folio.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from folio.explain.page import Explanation
    from folio.recall.measure import Recall
    from folio.recipe.finish import Result
    from folio.recipe.recipe import Recipe
    from folio.run.model import Model
    from folio.tokenizers.base import Tokenizer
    from folio.training.parts import Observer

__version__ = "0.2.0"
__all__ = [
    "Model",
    "Observer",
    "Recipe",
    "Result",
    "Tokenizer",
    "UserError",
    "explain_text",
    "load",
    "measure_recall",
    "train",
]

_LOADED_WHEN_USED = {
    "Model": "folio.run.model",
    "Observer": "folio.training.parts",
    "Recipe": "folio.recipe.recipe",
    "Result": "folio.recipe.finish",
    "Tokenizer": "folio.tokenizers.base",
}
"""Public class -> its module. Most of these import torch, which takes a second, so they load on
first use."""


def train(
    *sources: str | Path | Recipe,
    name: str | Path | None = None,
    minutes: float | None = None,
    log: str | Sequence[str] = (),
    observer: Observer | None = None,
    should_stop: Callable[[], bool] | None = None,
    **settings: Any,
) -> Result:
    """Train a model on some text, as `folio train` does.

    Progress and warnings about the text go to the logger `folio`; a notebook also shows a live
    curve. Ctrl-C raises KeyboardInterrupt as usual, and `folio resume` continues from the last
    checkpoint. Interrupting a notebook saves one and returns; only a second time raises.

    Args:
        sources: files, folders, globs or built-in corpora (by default python-docs); or one recipe,
            as a .toml file or a `Recipe`.
        name: name of the run in runs/; None makes one from corpus and preset.
        minutes: how long to train, counted from this call; None trains the steps of the recipe.
        log: show the run in `tensorboard`, `wandb` or `mlflow`, too; several with commas, or as a
            list.
        observer: receives each step, evaluation and checkpoint.
        should_stop: asked after each step; True saves and ends the run, as from another thread,
            which hears no interrupt.
        settings: tables and values of a recipe: `model={"n_layers": 6}, seed=2`; or
            `start={"run": "base"}` to begin with the weights of a run, or of files that
            `folio import` reads.

    Returns:
        The run, how it ended, and its diagnosis.

    Raises:
        UserError: anything that you can fix, before anything is written.
    """
    from contextlib import nullcontext

    from folio.config import split_names
    from folio.export.importing import with_run
    from folio.notebook import in_notebook, interrupts
    from folio.process import torch_as_before
    from folio.recipe.recipe import lay_over, make_recipe, source_layers
    from folio.recipe.start import started
    from folio.recipe.train import train_recipe
    from folio.recipe.watcher import LoggingWatcher
    from folio.training.config import check_budget

    budget = {} if minutes is None else {"training": {"minutes": minutes}}
    shown = {"training": {"log": split_names(log)}} if log else {}
    table = started(with_run(lay_over(*source_layers(sources), budget, shown, settings)))
    recipe = make_recipe(table)
    if minutes is not None:
        check_budget("minutes", minutes)
    name = str(name) if isinstance(name, Path) else name
    asked, observers = should_stop or (lambda: False), [] if observer is None else [observer]
    hear = interrupts() if in_notebook() else nullcontext(lambda: False)
    with torch_as_before(), hear as interrupted:
        if in_notebook():
            from folio.recipe.live_cell import LiveCell

            observers.append(LiveCell())
        watcher = LoggingWatcher(*observers)
        return train_recipe(recipe, name, watcher, lambda: interrupted() or asked(), given=table)


def load(run: str | Path | None = None, checkpoint: str | int = "best") -> Model:
    """Open a trained model: `folio.load("runs/x").generate("ROMEO:")`.

    Args:
        run: a name or a path; None opens the newest run.
        checkpoint: `best`, `last` or a step.

    Raises:
        UserError: there is no such run or checkpoint.
    """
    from folio.run.directory import find_run
    from folio.run.opening import open_run
    from folio.storage import local

    return open_run(find_run(None if run is None else str(local(str(run)))), str(checkpoint))


def measure_recall(
    run: str | Path | None = None, checkpoint: str | int = "best", **settings: Any
) -> Recall:
    """Find out whether a model learned or copies, as `folio recall` does; writes nothing.

    Args:
        run, checkpoint: as in `load`.
        settings: fields of `RecallConfig`, such as `samples=20` or `twin=True`.

    Raises:
        UserError: there is no such run or setting.
    """
    from folio.config import from_table
    from folio.recall import config, measure

    return measure.measure_recall(load(run, checkpoint), from_table(config.RecallConfig, settings))


def explain_text(
    text: str, run: str | Path | None = None, checkpoint: str | int = "best"
) -> Explanation:
    """See what a model makes of a text, as `folio explain` does; a notebook shows the page.

    Args:
        text: at least two tokens; only the first context is shown of a longer one.
        run, checkpoint: as in `load`.

    Raises:
        UserError: there is no such run, or the vocabulary lacks something of the text.
    """
    from folio.explain import page

    return page.explain_text(load(run, checkpoint), text)


def __getattr__(name: str) -> Any:
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module 'folio' has no attribute '{name}'")
    from importlib import import_module

    globals()[name] = value = getattr(import_module(_LOADED_WHEN_USED[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
