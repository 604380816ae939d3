"""The search space of a study: settings of a recipe with their ranges. TOML in, values out.

A space is a recipe with ranges as values:

    n_parameters = 300_000          # optional: each model as wide as makes it this large

    [optimizer.learning_rate]
    low = 3e-4
    high = 3e-2
    log = true

    [model.n_layers]                # whole numbers; `step` may be given
    low = 1
    high = 4

    [model.d_ff]                    # 2, 3 or 4 times the width
    choices = [2, 3, 4]
    times_width = true

    [model.activation]
    choices = ["relu", "gelu"]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from folio.config import Table, merge, parse_value, settings, unknown_name
from folio.errors import UserError
from folio.model.config import ModelConfig
from folio.recipe.recipe import Recipe, make_recipe

Choice = str | int | float | bool

DEFAULT_SPACE: Table = {
    "optimizer": {
        "learning_rate": {"low": 3e-4, "high": 3e-2, "log": True},
        "weight_decay": {"low": 1e-3, "high": 1.0, "log": True},
    },
    "model": {
        "n_layers": {"low": 1, "high": 4},
        "n_heads": {"choices": [1, 2, 4, 8]},
        "activation": {"choices": ["relu", "gelu", "relu2", "swiglu"]},
        "d_ff": {"choices": [2, 3, 4], "times_width": True},
    },
}
"""Ranges around the presets, a factor of about ten for the rates."""
MUON_SPACE: Table = DEFAULT_SPACE | {
    "optimizer": {
        "matrix_learning_rate": {"low": 1e-3, "high": 0.1, "log": True},
        "matrix_weight_decay": {"low": 1e-2, "high": 3.0, "log": True},
    }
}
"""The same with Muon, which updates the matrices between hidden layers; AdamW's settings, for the
rest, hardly matter beside it."""

RANGE_KEYS = ("low", "high", "log", "step", "choices", "times_width")
D_MODEL, N_HEADS = "model.d_model", "model.n_heads"
ROUND_TO = 8
"""Widths of feed-forward layers are rounded to multiples of this, for faster matmuls."""


class Suggest(Protocol):
    """Draws values, as Optuna's trials do."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A setting and its range."""

    setting: str
    """Dotted name of the setting in a recipe."""
    whole: bool
    """Whether the range from `low` to `high` contains whole numbers only."""
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Choice, ...] = ()
    """The values to choose from, instead of a range."""
    times_width: bool = False
    """Whether the drawn number is multiplied by model.d_model."""
    width: int = 0
    """Width of the model, if the choices were restricted to what fits it; else 0."""

    @property
    def name(self) -> str:
        """Name of the parameter in the study."""
        if self.times_width:
            return f"{self.setting}/d_model"
        return f"{self.setting} of {self.width}" if self.width else self.setting

    def draw(self, trial: Suggest) -> Choice:
        """Draw a value; a trial that already has one keeps it."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return trial.suggest_int(self.name, low, high, step=step, log=self.log)
        value = trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)
        return float(f"{value:.6g}")  # 3 times 0.1 is 0.30000000000000004


@dataclass(frozen=True)
class Space:
    """Everything that a study may change."""

    parameters: tuple[Parameter, ...]
    n_parameters: int = 0
    """Size of each model; the width is then the largest that does not exceed it. 0 leaves
    it free."""

    def draw(self, trial: Suggest, base: Table) -> Table:
        """Draw a value for each parameter.

        Args:
            trial: draws the values.
            base: the recipe that the values override.

        Returns:
            The settings that were drawn, as a table.

        Raises:
            UserError: nothing fits: no head count divides the width, or no width is small enough.
        """
        drawn: Table = {}
        widths: dict[str, float] = {}
        # Heads last, since their choices depend on the width.
        for parameter in sorted(self.parameters, key=lambda p: p.setting == N_HEADS):
            if parameter.setting == N_HEADS and not self.n_parameters:
                parameter = _with_fitting_heads(parameter, merge(base, drawn))
            value = parameter.draw(trial)
            if parameter.times_width:
                widths[parameter.setting] = float(value)
            else:
                drawn = merge(drawn, nested(parameter.setting, value))
        if self.n_parameters:
            return _fit(merge(base, drawn), drawn, widths, self.n_parameters)
        width = make_recipe(merge(base, drawn)).model.d_model
        return merge(drawn, _multiples(widths, width))


def default_space(optimizer: str) -> Table:
    """The space where none is given, for a kind of optimizer."""
    return MUON_SPACE if optimizer == "muon" else DEFAULT_SPACE


def parse_space(table: Table) -> Space:
    """Parse and check a space.

    Raises:
        UserError: an unknown setting, or an invalid range.
    """
    table = dict(table)
    n_parameters = table.pop("n_parameters", 0)
    if type(n_parameters) is not int or n_parameters < 0:
        raise UserError(f"n_parameters in the space must be a whole number, got {n_parameters!r}.")
    known = {setting.name: setting for setting in settings(Recipe)}
    parameters = []
    for name, given in _leaves(table):
        if name not in known:
            raise UserError(unknown_name("setting", name, known) + " It stands in the space.")
        parameters.append(_parse_parameter(name, given, known[name].annotation))
    if not parameters:
        raise UserError("The space is empty. Give at least one setting with its range.")
    if n_parameters and any(parameter.name == D_MODEL for parameter in parameters):
        raise UserError(
            "The space has both n_parameters, which decides the width, and model.d_model. "
            "Leave one of them out."
        )
    return Space(tuple(parameters), n_parameters)


def _parse_parameter(name: str, given: Any, annotation: Any) -> Parameter:
    if not isinstance(given, Mapping) or ("choices" in given) == ("low" in given):
        raise UserError(
            f"{name} in the space needs either low and high or choices, as in "
            f"{name} = {{ low = 1, high = 4 }}."
        )
    for key in given:
        if key not in RANGE_KEYS:
            raise UserError(
                unknown_name("key", f"{name}.{key}", [f"{name}.{k}" for k in RANGE_KEYS])
            )
    for key in ("log", "times_width"):
        if not isinstance(given.get(key, False), bool):
            raise UserError(f"{name}.{key} in the space must be true or false, got {given[key]!r}.")
    choices = given.get("choices", ())
    if not isinstance(choices, (list, tuple)):
        raise UserError(f"{name}.choices in the space must be a list, got {choices!r}.")
    times_width = given.get("times_width", False)
    values = [(name, value) for value in choices]
    if "choices" not in given:
        needed = ("low", "high", "step") if "step" in given else ("low", "high")
        values = [(f"{name}.{key}", given.get(key)) for key in needed]
    for key, value in values:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if (times_width or not choices) and not number:
            raise UserError(f"{key} in the space must be a number, got {value!r}.")
        if not isinstance(value, Choice):
            raise UserError(f"{key} in the space must be a single value, got {value!r}.")
        if not times_width:
            parse_value(str(value), annotation, key)
    if "choices" in given:
        if len(set(map(str, choices))) < max(2, len(choices)):
            raise UserError(f"{name} in the space has choices {list(choices)}; give two or more.")
        return Parameter(setting=name, whole=False, choices=(*choices,), times_width=times_width)
    low, high = given["low"], given["high"]
    log, step = given.get("log", False), given.get("step")
    if step is not None and not step > 0:
        raise UserError(f"{name}.step in the space must be above 0, got {step}.")
    if not low < high or (log and (low <= 0 or step is not None)):
        raise UserError(
            f"{name} in the space goes from {low} to {high}{' by its logarithm' * log}; low is "
            f"below high{', above 0 and without a step' * log}."
        )
    whole = all(isinstance(value, int) for value in (low, high, step or 1))
    return Parameter(
        setting=name, whole=whole, low=low, high=high, log=log, step=step, times_width=times_width
    )


def _leaves(table: Table, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of the tables that hold a range."""
    for name, value in table.items():
        if isinstance(value, Mapping) and not set(value) & set(RANGE_KEYS):
            yield from _leaves(dict(value), f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _with_fitting_heads(parameter: Parameter, table: Table) -> Parameter:
    """Restrict the choices to those that divide the width, under another name, since Optuna
    requires equal choices under equal names.
    """
    model = make_recipe(merge(table, {"model": {"n_heads": 1}})).model
    unit = 2 if model.positions == "rope" else 1  # rotary embedding works on pairs
    offered = parameter.choices or tuple(
        range(int(parameter.low), int(parameter.high) + 1, int(parameter.step or 1))
    )
    fitting = tuple(n for n in offered if model.d_model % (int(n) * unit) == 0)
    if not fitting:
        raise UserError(
            f"None of the head counts {list(offered)} divides the width {model.d_model}. Add 1 "
            f"to those of {N_HEADS} in the space, or take another width."
        )
    width = 0 if fitting == offered else model.d_model
    return replace(parameter, choices=fitting, width=width)


def _fit(table: Table, drawn: Table, widths: Mapping[str, float], n_parameters: int) -> Table:
    """`drawn` with the largest width whose model has at most `n_parameters`."""
    n_heads = table.get("model", {}).get("n_heads", ModelConfig.n_heads)
    unit = 2 * n_heads  # pairs, for rotary embedding
    found: Table = {}
    for width in range(unit, n_parameters, unit):
        sizes = merge({"model": {"d_model": width}}, _multiples(widths, width))
        model = make_recipe(merge(table, sizes)).model
        if model.n_parameters > n_parameters:
            break
        found = merge(drawn, sizes)
    if not found:
        raise UserError(
            f"No model of {table['model']['n_layers']} layers and {n_heads} heads is as small as "
            f"n_parameters = {n_parameters:,} in the space. Give more, or fewer layers and heads."
        )
    return found


def _multiples(widths: Mapping[str, float], width: int) -> Table:
    """Each factor times the width, rounded to a multiple of ROUND_TO."""
    values = (
        nested(name, max(ROUND_TO, round(factor * width / ROUND_TO) * ROUND_TO))
        for name, factor in widths.items()
    )
    return merge(*values)


def nested(name: str, value: Choice) -> Table:
    """A dotted name and its value as a table.

    >>> nested("model.n_layers", 2)
    {'model': {'n_layers': 2}}
    """
    *path, leaf = name.split(".")
    table: Table = {leaf: value}
    for part in reversed(path):
        table = {part: table}
    return table
