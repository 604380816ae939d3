"""The help page of a verb: usage, purpose, examples, flags in groups, settings, what comes next."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby, takewhile
from typing import Any

from cyclopts.help import HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions

from folio.cli.guides import GUIDES, Guide
from folio.config import settings
from folio.console import show

MOST_COLUMNS = 100
LABEL_COLUMNS = 26
"""Flags longer than this have their description on the next line."""

VERB = re.compile("[a-z]+")
NO_GUIDE = Guide(examples={}, next=("", ""))


class HelpPage:
    """Lays out one page; cyclopts calls its methods from top to bottom."""

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        self.width = min(console.width, MOST_COLUMNS)
        self.usage = str(usage).strip().removeprefix("Usage: ")
        verb = " ".join(takewhile(VERB.fullmatch, self.usage.split()[1:]))
        self.guide = GUIDES.get(verb, NO_GUIDE)

    def render_description(
        self, console: Console, options: ConsoleOptions, description: Any
    ) -> None:
        """Show usage, purpose and examples; a docstring's first line says how a verb is called."""
        first, _, rest = plain(description).partition("\n")
        summary, colon, called = first.partition(": folio ")
        show(f"Usage: {'folio ' + called if colon else self.usage}\n")
        show("\n\n".join([f"{summary.rstrip('.')}.", *self._paragraphs(rest)]) + "\n")
        if self.guide.examples:
            show("Examples:")
            for command, what in self.guide.examples.items():
                show(f"  {command}\n      {what}")
            show()

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Show commands, or all flags, which main.py puts into one panel; and what comes next."""
        if panel.format == "command":
            names = [(entry.names[0], plain(entry.description)) for entry in panel.entries]
            rows = [row for row in names if not row[0].startswith("-")]  # --help and --version
            if not rows:
                return
            show(f"Commands:\n{self._columns(rows)}\n")
        for title, entries in grouped(panel.entries, self.guide.groups, str(panel.title)):
            if panel.format == "parameter":
                show(f"{title}:\n{self._columns((label(e), words(e)) for e in entries)}\n")
        if self.guide.has_settings:
            show("Settings; folio train --settings shows their values and what they do:")
            show(f"{self._columns(setting_names())}\n")
        if self.guide.examples:
            show(self.guide.last_line())

    def _paragraphs(self, text: str) -> list[str]:
        return [
            textwrap.fill(p, self.width, break_on_hyphens=False)
            for p in text.strip().split("\n\n")
            if p
        ]

    def _columns(self, rows: Iterable[tuple[str, str]]) -> str:
        """Two columns, the second one folded; a long first one stands on a line of its own."""
        rows = list(rows)
        left = min(max((len(name) for name, _ in rows), default=0), LABEL_COLUMNS) + 4
        lines = []
        for name, text in rows:
            folded = textwrap.wrap(text, self.width - left, break_on_hyphens=False) or [""]
            if len(name) + 4 > left:
                lines.append(f"  {name}")
            else:
                lines.append(f"  {name:{left - 2}}{folded.pop(0)}")
            lines += [" " * left + line for line in folded]
        return "\n".join(line.rstrip() for line in lines)


def plain(text: Any) -> str:
    """The text of a description, which cyclopts wraps into a renderable."""
    return str(getattr(text, "primary_renderable", text) or "").strip()


def label(entry: HelpEntry) -> str:
    """How a flag is written: `--minutes FLOAT`, `--json`, `--no-stop`."""
    if entry.positional_label:
        return entry.positional_label
    turned_off = entry.type is bool and entry.default == "True"
    names = " ".join(entry.negative_names if turned_off else entry.positive_names)
    return f"{names} {entry.metavar}" if entry.metavar else names


def words(entry: HelpEntry) -> str:
    """What a flag does, and its default where that says anything."""
    text = plain(entry.description)
    if entry.type is bool and entry.default == "True":
        return f"Do not {text[:1].lower()}{text[1:]}"
    return text + (f" [{entry.default}]" if entry.default not in (None, "", '""', "False") else "")


def grouped(
    entries: Sequence[HelpEntry], groups: dict[str, str], title: str
) -> list[tuple[str, list[HelpEntry]]]:
    """Flags by group, in the order of the groups; those in none come last, under a title."""
    of = {name: group for group, names in groups.items() for name in names.split()}
    found: dict[str, list[HelpEntry]] = {group: [] for group in (*groups, title)}
    for entry in entries:
        found[of.get(name_of(entry), title)].append(entry)
    return [(group, members) for group, members in found.items() if members]


def name_of(entry: HelpEntry) -> str:
    """The name of a flag or of a positional argument, as a guide writes it."""
    names = entry.positive_names or (str(entry.positional_label).lower(),)
    return names[0].removeprefix("--")


def setting_names() -> list[tuple[str, str]]:
    """The tables of a recipe and the settings in them, as flags."""
    from folio.recipe.recipe import Recipe

    rows = []
    paths = [s.name.replace("_", "-").rpartition(".") for s in settings(Recipe)]
    paths.sort(key=lambda path: path[0])
    for table, members in groupby(paths, lambda path: path[0]):
        leaves = [leaf for _, _, leaf in members]
        if table:
            rows.append((f"--{table}.", " ".join(leaves)))
        else:
            rows.append((" ".join(f"--{leaf}" for leaf in leaves), ""))
    return rows
