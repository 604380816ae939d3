"""Write src/folio/tokenizers/bpe/unicode_classes.txt from the `regex` module's own Unicode tables.

    python scripts/make_unicode_classes.py

Run it when a new release of `regex` brings a new Unicode version; the table says which one it has.
"""

import importlib.metadata
import re
import sys
from itertools import groupby
from pathlib import Path

import regex

TABLE = Path(__file__).parents[1] / "src/folio/tokenizers/bpe/unicode_classes.txt"
CLASSES = {"letter": r"\p{L}", "number": r"\p{N}", "whitespace": r"\s", "symbol": r"[\p{P}\p{S}]"}


def ranges(pattern: str) -> list[str]:
    """All code points that match, as "first-last" in hexadecimal, or "only" for a range of one."""
    matches = regex.compile(pattern).match
    points = (point for point in range(sys.maxunicode + 1) if matches(chr(point)))
    runs = [list(run) for _, run in groupby(enumerate(points), key=lambda pair: pair[1] - pair[0])]
    spans = [(run[0][1], run[-1][1]) for run in runs]
    return [f"{first:X}-{last:X}" if last > first else f"{first:X}" for first, last in spans]


def main() -> None:
    """Write the table."""
    about = importlib.metadata.distribution("regex").read_text("METADATA")
    version = re.search(r"supports Unicode ([\d.]+\d)", str(about))
    assert version, "the description of `regex` no longer names its Unicode version"
    lines = [f"unicode {version[1]}", f"from regex {importlib.metadata.version('regex')}"]
    lines += [f"{name} {' '.join(ranges(pattern))}" for name, pattern in CLASSES.items()]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{TABLE}: {TABLE.stat().st_size} bytes, {lines[0]}, {lines[1]}")


if __name__ == "__main__":
    main()
