"""Build the site: Markdown into build/docs, HTML into build/site, then a look at every link."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

from scripts.docs.links import complaints
from scripts.docs.pages import ROOT, all_files, write_files

BUILD = ROOT / "build"


def build(folder: Path = BUILD) -> list[str]:
    """Build the site into `folder`/site, and return what is wrong with its links."""
    os.environ["NO_MKDOCS_2_WARNING"] = "1"  # an advertisement of what comes after MkDocs 1
    from mkdocs.commands.build import build as build_html
    from mkdocs.config import load_config

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    source, site = folder / "docs", folder / "site"
    shutil.rmtree(source, ignore_errors=True)
    write_files(all_files(), source)
    config = load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(source), site_dir=str(site))
    config.plugins.on_startup(command="build", dirty=False)
    build_html(config)
    config.plugins.on_shutdown()
    return complaints(site)


def main() -> None:
    wrong = build()
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    if wrong:
        sys.exit(1)
    print(f"open {BUILD / 'site' / 'index.html'}")


if __name__ == "__main__":
    main()
