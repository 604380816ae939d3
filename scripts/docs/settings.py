"""The reference of the settings, from the dataclasses that declare them."""

from __future__ import annotations

import inspect
from functools import cache
from itertools import groupby
from operator import attrgetter
from typing import Any

from folio.config import Setting, describe_type, settings
from folio.recipe.presets import SIZES
from folio.recipe.recipe import Recipe, make_recipe
from scripts.docs.markdown import plain

PRESETS = ("modern", "gpt2", "research")
TOP = "recipe"
"""The heading above the settings that are in no table."""


def section() -> str:
    """Every setting, table by table."""
    parts = []
    for table, group in groupby(settings(Recipe), lambda setting: _table(setting.name)):
        parts += [f"## {table} {{ #{table} }}", _about(table), *map(_entry, group)]
    return "\n\n".join(parts)


def _table(name: str) -> str:
    return name.partition(".")[0] if "." in name else TOP


def _about(table: str) -> str:
    """What the config of a table says of itself, its first paragraph."""
    config = Recipe if table == TOP else type(getattr(Recipe(), table))
    return plain(" ".join((inspect.getdoc(config) or "").split("\n\n")[0].split()))


def _entry(setting: Setting) -> str:
    facts = f"{describe_type(setting.annotation)} · default {default(setting.name)}"
    flag = "--" + setting.name.replace("_", "-")
    explanation = "\n\n".join(
        plain(" ".join(paragraph.split())) for paragraph in setting.explanation.split("\n\n")
    )
    return (
        f"### {setting.name.replace('_', chr(92) + '_')} {{ #{setting.name} }}\n\n"
        f"<small>`{flag}` · {facts}</small>\n\n{explanation}"
    )


def default(name: str) -> str:
    """The default of a setting; where preset or size decide it, what each of them takes."""
    usual = _value(name)
    parts = [_shown(usual)]
    for decides, choices in (("size", SIZES), ("preset", PRESETS)):
        values = {} if name == decides else {c: _value(name, **{decides: c}) for c in choices}
        others = [f"{key} {_shown(value)}" for key, value in values.items() if value != usual]
        parts += [f"({', '.join(others)})"] if others else []
    return " ".join(parts)


def _value(name: str, **table: str) -> Any:
    return attrgetter(name)(_recipe(**table))


@cache
def _recipe(**table: str) -> Recipe:
    return make_recipe(dict(table))


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`" if value else "empty"
    text = (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:.4g}"
        if isinstance(value, float)
        else str(value)
    )
    return f"`{text}`" if text else "empty"
