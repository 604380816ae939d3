"""Another program that keeps a core busy, as on a machine that others use, too."""

from __future__ import annotations

import subprocess
import sys

CODE = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
"""Ends with whoever started it."""


def keep_core_busy() -> subprocess.Popen[bytes]:
    """Start a program that keeps one core busy until it is killed or its parent ends."""
    return subprocess.Popen([sys.executable, "-c", CODE])
