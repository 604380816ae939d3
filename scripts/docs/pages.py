"""Which pages the site has, and where a link of a Markdown file leads on it.

A file of docs/ keeps its place. `<!-- made: NAME -->` in one of them stands for what is made from
the code. Any other file of the project that a page links to becomes a page that shows it, so a link
leads to the same file here as on the disk, without a network.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from scripts.docs import errors, names, run_files, settings, verbs
from scripts.docs.markdown import fenced, outside_code

ROOT = Path(__file__).parents[2]
PROJECT = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
}
"""Pages that lie beside docs/. The home page says what README says, to another reader."""

MADE: dict[str, Callable[[], str]] = {
    "verbs": verbs.section,
    "settings": settings.section,
    "names": names.section,
    "run files": run_files.section,
    "errors": errors.section,
}
MARK = re.compile(r"^<!-- made: ([\w ]+) -->$", re.MULTILINE)
RANKS = {"experiments.md": 0.1, "project/changelog.md": 0.1, "project/architecture.md": 0.3}
LINK = re.compile(r"(\]\(|(?:href|src)=\")([^)\"\s]+)(?=[)\"])")

LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".md": "markdown", ".js": "js"}

Files = dict[PurePosixPath, str | Path]
"""Where a file goes below docs -> its text, or the file to copy."""


class BrokenLinkError(Exception):
    """A page links to a file that is not there."""


def all_files() -> Files:
    """Everything that MkDocs is given."""
    files: Files = {}
    linked: set[Path] = set()
    for path in sources():
        place = address(path)
        if path.suffix == ".md":
            text = MARK.sub(lambda found: MADE[found[1]](), path.read_text(encoding="utf-8"))
            files[place] = ranked(place, relinked(text, path, linked))
        else:
            files[place] = path
    for path in sorted(linked):
        if address(path) not in files:
            files[address(path)] = shown(path)
    return files


def write_files(files: Files, folder: Path) -> None:
    """Write or copy them below a folder."""
    for place, content in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.write_bytes(content.read_bytes())
        else:
            path.write_text(content, encoding="utf-8")


def sources() -> Iterator[Path]:
    """The files that a person wrote, or a script that ran before."""
    yield from (p for p in sorted((ROOT / "docs").rglob("*")) if p.is_file())
    yield from (ROOT / name for name in PROJECT if name != "README.md")


def address(path: Path) -> PurePosixPath:
    """Where a file of the project is found on the site.

    >>> address(ROOT / "docs" / "ladder.md"), address(ROOT / "src" / "folio" / "jit.py")
    (PurePosixPath('ladder.md'), PurePosixPath('source/src/folio/jit.py.md'))
    """
    inside = PurePosixPath(path.relative_to(ROOT).as_posix())
    if str(inside) in PROJECT:
        return PurePosixPath(PROJECT[str(inside)])
    if inside.parts[0] == "docs":
        return inside.relative_to("docs")
    return PurePosixPath("source") / f"{inside}.md"


def ranked(place: PurePosixPath, text: str) -> str:
    """The text with its rank in the search: a reader looks for how to do a thing, and what was
    measured or changed long ago has all the words too.
    """
    boost = RANKS.get(str(place))
    return text if boost is None else f"---\nsearch:\n  boost: {boost}\n---\n\n{text}"


def relinked(text: str, page: Path, linked: set[Path]) -> str:
    """The text with links that hold on the site.

    Args:
        text: Markdown whose links are relative to its file.
        page: that file.
        linked: takes the files that it links to.

    Raises:
        BrokenLinkError: there is no such file.
    """

    def on_the_site(found: re.Match[str]) -> str:
        target, _, anchor = found[2].partition("#")
        if not target or ":" in target:
            return found[0]
        path = Path(os.path.normpath(page.parent / target))
        if not path.is_file():
            raise BrokenLinkError(f"{page.relative_to(ROOT)} links to {target}, which is no file.")
        linked.add(path)
        place = os.path.relpath(address(path), address(page).parent)
        return found[1] + Path(place).as_posix() + (f"#{anchor}" if anchor else "")

    return outside_code(text, lambda part: LINK.sub(on_the_site, part))


def shown(path: Path) -> str:
    """A page that shows a file."""
    inside = path.relative_to(ROOT).as_posix()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return f"`{inside}`\n\n{notebook(text)}\n"
    body = fenced(text, LANGUAGES.get(path.suffix, "text"))
    return f"---\nsearch:\n  exclude: true\n---\n# {inside}\n\n{body}\n"


def notebook(text: str) -> str:
    """The cells of a notebook as Markdown.

    >>> print(notebook('{"cells": [{"cell_type": "code", "source": ["1 + ", "1"]}]}'))
    ```python
    1 + 1
    ```
    """
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(
        fenced(source, "python") if kind == "code" else source for kind, source in cells
    )
