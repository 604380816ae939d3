"""Train a model on a text, and hear how it goes.

python examples/01_train.py
"""

from __future__ import annotations

from typing import Any

import folio
from folio.training.parts import Evaluation
from folio.training.state import TrainingState


class Progress(folio.Observer):
    """Prints a line for each evaluation. An observer overrides what it wants to hear of."""

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        print(f"step {state.step:>5}  validation loss {evaluation.validation_loss:.3f}")


def main(text: str = "python-docs", minutes: float | None = 1, **settings: Any) -> folio.Result:
    """`text` is a file, a folder or a built-in corpus; `settings` are those of a recipe."""
    result = folio.train(text, minutes=minutes, observer=Progress(), **settings)
    print(result.diagnosis)
    print(result.sample)
    return result


if __name__ == "__main__":
    main()
