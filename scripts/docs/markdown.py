"""Pieces of Markdown: code, anchors, and docstrings in Google's style."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

CODE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(`[^`\n]+`)")
FLAG = re.compile(
    # A flag, and its value where that is a number, in capitals, or a last word that is not prose.
    r"(?<![\w-])--[a-z][\w.\\-]*\w"
    r"(?: (?:[A-Z]+\b|\d+(?:\.\d+)?\b|(?!(?:and|does|needs|on|or|out|too)\b)[a-z][a-z0-9]*"
    r"(?=[,.;:)](?:\s|$)|$| --)))*"
)
HEADS = ("Args", "Returns", "Raises", "Yields", "Source", "Sources", "Shapes")


def fenced(text: str, language: str = "text") -> str:
    """A block of code, whatever it contains.

    >>> fenced("x = 1", "python")
    '```python\\nx = 1\\n```'
    """
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Change a text except within code, in blocks or in lines.

    >>> outside_code("a `a` a", str.upper)
    'A `a` A'
    """
    parts, end = [], 0
    for block in CODE.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def plain(text: str) -> str:
    """Prose of a docstring as Markdown: what looks like markup is text, code spans are kept.

    >>> plain("At most <n> of `a_b`, *not* [x]; --top-k, or --to hf")
    'At most &lt;n&gt; of `a_b`, \\\\*not\\\\* \\\\[x\\\\]; `--top-k`, or `--to hf`'
    """
    parts = SPAN.split(text)
    for i in range(0, len(parts), 2):
        escaped = re.sub(r"([*_\[\]|\\])", r"\\\1", html.escape(parts[i], quote=False))
        parts[i] = FLAG.sub(lambda m: f"`{m[0].replace(chr(92), '')}`", escaped)
    return "".join(parts)


def anchor(name: str) -> str:
    """A place that a link can lead to."""
    return f'<a id="{html.escape(name)}"></a>'


def term(name: str, facts: str, meaning: str, at: str) -> str:
    """An entry of a list: a name with an anchor, what is to know at a glance, and its meaning."""
    body = "\n".join(f"    {line}" if line else "" for line in meaning.splitlines())
    return f"{anchor(at)}`{name}`{f' {facts}' if facts else ''}\n:   {body.lstrip()}"


def docstring(text: str) -> str:
    """A docstring as Markdown: sections become lists, examples become code.

    >>> print(docstring("Count.\\n\\nArgs:\\n    n, m: how many,\\n        or more."))
    Count.
    <BLANKLINE>
    **Args**
    <BLANKLINE>
    - `n`, `m`: how many, or more.
    """
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        head, _, rest = paragraph.partition("\n")
        if paragraph.lstrip().startswith(">>>"):
            code = "\n".join(
                line.partition("# doctest:")[0].rstrip() for line in paragraph.split("\n")
            )
            parts.append(fenced(code, "pycon"))
        elif head.rstrip(":") in HEADS and head.endswith(":"):
            parts += [f"**{head[:-1]}**", _entries(rest)]
        elif re.match(r"(Source|Sources|Shapes): ", head):
            parts.append(plain(" ".join(paragraph.split())))
        else:
            parts.append(plain(paragraph))
    return "\n\n".join(parts)


def _entries(text: str) -> str:
    """`name: what it is` with its lines, or sentences."""
    lines = []
    for entry in re.split(r"\n(?=    \S)", text):
        name, colon, meaning = " ".join(entry.split()).partition(": ")
        if colon and re.fullmatch(r"\*{0,2}[\w.]+(, \*{0,2}[\w.]+)*", name):
            spans = ", ".join(f"`{one}`" for one in name.split(", "))
            lines.append(f"- {spans}: {plain(meaning)}")
        else:
            lines.append(f"- {plain(' '.join(entry.split()))}")
    return "\n".join(lines)
