"""folio write: a page to write on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from folio.cli.complaints import say_complaints
from folio.cli.guides import say_next
from folio.console import say, show


def write(
    run: str | None = None,
    *,
    out: Path | None = None,
    open: bool = True,
    checkpoint: str = "best",
) -> None:
    """Write with a model, in a browser: folio write [RUN]

    One offline file with the model in it: gray text that goes on with yours, what else could
    stand at each place, several continuations side by side, colors for what the model did not
    expect, and what stands in the training text. Nothing leaves your machine. A model that is too
    large for a page can be served: folio serve.

    Args:
        run: A name or a path; by default the newest run.
        out: The file to write; by default in export/ of the run.
        open: Open it in the browser.
        checkpoint: best, last or a step.
    """
    from folio.run.directory import find_run

    found = find_run(run)

    from folio.export.targets import export_run
    from folio.run.opening import open_run

    opened = open_run(found, checkpoint)
    say_complaints(opened)
    path, exported, _ = export_run(opened, "html", out=out)
    for note in exported.notes:
        say(note)
    show(str(path))
    if open and not _open(path):
        say("no browser was found here: open the file in one")
    say_next("write", RUN=found.word)


def _open(path: Path) -> bool:
    """Whether a browser with windows took it; one in this terminal would take the terminal."""
    import webbrowser

    windows = sys.platform in ("win32", "darwin")
    if not (windows or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    return webbrowser.open(path.resolve().as_uri())
