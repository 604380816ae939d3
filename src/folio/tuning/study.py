"""A study: a directory with its settings, a journal of trials, and trials that are ordinary runs.

runs/tune-book/
  study.toml    what is tried: recipe, space, budget; and its id in Optuna
  journal.log   Optuna's record of all trials; any number of processes append to it
  trials/       trial-0007/ is a run like any other: folio sample runs/tune-book/trials/trial-0007
  repeats/      the best few with other seeds, to measure noise
  best.toml     the best recipe                          study.html   what was learned
  locks/        who works on what; held by the operating system, so none outlives its process
"""

from __future__ import annotations

import re
import secrets
import shlex
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from folio.config import Table, from_table, merge, read_toml, to_table
from folio.errors import UserError
from folio.recipe.recipe import Recipe, make_recipe
from folio.run.directory import Run
from folio.run.formats import require_readable, stamped
from folio.storage import atomic_write, locked
from folio.tuning.space import Space, default_space, parse_space

if TYPE_CHECKING:
    import optuna

REDUCTION = 3
"""One of so many trials that reach a rung continues."""
TRIALS_PER_BRACKET = 8
"""With fewer trials a bracket says nothing; a short study has fewer brackets."""
MOST_BRACKETS = 3
STARTUP_TRIALS = 5
"""Trials drawn at random in each bracket, since TPE learns in each bracket from its own trials
alone."""
REPEATED = 4
"""How many of the best trials are repeated with other seeds."""

Unit = Literal["nats per token", "bits per byte"]


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """How a study searches its space."""

    trials: int = 25
    """Number of trials, failed ones included."""

    evaluations: int = 30
    """Evaluations in a full trial; Hyperband decides after each whether to stop it."""

    repeats: int = 1
    """Further seeds with which the best few are trained at the end."""

    seed: int = 1
    """Seed of the draws; runs have the recipe's seed."""

    unit: Unit = "nats per token"
    """Unit of the objective, the best validation loss within the budget; bits per byte if
    tokenizers differ."""

    storage: str = ""
    """A database for Optuna instead of journal.log, such as sqlite:///study.db."""

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("evaluations", 1), ("repeats", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be {least} or more, got {getattr(self, name)}.")

    @property
    def n_brackets(self) -> int:
        """Number of Hyperband's brackets, which differ in how early the first trials are
        stopped.
        """
        return min(MOST_BRACKETS, max(1, self.trials // TRIALS_PER_BRACKET))

    @property
    def first_rung(self) -> int:
        """Evaluations before the earliest stop. The last stop is then at 0.58 of the budget: later,
        it would save little.
        """
        return max(1, round(self.evaluations / REDUCTION ** (self.n_brackets - 0.5)))


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for."""

    recipe: Table
    """The settings that all trials share."""
    space: Table | None = None
    """The search space; None means that of the recipe's optimizer."""
    epochs: float | None = None
    """Budget of each trial; None means the recipe's own, or 30 if it has none."""
    minutes: float | None = None
    """Budget for the whole study instead; it is measured, and frozen as epochs."""
    search: Table
    """Settings of StudyConfig, as a table."""

    def given(self) -> Table:
        """The settings that define the study; its length is not among them."""
        given = {"recipe": self.recipe, "epochs": self.epochs, "minutes": self.minutes}
        given |= {name: value for name, value in self.search.items() if name != "trials"}
        usual = default_space(make_recipe(self.recipe).optimizer.kind)
        given["space"] = usual if self.space is None else self.space
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Study:
    """A study directory with its settings."""

    path: Path
    config: StudyConfig
    space_table: Table
    recipe_table: Table
    """The settings that the values of each trial override."""
    given: Table
    """The user's request; an equal request means the same study."""
    id: str
    """Name under which Optuna keeps its trials, however the directory is renamed or moved."""

    @cached_property
    def space(self) -> Space:
        return parse_space(self.space_table)

    @property
    def recipe(self) -> Recipe:
        return make_recipe(self.recipe_table)

    @property
    def journal_file(self) -> Path:
        return self.path / "journal.log"

    @property
    def best_file(self) -> Path:
        return self.path / "best.toml"

    @property
    def page_file(self) -> Path:
        return self.path / "study.html"

    @property
    def logs_folder(self) -> Path:
        return self.path / "logs"

    def trial_run(self, number: int) -> Run:
        """The run of a trial."""
        return Run(self.path / "trials" / f"trial-{number:04d}")

    def repeat_run(self, number: int, seed: int) -> Run:
        """The run that repeats a trial with another seed."""
        return Run(self.path / "repeats" / f"trial-{number:04d}-seed-{seed}")

    def repeat_seeds(self) -> list[int]:
        """The seeds of the repeats."""
        first = self.recipe.seed
        return [first + i for i in range(1, self.config.repeats + 1)]

    def save(self) -> None:
        """Write study.toml into the directory."""
        import tomli_w

        table = {
            **stamped("study", {"id": self.id}),
            "study": to_table(self.config),
            "space": self.space_table,
            "given": self.given,
            "recipe": self.recipe_table,
        }
        with atomic_write(_settings_file(self.path)) as file:
            head = f"# folio tune {shlex.quote(str(self.path))}\n\n"
            file.write(head + tomli_w.dumps(table))

    # ---- Optuna --------------------------------------------------------------------------

    def connect(self) -> optuna.Study:
        """Open Optuna's study, or create it."""
        import optuna

        from folio.tuning.journal import open_database, open_journal

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        url = self.config.storage
        storage = (
            open_database(url) if url else open_journal(self.journal_file, self.locks_folder())
        )
        own = optuna.create_study(
            study_name=self.id,
            storage=storage,
            pruner=self.pruner(),
            load_if_exists=True,
        )
        if self.config.storage:
            self._refuse_second_directory(own)
        return own

    def _refuse_second_directory(self, own: optuna.Study) -> None:
        """Raise a UserError if another directory has these trials, since their runs lie in one of
        them.
        """
        here, other = str(self.path.resolve()), own.user_attrs.get("directory")
        if other == here:
            return
        if other and is_study(Path(other)) and not self.path.samefile(other):
            path = Path(other)
            if open_study(path).id == self.id:
                raise UserError(
                    f"{self.path} is a copy of the study {path}, and both keep their trials in "
                    f"{self.config.storage}. Go on with that one, or give the copy a database of "
                    f"its own: copy the database, and name the copy as storage in "
                    f"{_settings_file(self.path)}."
                )
        own.set_user_attr("directory", here)

    def pruner(self) -> optuna.pruners.HyperbandPruner:
        """Hyperband (https://arxiv.org/abs/1603.06560) with as many brackets as the budget
        allows.
        """
        from optuna.pruners import HyperbandPruner

        return HyperbandPruner(
            min_resource=self.config.first_rung,
            max_resource=self.config.evaluations,
            reduction_factor=REDUCTION,
        )

    def sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """TPE (https://arxiv.org/abs/2304.11127) for one trial. The trial's number is in its seed,
        so that neither several workers nor a resumed study repeat draws.
        """
        return make_sampler((self.config.seed, number))

    # ---- locks ---------------------------------------------------------------------------

    def claiming(self) -> Any:
        """The lock held while a process chooses its next job."""
        return locked(self.locks_folder() / "claim", f"The study {self.path}", wait=True)

    def lock(self, run: Run) -> ExitStack | None:
        """Lock a run in order to work on it; None if another process has it."""
        held = ExitStack()
        with suppress(UserError):
            held.enter_context(locked(self.locks_folder() / run.name, f"The run {run.path}"))
            return held
        return None

    def locks_folder(self) -> Path:
        """The folder of the locks, created on first use."""
        folder = locks_in(self.path)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def make_sampler(seed: tuple[int, int]) -> optuna.samplers.BaseSampler:
    """The sampler with the settings that bench/tuning.py found best."""
    import numpy as np
    from optuna.samplers import TPESampler

    mixed = np.random.SeedSequence(seed).generate_state(1)[0]
    return TPESampler(seed=int(mixed), n_startup_trials=STARTUP_TRIALS)


def locks_in(path: Path) -> Path:
    """The folder of the locks of a study."""
    return path / "locks"


def _settings_file(path: Path) -> Path:
    return path / "study.toml"


def new_id(path: Path) -> str:
    """A unique id for a new study that begins with its name, for those who look into a database."""
    return f"{path.name}-{secrets.token_hex(4)}"


def is_study(path: Path) -> bool:
    """Whether a folder is a study."""
    return _settings_file(path).is_file()


def open_study(path: Path) -> Study:
    """Open the study of a directory.

    Raises:
        UserError: it is not a study, or study.toml is damaged.
    """
    if not is_study(path):
        raise UserError(f"{path} is not a study: it has no study.toml.")
    table = read_toml(_settings_file(path))
    require_readable("study", table, _settings_file(path))
    missing = [name for name in ("study", "space", "given", "recipe") if name not in table]
    if missing:
        raise UserError(f"{_settings_file(path)} has no table [{missing[0]}].")
    config = from_table(StudyConfig, table["study"], "study.")
    found = table.get("id") or _name_when_saved(path)
    return Study(path, config, table["space"], table["recipe"], table["given"], found)


def _name_when_saved(path: Path) -> str:
    """The id of a study of an old version: the original name of its directory, from the first line
    of study.toml.
    """
    first = _settings_file(path).read_text(encoding="utf-8").partition("\n")[0]
    saved = re.fullmatch(r"# folio tune (.+)", first)
    return Path(saved[1]).name if saved else path.name


def trial_recipe(study: Study, drawn: Table, seed: int | None = None) -> Recipe:
    """The recipe of a trial.

    Args:
        study: the settings that all trials share.
        drawn: the trial's values.
        seed: seed of the run; None means the recipe's own.
    """
    training = {"evaluations": study.config.evaluations, "evaluation_interval": 0}
    layers = [study.recipe_table, drawn, {"training": training}]
    return make_recipe(merge(*layers, {} if seed is None else {"seed": seed}))


def loss_scale(study: Study, run: Run) -> float:
    """Factor from nats per token to the study's unit."""
    if study.config.unit == "nats per token":
        return 1.0
    import numpy as np

    from folio.evaluation.score import bits_per_byte
    from folio.tokenizers import load
    from folio.tokens.loss_mask import open_loss_masks
    from folio.tokens.token_file import open_token_file

    tokenizer = load(run.tokenizer_file)
    if not tokenizer.lossless:
        raise UserError(
            "A tokenizer that loses text has no bits per byte, so it cannot be compared. Leave "
            "word tokenizers out of the space."
        )
    targets = open_token_file(run.tokens_file("validation"), tokenizer.fingerprint)[1:]
    masks = open_loss_masks({"": run.tokens_file("validation.mask")}, tokenizer.fingerprint)
    for mask in masks.values():
        targets = targets[mask[1:] == 1]
    if n_unknown := np.count_nonzero(targets == tokenizer.unknown):
        raise UserError(
            f"{n_unknown:,} tokens of the validation text are unknown to the vocabulary of "
            f"{run.path}, so it has no bits per byte and cannot be compared. Leave character "
            f"tokenizers out of the space."
        )
    n_bytes = int(tokenizer.bytes_per_token[targets].sum())
    return bits_per_byte(len(targets), n_bytes)
