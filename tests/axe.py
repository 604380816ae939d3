"""What not everyone can see, read or reach on a page: axe looks for it, and beside it a script.

Source: https://github.com/dequelabs/axe-core/blob/develop/doc/API.md
"""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from tests.write.chromium import Page

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]

# Chromium says color(srgb 1 0 0 / 0.5) of what color-mix() makes, which this axe cannot read.
_COLORS = r"""
const real = window.getComputedStyle.bind(window);
const known = (value) => typeof value !== "string" ? value : value.replace(
  /color\(srgb ([\d.e-]+) ([\d.e-]+) ([\d.e-]+)(?: \/ ([\d.e-]+))?\)/g,
  (_, ...part) => `rgba(${part.slice(0, 3).map((one) => 255 * one)}, ${part[3] ?? 1})`);
window.getComputedStyle = (...given) => new Proxy(real(...given), { get: (style, name) =>
  typeof style[name] === "function" ? (...more) => known(style[name](...more)) : known(style[name])
});
"""

_SCROLLED = """
[...document.querySelectorAll("body *")].filter((part) =>
  /auto|scroll/.test(getComputedStyle(part).overflow) && part.checkVisibility() &&
  (part.scrollWidth > part.clientWidth || part.scrollHeight > part.clientHeight)
).map((part) => [part.cloneNode(false).outerHTML,
  [part, ...part.querySelectorAll("*")].some((one) => one.tabIndex >= 0)])
"""


def scrolled(page: Page) -> list[tuple[str, bool]]:
    """The parts that scroll by themselves, and whether the Tab key gets there in every browser.

    Chromium gives the focus to such a part even without a tabindex, Safari does not. The property
    tabIndex is -1 then in both.
    """
    return [(part, reached) for part, reached in page.run(_SCROLLED)]


def complaints(page: Page) -> list[str]:
    """What breaks WCAG 2.1 AA, as far as a program can tell: the rule, where, and why."""
    axe = pytest.importorskip("axe_core_python", reason="axe is in the extra dev")
    page.run(f"(() => {{ {_COLORS} }})()")
    page.run((files(axe) / "axe.min.js").read_text(encoding="utf-8") + ";0")
    found = page.run(f"axe.run({{ runOnly: {json.dumps(TAGS)} }})")
    told = [f"{rule['id']} could not run" for rule in found["incomplete"] if not rule["nodes"]]
    for rule in found["violations"]:
        for node in rule["nodes"]:
            checks = node["any"] + node["all"] + node["none"]
            why = "; ".join(check["message"] for check in checks)
            told.append(f"{rule['id']}: {node['target']} {why}")
    return told
