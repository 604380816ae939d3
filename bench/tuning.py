"""Hyperband with TPE against random search, at equal cost, by replaying recorded curves.

    python -m bench.tuning record --text shakespeare-200k.txt    about an hour of one core
    python -m bench.tuning replay                                seconds

`record` trains random draws of the default space of `folio tune` in full and keeps their curves in
bench/tuning_curves.jsonl.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

CURVES = Path(__file__).with_name("tuning_curves.jsonl")
RECIPE = Path(__file__).parents[1] / "recipes" / "tune-shakespeare.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description="Hyperband with TPE against random search.")
    parser.add_argument("what", choices=("record", "replay"))
    parser.add_argument("--text", type=Path, help="for record")
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=float, default=30.0)
    options = parser.parse_args()
    record(options.text, options.curves, options.trials, options.epochs)


# ---- record ------------------------------------------------------------------------------


def record(text: Path, path: Path, n_trials: int, epochs: float) -> None:
    """Train draws 0 to n_trials - 1 that the file lacks, on one thread, and append them."""
    import optuna
    from optuna.samplers import RandomSampler

    from folio.config import merge, read_toml
    from folio.device import choose_device
    from folio.recipe.build import build, freeze_budget
    from folio.recipe.prepare import prepare
    from folio.recipe.recipe import make_recipe
    from folio.training.loop import train
    from folio.training.state import TrainingState
    from folio.tuning.space import DEFAULT_SPACE, parse_space

    space = parse_space(DEFAULT_SPACE)
    there = read_curves(path) if path.exists() else []
    given = {"corpus": {"sources": [str(text)]}, "device": {"kind": "cpu", "threads": 1}}
    base = merge(read_toml(RECIPE), given)
    prepared = prepare(make_recipe(base), print)
    base = merge(base, {"model": {"vocab_size": prepared.tokenizer.vocab_size}})
    device = choose_device(make_recipe(base).device, 2048, 64)
    texts = prepared.training(), prepared.validation()
    for number in range(len(there), n_trials):
        trial = optuna.create_study(sampler=RandomSampler(seed=number)).ask()
        recipe = make_recipe(merge(base, space.draw(trial, base)))
        budget = {"training": {"max_epochs": epochs, "evaluation_interval": 1}}
        frozen = freeze_budget(
            make_recipe(merge(base, space.draw(trial, base), budget)), device, *texts
        )
        interval = -(-frozen.training.max_steps // 30)
        recipe = make_recipe(
            merge(
                base,
                space.draw(trial, base),
                {
                    "training": {
                        "max_steps": frozen.training.max_steps,
                        "evaluation_interval": interval,
                        "log_interval": 10**9,
                    }
                },
            )
        )
        watcher = Curve()
        state = TrainingState()
        ending = train(build(recipe, device, *texts), state, watcher)
        entry = {
            "number": number,
            "params": trial.params,
            "distributions": {
                n: optuna.distributions.distribution_to_json(d)
                for n, d in trial.distributions.items()
            },
            "parameters": recipe.model.n_parameters,
            "losses": watcher.losses,
            "ending": ending,
            "seconds": round(state.seconds, 1),
        }
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        print(
            number,
            recipe.model.n_parameters,
            ending,
            min(watcher.losses, default=None),
            f"{state.seconds:.0f} s",
            flush=True,
        )


class Curve:
    def __init__(self) -> None:
        self.losses: list[float] = []

    def stepped(self, state: Any, loss: float, learning_rate: float) -> None: ...

    def evaluated(self, state: Any, evaluation: Any) -> None:
        self.losses.append(round(evaluation.validation_loss, 5))

    def save(self, state: Any) -> None: ...

    def ended(self, state: Any, ending: Any) -> None: ...


def read_curves(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
