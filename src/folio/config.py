"""Settings: TOML and dotted flags -> frozen dataclasses, and back.

This file knows settings by name only in ELSEWHERE, for the messages. A config is a frozen
keyword-only dataclass whose fields are bool, int, float, str, a `Literal` of strings, a tuple of
strings, another config, or one of these or None.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import math
import textwrap
import tomllib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from folio.errors import UserError
from folio.records import read_text, with_path

C = TypeVar("C")

LARGEST = 2**62
"""The largest whole number that a setting may be: larger ones do not fit into arrays and files."""

Table = dict[str, Any]
"""A TOML table: names mapped to values or to further tables."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One leaf of a config, as `folio train --settings` shows it."""

    name: str
    """Dotted name, such as `model.n_layers`."""
    annotation: Any
    explanation: str


# ---- from tables to configs ------------------------------------------------------------


def from_table(config_class: type[C], table: Mapping[str, Any], prefix: str = "") -> C:
    """Build a config from a table, checking every name and type.

    Raises:
        UserError: an unknown name (with the nearest known one) or a wrong type.
    """
    hints = _hints(config_class)
    values: Table = {}
    for name, value in table.items():
        if name not in hints:
            known = [prefix + other for other in hints]
            raise UserError(unknown_name("setting", prefix + name, known))
        values[name] = _convert(value, hints[name], prefix + name)
    return config_class(**values)


def _convert(value: Any, annotation: Any, name: str) -> Any:
    choices = _choices(annotation)
    for choice in choices:
        origin = get_origin(choice)
        if choice is type(None) and value is None:
            return None
        if dataclasses.is_dataclass(choice) and isinstance(value, Mapping):
            return from_table(choice, value, prefix=f"{name}.")  # type: ignore[arg-type]
        if choice is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return _finite(value, name)
        if choice is int and type(value) is int:
            return _whole(value, name)
        if choice in (bool, str) and type(value) is choice:
            return value
        if origin is tuple and isinstance(value, (list, tuple)):
            items = tuple(value)
            if all(isinstance(item, str) for item in items):
                return items
        if origin is Literal and isinstance(value, str):
            options = get_args(choice)
            if value in options:
                return value
            if len(choices) == 1:
                raise UserError(unknown_choice(name, value, options))
    raise UserError(f"{name} must be {describe_type(annotation)}, got {value!r}.")


def parse_value(text: str, annotation: Any, name: str) -> Any:
    """Parse the value of a flag; raises UserError if it does not fit the type.

    >>> parse_value("3e-4", float, "optimizer.learning_rate")
    0.0003
    >>> parse_value("none", int | None, "training.max_steps") is None
    True
    """
    for choice in _choices(annotation):
        try:
            if choice is type(None) and text.lower() == "none":
                return None
            if choice is bool and text.lower() in ("true", "false"):
                return text.lower() == "true"
            if choice is int:
                return _whole(int(text.replace("_", "")), name)
            if choice is float:
                return _finite(text, name)
        except UserError:
            raise
        except ValueError:
            continue
        if get_origin(choice) is tuple:
            return tuple(part for part in text.split(",") if part)
        if choice is str or get_origin(choice) is Literal:
            return _convert(text, choice, name)
    raise UserError(f"{name} must be {describe_type(annotation)}, got '{text}'.")


def split_names(given: str | Iterable[str]) -> list[str]:
    """Names as one text with commas, or as several.

    >>> split_names(["a,b", "c"])
    ['a', 'b', 'c']
    """
    words = [given] if isinstance(given, str) else given
    return [name for word in words for name in word.split(",") if name]


def _whole(value: int, name: str) -> int:
    if abs(value) > LARGEST:
        raise UserError(f"{name} must be at most {LARGEST:,} on either side of 0, got more.")
    return value


def _finite(given: float | str, name: str) -> float:
    try:
        value = float(given)
    except OverflowError:  # a whole number with hundreds of digits
        value = math.inf
    if not math.isfinite(value):
        raise UserError(f"{name} must be a finite number, got {value}.")
    return value


# ---- layers of tables ------------------------------------------------------------------


def read_toml(path: Path) -> Table:
    """Read a TOML file; a syntax error names file, line and column."""
    try:
        return with_path(tomllib.loads(read_text(path)), path)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # of syntax, UTF-8, thousands of digits
        raise UserError(f"{path} is not valid TOML: {error}.") from None


def to_table(config: Any) -> Table:
    """The config as a TOML table with every field, except those that are None."""
    table: Table = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            table[field.name] = to_table(value)
        elif value is not None:
            table[field.name] = list(value) if isinstance(value, tuple) else value
    return table


def flat(config: Any) -> dict[str, bool | int | float | str]:
    """The settings of a config by dotted name; a list is its items with commas, none is empty."""
    found = dict[str, bool | int | float | str]()
    for setting in settings(type(config)):
        value = attrgetter(setting.name)(config)
        is_plain = isinstance(value, (bool, int, float, str))
        found[setting.name] = value if is_plain else ", ".join(value or ())
    return found


def dotted(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The dotted names of what stands in a table and in those inside of it, with the values.

    >>> list(dotted({"seed": 1, "model": {"n_layers": 2}}))
    [('seed', 1), ('model.n_layers', 2)]
    """
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", x) for inner, x in dotted(value))
        else:
            yield name, list(value) if isinstance(value, tuple) else value


def to_toml(config: Any) -> str:
    """The config as the text of a TOML file."""
    import tomli_w

    return tomli_w.dumps(to_table(config))


def merge(*layers: Mapping[str, Any]) -> Table:
    """Lay tables over each other; later layers win, sub-tables merge.

    >>> merge({"model": {"n_layers": 4, "bias": True}}, {"model": {"n_layers": 6}})
    {'model': {'n_layers': 6, 'bias': True}}
    """
    merged: Table = {}
    for layer in layers:
        for name, value in layer.items():
            below = merged.get(name)
            if isinstance(below, dict) and isinstance(value, Mapping):
                value = merge(below, value)
            merged[name] = value
    return merged


def overrides_table(config_class: type, overrides: Iterable[tuple[str, str]]) -> Table:
    """Turn flags such as ("model.n-layers", "6") into a table for `config_class`.

    Raises:
        UserError: an unknown name (with the nearest known one) or a value of the wrong type.
    """
    known = {setting.name: setting for setting in settings(config_class)}
    table: Table = {}
    for flag, text in overrides:
        name = flag.replace("-", "_")
        if name not in known:
            raise UserError(
                unknown_name("setting", name, known) + " folio train --settings lists all."
            )
        *path, leaf = name.split(".")
        below = table
        for part in path:
            below = below.setdefault(part, {})
        below[leaf] = parse_value(text, known[name].annotation, name)
    return table


# ---- inspecting a config class ---------------------------------------------------------


def settings(config_class: type, prefix: str = "") -> Iterator[Setting]:
    """Every leaf of a config class, in the order of its declaration."""
    hints, explanations = _hints(config_class), _explanations(config_class)
    for field in dataclasses.fields(config_class):
        annotation = hints[field.name]
        if dataclasses.is_dataclass(annotation):
            yield from settings(annotation, f"{prefix}{field.name}.")  # type: ignore[arg-type]
            continue
        yield Setting(prefix + field.name, annotation, explanations.get(field.name, ""))


def describe_type(annotation: Any) -> str:
    """The type of a setting, in words for a user.

    >>> describe_type(int | None)
    'a whole number or none'
    """
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    parts = []
    for choice in _choices(annotation):
        if choice is type(None):
            parts.append("none")
        elif get_origin(choice) is Literal:
            parts.append("one of " + ", ".join(get_args(choice)))
        elif get_origin(choice) is tuple:
            parts.append("a list of texts")
        elif dataclasses.is_dataclass(choice):
            parts.append("a table")
        else:
            parts.append(words[choice])
    return " or ".join(parts)


ELSEWHERE = {
    "block_size": "model.context_length",
    "seq_len": "model.context_length",
    "max_seq_length": "model.context_length",
    "n_layer": "model.n_layers",
    "num_hidden_layers": "model.n_layers",
    "n_head": "model.n_heads",
    "num_attention_heads": "model.n_heads",
    "n_embd": "model.d_model",
    "hidden_size": "model.d_model",
    "dropout": "model.residual_dropout",
    "lr": "optimizer.learning_rate",
    "grad_clip": "optimizer.gradient_clip",
    "max_grad_norm": "optimizer.gradient_clip",
    "max_iters": "training.max_steps",
    "iters": "training.max_steps",
    "steps": "training.max_steps",
    "epochs": "training.max_epochs",
    "num_train_epochs": "training.max_epochs",
    "per_device_train_batch_size": "training.batch_size",
    "eval_interval": "training.evaluation_interval",
    "eval_steps": "training.evaluation_interval",
    "warmup_ratio": "schedule.warmup_fraction",
    "dtype": "device.precision",
}
"""What other programs (nanoGPT, transformers, mlx-lm) call a setting -> its name here."""


def unknown_name(noun: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown name, with the nearest known one."""
    nearest = _nearest(name, known)
    hint = f" Did you mean '{nearest}'?" if nearest else ""
    return f"Unknown {noun} '{name}'.{hint}"


def unknown_choice(name: str, value: str, options: Iterable[str]) -> str:
    """The message for an invalid choice, with the nearest valid one.

    >>> unknown_choice("model.bias", "flase", ["true", "false"])
    "model.bias must be one of true, false, got 'flase'. Did you mean 'false'?"
    """
    nearest = _nearest(value, options)
    hint = f" Did you mean '{nearest}'?" if nearest else ""
    return f"{name} must be one of {', '.join(options)}, got '{value}'.{hint}"


def require(
    config: object, table: str, what: str, holds: Callable[[Any], bool], *names: str
) -> None:
    """Raise an error for the first field of a config that is invalid.

    Args:
        config: the dataclass.
        table: the table in the recipe, for the message.
        what: what the fields must be, in words.
        holds: tells whether a value is valid.
        names: the fields to check.

    Raises:
        UserError: a field is invalid.
    """
    for name in names:
        if not holds(value := getattr(config, name)):
            raise UserError(f"{table}.{name} must be {what}, got {value}.")


def _nearest(name: str, known: Iterable[str]) -> str | None:
    known = list(known)
    if (meant := ELSEWHERE.get(name.replace("-", "_"))) in known:
        return meant
    # A bare `learning-rate` means the field of that name, wherever it lives.
    for candidate in known:
        if candidate.rpartition(".")[2] == name:
            return candidate
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


@cache
def _hints(config_class: type) -> dict[str, Any]:
    return get_type_hints(config_class)


@cache
def _explanations(config_class: type) -> dict[str, str]:
    """The string literal below each field, which Python itself does not keep."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(config_class)))
    body = tree.body[0].body  # type: ignore[attr-defined]
    found: dict[str, str] = {}
    for field, below in pairwise(body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                found[name] = inspect.cleandoc(text)
    return found
