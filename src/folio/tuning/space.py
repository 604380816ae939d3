"""What a study may change: settings of a recipe, each with its range. TOML in, values out.

A space is a recipe whose values are ranges:

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
"""Around the presets, by a factor of about ten in the rates."""

RANGE_KEYS = ("low", "high", "log", "step", "choices", "times_width")
D_MODEL, N_HEADS = "model.d_model", "model.n_heads"
ROUND_TO = 8
"""Widths inside the feed-forward layer are multiples of this, which matrix products like."""


class Suggest(Protocol):
    """Draws values; what Optuna calls a trial."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One setting and its range."""

    setting: str
    """Its dotted name in a recipe."""
    whole: bool
    """Whether a range from `low` to `high` means whole numbers."""
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Choice, ...] = ()
    """One of these, instead of a range."""
    times_width: bool = False
    """Whether the drawn number is multiplied by model.d_model."""
    width: int = 0
    """That of the model, where the choices are what is left of them for this one."""

    @property
    def name(self) -> str:
        """In the study."""
        if self.times_width:
            return f"{self.setting}/d_model"
        return f"{self.setting} of {self.width}" if self.width else self.setting

    def draw(self, trial: Suggest) -> Choice:
        """A value; of a trial that has one already, that one."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return trial.suggest_int(self.name, low, high, step=step, log=self.log)
        value = trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)
        return float(f"{value:.6g}")  # 3 times 0.1 is 0.30000000000000004


@dataclass(frozen=True)
class Space:
    """All that a study may change."""

    parameters: tuple[Parameter, ...]
    n_parameters: int = 0
    """Of each model; the width is then chosen to come as near as can be from below."""

    def draw(self, trial: Suggest, base: Table) -> Table:
        """Draw a value for each parameter.

        Args:
            trial: what draws.
            base: the recipe that the values are laid over.

        Returns:
            The settings that were drawn, as a table.

        Raises:
            UserError: nothing fits: no head count divides the width, or no width is small enough.
        """
        drawn: Table = {}
        widths: dict[str, float] = {}
        # Heads last, since they depend on the width.
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


def parse_space(table: Table) -> Space:
    """Check a space.

    Raises:
        UserError: an unknown setting, or a range that means nothing.
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
    times_width = bool(given.get("times_width", False))
    choices = tuple(given.get("choices", ()))
    for value in choices or (given["low"], given.get("high")):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if (times_width or not choices) and not number:
            raise UserError(f"{name} in the space must be a number, got {value!r}.")
        if not times_width:
            parse_value(str(value), annotation, name)
    if choices or "choices" in given:
        if len(set(map(str, choices))) < max(2, len(choices)):
            raise UserError(f"{name} in the space has choices {list(choices)}; give two or more.")
        return Parameter(setting=name, whole=False, choices=choices, times_width=times_width)
    low, high = given["low"], given["high"]
    log, step = bool(given.get("log", False)), given.get("step")
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
    """Dotted names with the tables that hold a range."""
    for name, value in table.items():
        if isinstance(value, Mapping) and not set(value) & set(RANGE_KEYS):
            yield from _leaves(dict(value), f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _with_fitting_heads(parameter: Parameter, table: Table) -> Parameter:
    """The choices that divide the width; under a name of their own, since Optuna wants the same
    choices under the same name.
    """
    model = make_recipe(merge(table, {"model": {"n_heads": 1}})).model
    unit = 2 if model.positions == "rope" else 1  # rotary positions turn pairs
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
    """`drawn` with the largest width whose model has at most so many parameters."""
    n_heads = table.get("model", {}).get("n_heads", ModelConfig.n_heads)
    unit = 2 * n_heads  # pairs, for rotary positions
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
    """Each factor times the width, rounded to what matrix products like."""
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
