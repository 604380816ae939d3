"""Draw docs/recall.svg: share of runs of characters that stand in the training text.

    python scripts/make_recall_picture.py LEARNED MEMORIZED

Both are runs with a recall.json, which `folio recall` writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from folio.recall.pictures import STANDALONE, Line, novelty_svg
from folio.run.directory import find_run
from folio.storage import atomic_write, read_json

OUT = Path(__file__).parents[1] / "docs" / "recall.svg"


def main(learned: str, memorized: str) -> None:
    """Write the picture."""
    good, bad = (read_json(find_run(name).recall_file)["copies"] for name in (learned, memorized))
    lines = [
        Line("a model that learned", "model", good["model"]["seen"], good["model"]["seen_errors"]),
        Line("its author", "author", good["author"]["seen"], good["author"]["seen_errors"]),
        Line("a model that copies", "new", bad["model"]["seen"], bad["model"]["seen_errors"]),
    ]
    with atomic_write(OUT) as file:
        file.write(novelty_svg(lines, STANDALONE) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
