"""A look at the finished site: every link leads somewhere, and nothing comes from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}
"""Elements that fetch what they name as soon as a page is opened."""


class Page(HTMLParser):
    """The anchors of a page, and what it links to or loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.unexplained: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif LOADS.get(tag) in found and found.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(found[LOADS[tag]])
        if tag == "img" and not found.get("alt"):
            self.unexplained.append(found.get("src", ""))


def complaints(site: Path) -> list[str]:
    """What is wrong with the links and pictures of a site, one line each."""
    return [line for path in sorted(site.rglob("*.html")) for line in _of_page(site, path)]


def _of_page(site: Path, path: Path) -> Iterator[str]:
    page, name = page_of(path), path.relative_to(site)
    yield from (f"{name}: a picture without words, {src}" for src in page.unexplained)
    for target in page.loads:
        if urlsplit(target).scheme not in ("", "data") or target.startswith("//"):
            yield f"{name} loads {target} from elsewhere"
    for target in [*page.links, *page.loads]:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc or path.name == "404.html":
            continue
        to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not to.is_file():
            yield f"{name} links to {target}, which is not there"
        elif parts.fragment and to.suffix == ".html":
            anchor = unquote(parts.fragment)
            if anchor not in page_of(to).anchors and not re.match(r"__|:~:", anchor):
                yield f"{name} links to {target}, where there is no such place"


@cache
def page_of(path: Path) -> Page:
    """A page, read once."""
    return Page(path)
