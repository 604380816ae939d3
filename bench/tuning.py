"""Hyperband with TPE against random search, at equal cost, by replaying recorded curves.

    python -m bench.tuning record --text shakespeare-200k.txt    about an hour of one core
    python -m bench.tuning replay                                a minute or two

`record` trains random draws of the default space of `folio tune`, each in full and on one thread,
and appends their curves to a file; it goes on where it was stopped.

`replay` searches among the recorded draws as `folio tune` would, with its sampler, its pruner and
its number of trials. What the sampler proposes is replaced by the nearest recorded draw that was
not tried yet (each setting scaled to 0 ... 1, by its logarithm where the space says so; another
activation is a distance of 1), and the sampler learns from the settings of that draw. Cost is
counted in evaluations, so in tokens read. Random search then gets the same cost: full trials in a
random order, the last one by chance in proportion to what is left.

Limits: of so few draws the best can be found by luck; the sampler cannot propose anything better
than the best of them, and the more of them are tried, the less is left to choose from. All of it
favours random search. One worker is replayed, not two.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, json_to_distribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from folio.config import merge, read_toml
from folio.device import choose_device
from folio.recipe.budget import freeze_budget
from folio.recipe.build import build
from folio.recipe.prepare import prepare
from folio.recipe.recipe import lay_over, make_recipe
from folio.recipe.watcher import Watcher
from folio.training.loop import train
from folio.training.parts import Evaluation
from folio.training.state import TrainingState
from folio.tuning.space import DEFAULT_SPACE, parse_space
from folio.tuning.study import Study, StudyConfig, make_sampler

CURVES = Path(__file__).with_name("tuning_curves.jsonl")
RECIPE = Path(__file__).parents[1] / "recipes" / "tune-shakespeare.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description="Hyperband with TPE against random search.")
    parser.add_argument("what", choices=("record", "replay"))
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--text", type=Path, help="for record: the first 200 kB of Shakespeare")
    parser.add_argument("--draws", type=int, default=60, help="for record")
    parser.add_argument("--epochs", type=float, default=30.0, help="for record")
    parser.add_argument("--evaluations", type=int, default=30, help="for record")
    parser.add_argument("--replays", type=int, default=200)
    parser.add_argument("--trials", type=int, default=25, help="for replay")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.what == "replay":
        replay(read_draws(options.curves), options.replays, options.trials)
    elif options.text is None:
        parser.error("record needs --text")
    else:
        budget = {"max_epochs": options.epochs, "evaluations": options.evaluations}
        record(options.text, options.curves, options.draws, budget)


# ---- record ------------------------------------------------------------------------------


class Curve(Watcher):
    """Keeps the exact validation losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        self.losses.append(round(evaluation.validation_loss, 5))


def record(text: Path, path: Path, n_draws: int, budget: dict[str, Any]) -> None:
    """Train the draws that the file lacks."""
    device_table = {"kind": "cpu", "threads": 1}
    base = merge(read_toml(RECIPE), {"corpus": {"sources": [str(text)]}, "device": device_table})
    prepared = prepare(make_recipe(base), print)
    base = merge(base, {"model": {"vocab_size": prepared.tokenizer.vocab_size}})
    device = choose_device(make_recipe(base).device, rows=2048, width=64)
    texts = prepared.training(), prepared.validation()
    space = parse_space(DEFAULT_SPACE)
    done = len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
    for number in range(done, n_draws):
        trial = optuna.create_study(sampler=RandomSampler(seed=number)).ask()
        recipe = make_recipe(lay_over(base, space.draw(trial, base), {"training": budget}))
        recipe = freeze_budget(recipe, device, *texts).recipe
        curve, state = Curve(), TrainingState()
        train(build(recipe, device, *texts), state, curve)
        kinds = trial.distributions.items()
        entry = {
            "number": number,
            "params": trial.params,
            "distributions": {
                name: optuna.distributions.distribution_to_json(kind) for name, kind in kinds
            },
            "parameters": recipe.model.n_parameters,
            "losses": curve.losses,
            "seconds": round(state.seconds, 1),
        }
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        print(f"{number}: {min(curve.losses):.4f}, {state.seconds:.0f} s", flush=True)


# ---- replay ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """A recorded trial."""

    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    losses: list[float]
    """The best so far at each evaluation."""

    @property
    def final(self) -> float:
        return self.losses[-1]


def read_draws(path: Path) -> list[Draw]:
    """The recorded draws; those that diverged did not come to their end and are left out."""
    draws = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        kinds = {name: json_to_distribution(k) for name, k in entry["distributions"].items()}
        draws.append(Draw(entry["params"], kinds, list(accumulate(entry["losses"], min))))
    most = max(len(draw.losses) for draw in draws)
    return [draw for draw in draws if len(draw.losses) == most]


def replay(draws: list[Draw], n_replays: int, n_trials: int) -> None:
    best = min(draw.final for draw in draws)
    full = len(draws[0].losses)
    print(
        f"{len(draws)} draws of {full} evaluations, final losses {best:.4f} to "
        f"{max(draw.final for draw in draws):.4f}; {n_replays} replays"
    )
    config = StudyConfig(trials=n_trials, evaluations=full)
    print(f"Hyperband: {config.n_brackets} brackets, first rung {config.first_rung} of {full}\n")
    found: dict[str, list[float]] = {}
    costs = []
    for number in range(n_replays):
        loss, cost = search(draws, number, config, tpe=True, pruned=True)
        costs.append(cost)
        results = {
            "Hyperband + TPE": loss,
            "random": random_search(draws, number, cost),
            "Hyperband + random": search(draws, number, config, False, True, cost)[0],
            "TPE": search(draws, number, config, True, False, cost)[0],
        }
        for name, value in results.items():
            found.setdefault(name, []).append(value)
    share = statistics.mean(costs) / (n_trials * full)
    print(
        f"cost of {n_trials} trials: {statistics.mean(costs) / full:.1f} full ones ({share:.0%}); "
        f"all others get the same in each replay\n"
    )
    ours = found["Hyperband + TPE"]
    for name, losses in found.items():
        differences = [theirs - our for theirs, our in zip(losses, ours)]
        error = statistics.stdev(differences) / math.sqrt(n_replays)
        wins = sum(d > 0 for d in differences) / n_replays
        ties = sum(d == 0 for d in differences) / n_replays
        print(
            f"{name:20} {statistics.mean(losses):.4f}, {statistics.mean(losses) - best:.4f} above "
            f"the best draw; worse than ours by {statistics.mean(differences):+.4f} ± {error:.4f} "
            f"(ours better in {wins:.0%}, equal in {ties:.0%})"
        )


def search(
    draws: list[Draw],
    number: int,
    config: StudyConfig,
    tpe: bool,
    pruned: bool,
    limit: float = math.inf,
) -> tuple[float, int]:
    """Search once.

    Args:
        draws: all there is to find.
        number: of the replay: seeds of all draws, and brackets.
        config: trials and evaluations.
        tpe: whether TPE proposes, or chance.
        pruned: whether Hyperband prunes.
        limit: evaluations at most; without one, `config.trials` trials.

    Returns:
        The best loss of a trial that came to its end, and the evaluations that were spent.
    """
    sampler_of: Callable[[int], BaseSampler] = (
        (lambda n: make_sampler((number, n)))
        if tpe
        else (lambda n: RandomSampler(seed=1000 * number + n))
    )
    pruner = (
        Study(Path(), config, {}, {}, {}, "").pruner() if pruned else optuna.pruners.NopPruner()
    )
    study = optuna.create_study(study_name=f"replay-{number}", pruner=pruner)
    left = list(draws)
    spent, best = 0, math.inf
    for n in range(len(draws) if limit < math.inf else config.trials):
        draw = nearest(propose(study, sampler_of(n), draws[0].distributions), left)
        left.remove(draw)
        study.enqueue_trial(draw.params)
        trial = study.ask(draw.distributions)
        stopped = False
        for evaluation, loss in enumerate(draw.losses, 1):
            if spent >= limit:
                return best, spent
            trial.report(loss, evaluation)
            spent += 1
            if evaluation < len(draw.losses) and trial.should_prune():
                stopped = True
                break
        if stopped:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, draw.final)
            best = min(best, draw.final)
    return best, spent


def propose(
    study: optuna.Study, sampler: BaseSampler, distributions: dict[str, BaseDistribution]
) -> dict[str, Any]:
    """What the sampler would try next; asked of a copy, so that the study stays as it is."""
    copy = optuna.create_study(study_name=study.study_name, sampler=sampler, pruner=study.pruner)
    copy.add_trials(study.get_trials(deepcopy=False))
    return copy.ask(distributions).params


def nearest(params: dict[str, Any], draws: list[Draw]) -> Draw:
    """The draw whose settings are closest."""

    def distance(draw: Draw) -> float:
        kinds = draw.distributions.items()
        return sum(_distance(params[name], draw.params[name], kind) ** 2 for name, kind in kinds)

    return min(draws, key=distance)


def _distance(one: Any, other: Any, kind: Any) -> float:
    if isinstance(kind, CategoricalDistribution):
        numbers = all(isinstance(choice, int) for choice in kind.choices)
        if not numbers:
            return float(one != other)
        places = [kind.choices.index(value) for value in (one, other)]
        return abs(places[0] - places[1]) / (len(kind.choices) - 1)
    scale = math.log if kind.log else float
    return abs(scale(one) - scale(other)) / (scale(kind.high) - scale(kind.low))


def random_search(draws: list[Draw], number: int, cost: int) -> float:
    """The best of as many full trials as the cost allows."""
    chance = random.Random(number)
    trials = cost / len(draws[0].losses)
    count = max(1, int(trials) + (chance.random() < trials % 1))
    return min(draw.final for draw in chance.sample(draws, min(count, len(draws))))


if __name__ == "__main__":
    main()
