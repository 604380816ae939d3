"""Shell completion: cyclopts writes the script, and this adds what its signatures do not tell.

Flags that are settings reach a verb as plain words (overrides.py), and RUN is any text to it. For a
shell, each setting becomes a flag with its choices, and RUN the names in runs/.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from importlib import import_module
from typing import Annotated, Any, Literal, get_origin, get_type_hints

from cyclopts import App, Parameter

from folio.cli import tokens, tune
from folio.cli.overrides import Words
from folio.config import settings
from folio.recipe.recipe import CHANGEABLE, Recipe

TABLES_OF = {"resume": CHANGEABLE, "tokens": tokens.TABLES}
"""Verb -> the tables whose settings it takes, where it refuses those of others."""
REFUSED_BY = {"tune": tune.DECIDED}
"""Verb -> the settings that it refuses among these."""


def completing(app: App, verbs: Iterable[tuple[str, str]]) -> App:
    """Give an app the verbs as a shell sees them, and the option that installs the script.

    Args:
        app: the command, without its verbs.
        verbs: name and module of each.
    """
    for verb, module in verbs:
        found = getattr(import_module(module), module.rpartition(".")[2])
        app.command(found if isinstance(found, App) else as_a_shell_sees(found), name=verb)
    app.register_install_completion_command()
    return app


def as_a_shell_sees(verb: Callable[..., None]) -> Callable[..., None]:
    """A function with the signature of a verb, in which RUN has names and settings are flags."""
    hints = get_type_hints(verb, include_extras=True)
    parameters, takes_settings = [], False
    for name, given in inspect.signature(verb).parameters.items():
        takes_settings |= given.kind is given.VAR_POSITIONAL and hints[name] == Words
        hint = Annotated[str, Parameter(completer=run_names)] if name == "run" else hints[name]
        parameters.append(given.replace(annotation=hint))
    if takes_settings:
        refused = {name.replace(".", "_") for name in REFUSED_BY.get(verb.__name__, ())}
        flags = setting_flags(TABLES_OF.get(verb.__name__))
        parameters += [flag for flag in flags if flag.name not in {*hints, *refused}]

    def complete(*words: Any, **flags: Any) -> None:
        raise AssertionError("a shell completes this verb, and calls the other")

    complete.__doc__ = verb.__doc__
    complete.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    complete.__annotations__ = {one.name: one.annotation for one in parameters}
    return complete


def setting_flags(tables: Collection[str] | None = None) -> Iterator[inspect.Parameter]:
    """Each setting of a recipe as a flag; of some tables alone, if these are named."""
    for setting in settings(Recipe):
        if tables is not None and setting.name.partition(".")[0] not in tables:
            continue
        flag = f"--{setting.name.replace('_', '-')}"
        kind: Any = str
        if setting.annotation is bool:
            kind = Literal["true", "false"]
        elif get_origin(setting.annotation) is Literal:
            kind = setting.annotation
        yield inspect.Parameter(
            setting.name.replace(".", "_"),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind, Parameter(flag, help=setting.explanation)],
        )


def run_names(context: Any) -> list[str]:
    """The runs that a command finds by name."""
    from folio.run.directory import list_runs

    return [run.name for run in list_runs()]
