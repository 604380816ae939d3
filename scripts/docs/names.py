"""The reference of the public Python names, from their docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import cached_property
from typing import Any

import folio
from folio.config import settings
from scripts.docs.markdown import docstring, fenced


def section() -> str:
    """Every name of `folio.__all__`, functions first."""
    ordered = sorted(folio.__all__, key=lambda name: (inspect.isclass(getattr(folio, name)), name))
    return "\n\n".join(_name(name, getattr(folio, name)) for name in ordered)


def members(owner: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of a class of Folio, also those it inherits from one."""
    for name in sorted(dir(owner)):
        value = inspect.getattr_static(owner, name)
        ours = any(
            name in vars(base) and base.__module__.startswith("folio") for base in owner.__mro__
        )
        kinds = (property, cached_property, classmethod, staticmethod)
        if name[0] != "_" and ours and (inspect.isfunction(value) or isinstance(value, kinds)):
            yield name, value


def _name(name: str, value: Any) -> str:
    parts = [f"## folio.{name} {{ #folio.{name} }}"]
    if not inspect.isclass(value):
        return "\n\n".join([*parts, *_function(f"folio.{name}", value)])
    parts.append(docstring(inspect.getdoc(value) or ""))
    if is_dataclass(value) and name != "Recipe":
        parts += [_fields(value)]
    if name == "Recipe":
        parts.append("Its fields are the [settings](settings.md).")
    for member, found in members(value):
        parts.append(f"### {name}.{member} {{ #folio.{name}.{member} }}")
        if isinstance(found, (property, cached_property)):
            parts.append(docstring(inspect.getdoc(found) or ""))
        else:
            parts += _function(f"{name}.{member}", getattr(value, member))
    return "\n\n".join(part for part in parts if part)


def _function(name: str, function: Any) -> list[str]:
    signature = inspect.signature(function)
    arguments = list(_arguments(p for p in signature.parameters.values() if p.name != "self"))
    shown = f"{name}({', '.join(arguments)}) -> {signature.return_annotation}"
    if len(shown) > 76:
        lines = "".join(f"    {argument},\n" for argument in arguments)
        shown = f"{name}(\n{lines}) -> {signature.return_annotation}"
    return [fenced(shown, "python"), docstring(inspect.getdoc(function) or "")]


def _arguments(parameters: Iterable[inspect.Parameter]) -> Iterator[str]:
    """The parameters as they are written, with a star before those that must be named."""
    starred = False
    for p in parameters:
        stars = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        if p.kind is p.KEYWORD_ONLY and not starred:
            yield "*"
        starred = starred or p.kind in (p.VAR_POSITIONAL, p.KEYWORD_ONLY)
        default = "" if p.default is p.empty else f" = {p.default!r}"
        yield f"{stars}{p.name}: {p.annotation}{default}"


def _fields(owner: type) -> str:
    """The fields of a dataclass with what stands below them."""
    explained = {s.name: s.explanation for s in settings(owner)}
    return "\n".join(
        f"- `{field.name}`: {' '.join(explained.get(field.name, '').split())}".rstrip(": ")
        for field in fields(owner)
        if not field.name.startswith("_")
    )
