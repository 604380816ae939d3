"""A text that every machine with Python has: the sources of its standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def standard_library(n_bytes: int) -> dict[str, str]:
    """The .py files in the order of their names, the last one cut, `n_bytes` in all.

    Returns:
        Texts by their paths below the library's folder.
    """
    root = Path(sysconfig.get_path("stdlib"))
    texts: dict[str, str] = {}
    left = n_bytes
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if left <= 0 or "site-packages" in relative.parts:
            continue
        try:
            data = path.read_bytes()[:left]
            texts[relative.as_posix()] = data.decode("utf-8")
        except UnicodeDecodeError:
            continue  # a test of encodings, or cut inside a character
        left -= len(data)
    return texts
