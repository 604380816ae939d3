"""What a notebook needs: whether there is one, HTML that looks like its page, and interrupts."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from html import escape

from folio import curves
from folio.console import stop_requested
from folio.report import COLORS


def in_notebook() -> bool:
    """Whether this program runs in a kernel, as of Jupyter or Colab, that shows HTML.

    A terminal's IPython has no kernel.
    """
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def interrupts() -> AbstractContextManager[Callable[[], bool]]:
    """A function that returns True once the kernel was interrupted; a second interrupt raises
    KeyboardInterrupt. Outside the main thread, which alone is interrupted, it returns False.
    """
    return stop_requested([signal.SIGINT], again=signal.default_int_handler)


def html_cell(body: str) -> str:
    """HTML for the output of a cell, light or dark as the notebook is.

    Args:
        body: HTML as for `html_page`; text from a user must have gone through `html.escape`.
    """
    return f'<div class="folio"><style>{_STYLE}</style>\n{body}\n</div>'


def html_frame(page: str, title: str, height: str = "36rem") -> str:
    """A whole page in the output of a cell, closed off from the notebook.

    Args:
        page: the HTML file.
        title: what it is, for those who hear it.
        height: a length in CSS; the lower edge can be dragged.
    """
    return html_cell(
        f'<iframe srcdoc="{escape(page)}" title="{escape(title)}" sandbox="allow-scripts" '
        f'style="height: {height}"></iframe>'
    )


_LIGHT = (
    f"color-scheme: light; --ink: #1f2937; --faint: #5b6472; --line: #d5dae1; --ground: #ffffff; "
    f"--accent: {COLORS[0]}; {curves.variables(curves.LIGHT)}"
)
_DARK = (
    f"color-scheme: dark; --ink: #e5e7eb; --faint: #a3acba; --line: #414b5a; --ground: #111827; "
    f"--accent: #60a5fa; {curves.variables(curves.DARK)}"
)
_STYLE = f"""
.folio {{ {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ .folio {{ {_DARK} }} }}
[data-jp-theme-light="true"] .folio, .vscode-light .folio, [theme="light"] .folio {{ {_LIGHT} }}
[data-jp-theme-light="false"] .folio, .vscode-dark .folio, [theme="dark"] .folio {{ {_DARK} }}
.folio {{ color: var(--ink); font: 14px/1.5 system-ui, sans-serif; max-width: 46rem;
  font-variant-numeric: tabular-nums;
  & p {{ margin: .3rem 0 }} & .faint {{ color: var(--faint) }}
  & progress {{ width: 100%; height: .7rem; accent-color: var(--accent) }}
  & iframe {{ width: 100%; border: 1px solid var(--line); border-radius: .4rem; resize: vertical;
    background: var(--ground) }}
  & pre {{ white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9em; color: var(--ink);
    background: none; border-left: 3px solid var(--line); padding: .1rem .75rem }}
  & table {{ border-collapse: collapse; color: var(--ink) }}
  & .wide th, & .wide td {{ text-align: left; padding: .2rem .6rem .2rem 0; background: none;
    border-bottom: 1px solid var(--line) }}
  & .wide .number {{ text-align: right }}
}}
{curves.STYLE}"""
"""Jupyter and VS Code tell their theme on the page's body, Colab on its root."""
