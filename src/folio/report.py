"""HTML pages: one look for every file, and the pieces that it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from folio.console import are_numbers

COLORS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#db2777", "#0891b2", "#65a30d", "#4b5563")
"""The colors of pages and pictures."""
INK, FAINT = "#1f2937", "#9ca3af"


POLICY = {
    "default-src": "'none'",
    "img-src": "data:",
    "style-src": "'unsafe-inline'",
    "script-src": "'unsafe-inline'",
}
"""The content security policy of a page, which needs no other file."""


def html_page(title: str, body: str, *, allowed: Mapping[str, str] | None = None) -> str:
    """Build an HTML file that loads nothing else; light or dark as the browser prefers.

    Args:
        title: plain text; it is also the heading.
        body: HTML: `html_table`, `html_pieces`, `<h2>`, `<p>`, `<figure>` with an inline SVG ...
            Text from a user must have gone through `html.escape`.
        allowed: what the page may do beyond POLICY, by directive.
    """
    policy = dict(POLICY)
    for directive, more in (allowed or {}).items():
        policy[directive] = f"{policy.get(directive, '')} {more}".strip()
    rules = "; ".join(f"{directive} {value}" for directive, value in policy.items())
    *bright, _ = COLORS  # the last color is gray
    tints = (
        f".pieces span:nth-child({len(bright)}n + {place}) {{"
        f" background: color-mix(in srgb, {color} var(--tint), transparent) }}"
        for place, color in enumerate(bright, 1)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{rules}">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>{_STYLE}{chr(10).join(tints)}\n</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def html_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], marked: int | None = None
) -> str:
    """Build a table of plain text; columns of numbers are aligned to the right. Arrow keys scroll
    one that is wider than the page.

    Args:
        header: names of the columns.
        rows: one text for each column.
        marked: index of the row to highlight.

    >>> html_table(["a"], [["<b"]])  # doctest: +ELLIPSIS
    '<div class="wide" tabindex="0"><table>\\n<tr><th>a</th></tr>\\n<tr><td>&lt;b</td></tr>\\n...'
    """
    numeric = [are_numbers(column) for column in zip(*rows)] or [False] * len(header)

    def line(tag: str, cells: Sequence[str], attribute: str = "") -> str:
        opening = (f'<{tag} class="number">' if right else f"<{tag}>" for right in numeric)
        row = "".join(f"{o}{escape(cell)}</{tag}>" for o, cell in zip(opening, cells))
        return f"<tr{attribute}>{row}</tr>"

    lines = [line("th", header)]
    for number, row in enumerate(rows):
        lines.append(line("td", row, ' class="marked"' if number == marked else ""))
    body = "\n".join(lines)
    return f'<div class="wide" tabindex="0"><table>\n{body}\n</table></div>'


def html_bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """Build horizontal bars, the longest over the whole width.

    Args:
        rows: name, value, and the words after the bar.

    >>> html_bars([("a", 2, "two")])  # doctest: +ELLIPSIS
    '<div class="bars">\\n<span>a</span><i style="width: 100.0%"></i><span>two</span>\\n</div>'
    """
    most = max((value for _, value, _ in rows), default=0) or 1
    lines = (
        f'<span>{escape(name)}</span><i style="width: {100 * value / most:.1f}%"></i>'
        f"<span>{escape(words)}</span>"
        for name, value, words in rows
    )
    return '<div class="bars">\n' + "\n".join(lines) + "\n</div>"


def html_pieces(pieces: Iterable[tuple[str, str]]) -> str:
    """Build text in pieces, each with a color different from its neighbours.

    Args:
        pieces: plain text, and its tooltip.

    >>> html_pieces([("a<", "token 7")])
    '<p class="pieces"><span title="token 7">a&lt;</span></p>'
    """
    spans = (f'<span title="{escape(hint)}">{escape(text)}</span>' for text, hint in pieces)
    return f'<p class="pieces">{"".join(spans)}</p>'


_STYLE = f"""
:root {{ color-scheme: light dark; --ink: {INK}; --faint: #6b7280; --line: #e5e7eb;
  --ground: #ffffff; --raised: #f3f4f6; --accent: {COLORS[0]}; --tint: 24% }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e5e7eb; --faint: #9ca3af;
  --line: #374151; --ground: #111827; --raised: #1f2937; --accent: #60a5fa;
  --tint: 44% }} }}
body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 72rem; margin: 0 auto;
  padding: 2rem 1.25rem 4rem; color: var(--ink); background: var(--ground) }}
h1 {{ font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere }}
h2 {{ font-size: 1.2rem; margin: 2.5rem 0 .75rem }}
p {{ max-width: 48rem }}
a {{ color: var(--accent) }}
.faint {{ color: var(--faint) }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }}
th, td {{ padding: .35rem .75rem; text-align: left; border-bottom: 1px solid var(--line) }}
th, td:first-child, .number {{ white-space: nowrap }}
th {{ color: var(--faint); font-weight: 600 }}
.number {{ text-align: right }}
@media (max-width: 40rem) {{ th, td {{ padding: .35rem .4rem }}
  table {{ font-size: .85rem }} th, th.number, td:first-child {{ white-space: normal }} }}
.marked {{ background: var(--raised); box-shadow: inset 3px 0 var(--accent) }}
.pieces {{ max-width: none; font: .9rem/1.9 ui-monospace, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere }}
.pieces span {{ padding: .1em 0; border-radius: .2em }}
.bars {{ display: grid; grid-template-columns: max-content minmax(4rem, 28rem) max-content;
  gap: .3rem .75rem; align-items: center; font-size: .9rem; font-variant-numeric: tabular-nums }}
.bars i {{ display: block; height: .9rem; min-width: 1px; border-radius: .15rem;
  background: var(--accent) }}
figure {{ margin: 1.5rem 0 }}
figure svg, img {{ max-width: 100%; height: auto; background: #ffffff; border-radius: .4rem }}
"""
