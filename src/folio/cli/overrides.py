"""Flags that are settings: `--model.n-layers 6`, for the verbs that take any of them."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from folio.config import Table, describe_type, overrides_table, settings
from folio.console import say
from folio.errors import UserError

if TYPE_CHECKING:
    from folio.recipe.recipe import Recipe

Text = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""What may begin with a hyphen, as a line of a dialogue does, or standard input."""
Words = Text
"""A positional argument, or a flag that the verb does not know itself."""
Repeatable = Annotated[list[str], Parameter(consume_multiple=False, negative=())]
"""A flag that takes one value and may be given again."""


def split_words(words: tuple[str, ...]) -> tuple[list[str], list[tuple[str, str]]]:
    """Positional arguments, and flags with their values.

    >>> split_words(("a.txt", "--model.n-layers", "6", "--seed=2", "-"))
    (['a.txt', '-'], [('model.n-layers', '6'), ('seed', '2')])
    """
    positional, flags = [], []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            positional.append(word)
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"--{name} needs a value behind it: --{name} VALUE.")
            value = rest.pop(0)
        flags.append((name, value))
    return positional, flags


def check_workers(n: int) -> None:
    """Check how many processes are asked for: far more than cores would only fill the memory.

    Raises:
        UserError: they are too few, or too many.
    """
    from folio.device import cores

    most = max(16, 4 * cores())
    if not 1 <= n <= most:
        must = "at least 1" if n < 1 else f"at most {most}"
        raise UserError(f"--workers must be {must} here, got {n}.")


def from_a_run(table: Table) -> Table:
    """Settings that begin with a run, where they name files of another program."""
    from folio.recipe.start import foreign_files

    name = table.get("start", {}).get("run")
    if not name or foreign_files(str(name)) is None:
        return table
    from folio.export.importing import with_run  # loads torch

    return with_run(table, say)


def settings_table(flags: list[tuple[str, str]]) -> Table:
    """The flags as a table of settings; an unknown one gets the nearest as an answer."""
    from folio.recipe.recipe import Recipe

    return overrides_table(Recipe, flags)


def describe_settings(recipe: Recipe) -> str:
    """Every setting with its value in a recipe and what it does, for `folio train --settings`."""
    lines = []
    for setting in settings(type(recipe)):
        value = attrgetter(setting.name)(recipe)
        shown = ",".join(value) if isinstance(value, tuple) else str(value)
        shown = shown.lower() if isinstance(value, bool) else shown
        lines.append(f"--{setting.name.replace('_', '-')} {shown}".rstrip())
        words = describe_type(setting.annotation)
        lines += [f"    {line}" for line in (*setting.explanation.splitlines(), f"({words})")]
    return "\n".join(lines)
