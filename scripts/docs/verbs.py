"""The reference of the command line, from its parser."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from folio.cli.main import VERBS, make_app
from scripts.docs.markdown import fenced, plain, term

if TYPE_CHECKING:
    from cyclopts import App
    from cyclopts.argument import Argument

NUMBERS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "a switch"}


def commands() -> Iterator[tuple[str, App]]:
    """Each verb by name, and below one that has several, each of those."""
    app = make_app()
    for verb in VERBS:
        yield verb, app[verb]
        if app[verb].default_command is None:
            names = [name for name in app[verb] if not name.startswith("-")]
            yield from ((f"{verb} {name}", app[verb][name]) for name in names)


def arguments(command: App) -> list[Argument]:
    """What a command takes; none if it only has others below it."""
    if command.default_command is None:
        return []
    return list(command.assemble_argument_collection(parse_docstring=True))


def section() -> str:
    """Every verb with its arguments."""
    return "\n\n".join(_command(name, command) for name, command in commands())


def place(command: str, argument: Argument | None = None) -> str:
    """The anchor of a command, or of one of its arguments.

    >>> place("tokenizer train")
    'folio-tokenizer-train'
    """
    at = f"folio-{command.replace(' ', '-')}"
    return at if argument is None else f"{at}-{argument.name.lstrip('-').lower()}"


def _command(name: str, command: App) -> str:
    text = inspect.getdoc(command.default_command) or str(command.help)
    first, _, rest = text.partition("\nArgs:")[0].partition("\n")
    summary, colon, usage = first.partition(": folio ")
    level = "##" if " " not in name else "###"
    parts = [f"{level} folio {name} {{ #{place(name)} }}", plain(summary.rstrip(".")) + "."]
    if colon:
        parts.append(fenced(f"folio {usage}", "sh"))
    parts += [plain(paragraph) for paragraph in rest.strip().split("\n\n") if paragraph]
    parts += [_argument(name, argument) for argument in arguments(command)]
    return "\n\n".join(parts)


def _argument(name: str, argument: Argument) -> str:
    default = argument.field_info.default
    facts = [described(argument.hint)]
    if default not in (None, False, True, "", (), argument.field_info.empty):
        facts.append(f"default `{default}`")
    elif default is True:
        facts.append("on by default")
    meaning = plain(" ".join(str(argument.parameter.help or "").split()))
    positional = not argument.name.startswith("-")
    names = ", ".join(n for n in argument.names if not n.startswith(("--no-", "--empty-")))
    return term(
        f"[{argument.name}]" if positional else names,
        f"<small>{' · '.join(facts)}</small>",
        meaning,
        place(name, argument),
    )


def described(hint: Any) -> str:
    """The type of an argument in words.

    >>> described(int | None), described(Literal["a", "b"]), described(list[str])
    ('a whole number', '`a` or `b`', 'text, repeatable')
    """
    choices = [choice for choice in get_args(hint) if choice is not type(None)]
    origin = get_origin(hint)
    if origin is Literal:
        names = [f"`{choice}`" for choice in choices]
        return " or ".join([", ".join(names[:-1]), names[-1]] if names[:-1] else names)
    if origin in (list, tuple):
        return "text, repeatable"
    if choices:
        return described(choices[0])
    return NUMBERS.get(hint, "a path" if getattr(hint, "__name__", "") == "Path" else "text")
