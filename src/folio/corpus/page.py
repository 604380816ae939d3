"""Reports on a corpus, as lines for a terminal and as an HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from folio.console import amount, table
from folio.report import html_bars, html_page, html_table

BAR = 24
"""Length of the longest bar in a terminal, in characters."""
SHOWN_SOURCES = 200


def report_lines(report: dict[str, Any]) -> Iterator[str]:
    """The lines that `folio corpus` prints."""
    yield "\n".join(_summary(report)) + "\n"
    for title, header, rows in _tables(report):
        yield title
        yield _indented(table(header, rows)) + "\n"
    for title, bars in _bars(report):
        yield title
        most = max(value for _, value, _ in bars) or 1
        rows = [
            [name, "█" * max(1, round(BAR * value / most)) if value else "", words]
            for name, value, words in bars
        ]
        width = max(len(row[0]) for row in rows)
        yield "\n".join(f"  {n:<{width}}  {b:<{BAR}}  {w}" for n, b, w in rows) + "\n"
    for step, examples in report["cleaning"]["examples"].items():
        yield f"cleaned, {step}: {report['cleaning']['changes'][step]:,} times"
        yield "\n".join(f"  {example}" for example in examples) + "\n"
    if report["warnings"]:
        yield "warnings\n" + "\n".join(f"  {line}" for line in report["warnings"]) + "\n"


def report_page(report: dict[str, Any]) -> str:
    """The same report as one HTML file."""
    parts = [f"<p>{escape(' '.join(_summary(report)))}</p>"]
    if report["warnings"]:
        items = "".join(f"<li>{escape(line)}</li>" for line in report["warnings"])
        parts.append(f"<h2>Warnings</h2>\n<ul>{items}</ul>")
    for title, header, rows in _tables(report):
        parts.append(f"<h2>{escape(title.capitalize())}</h2>\n{html_table(header, rows)}")
    for title, bars in _bars(report):
        parts.append(f"<h2>{escape(title.capitalize())}</h2>\n{html_bars(bars)}")
    if report["cleaning"]["examples"]:
        rows = [
            [step, f"{report['cleaning']['changes'][step]:,}", example]
            for step, examples in report["cleaning"]["examples"].items()
            for example in examples
        ]
        parts.append(
            "<h2>What cleaning did</h2>\n" + html_table(["step", "times", "example"], rows)
        )
    sources = report["sources"]
    rows = [
        [source["source"], f"{source['characters']:,}", source.get("extractor", "")]
        for source in sources[:SHOWN_SOURCES]
    ]
    more = (
        f"<p>... and {len(sources) - SHOWN_SOURCES:,} more.</p>" if sources[SHOWN_SOURCES:] else ""
    )
    head = ["source", "characters", "read by"]
    parts.append(f"<h2>Sources</h2>\n{html_table(head, rows)}{more}")
    return html_page(f"Corpus: {report['name']}", "\n".join(parts))


def _summary(report: dict[str, Any]) -> list[str]:
    """The summary in sentences, one per line."""
    ledger, duplicates = report["ledger"], report["duplicates"]
    n_documents, several = report["documents"], duplicates["families_of_several"]
    found = f"{amount(several, 'cluster')} of near-duplicates" if several else "No near-duplicates"
    share = ledger["validation"] / max(ledger["characters_in"], 1)
    held_out = {
        "tail": f"the {'beginning' if 'test' in ledger else 'end'} of each document",
        "documents": "whole documents",
        "clusters": "whole clusters",
        "files": "what you named",
    }[report["split"]]
    return [
        f"{amount(n_documents, 'document')}, "
        f"{ledger['characters_in']:,} characters, {report['different_characters']:,} different.",
        f"{found}.",
        f"Held out: {ledger['validation']:,} characters ({share:.1%}), {held_out}.",
        f"In the training text too: {report['leakage']['after']['grams']:.1%} of their runs of 13 "
        f"words.",
    ]


def _tables(report: dict[str, Any]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of each table."""
    ledger = report["ledger_bytes"]
    rows = [["in", "the files", ledger["in"]]]
    rows += [["kept", name, n] for name, n in ledger["kept"].items()]
    rows += [["dropped", why, n] for why, n in ledger["dropped"].items()]
    rows += [["rewritten", step, n] for step, n in ledger["rewritten"].items()]
    yield (
        "ledger: in = kept + dropped + rewritten",
        ["", "what", "bytes", "share"],
        [[a, b, f"{n:,}", f"{n / max(ledger['in'], 1):.2%}"] for a, b, n in rows],
    )
    kinds = report["kinds"].items()
    yield (
        "kinds of files",
        ["kind", "documents", "characters"],
        [[kind, f"{of['documents']:,}", f"{of['characters']:,}"] for kind, of in kinds],
    )
    found = report["duplicates"]
    yield (
        "duplicates",
        ["what", "number"],
        [
            ["copies of a document", f"{found['copies']:,}"],
            ["near duplicates", f"{found['near_pairs']:,}"],
            ["documents that stand in another", f"{found['contained_pairs']:,}"],
            ["clusters of near-duplicates", f"{found['families_of_several']:,}"],
            ["documents in the largest cluster", f"{found['largest_family']:,}"],
            ["paragraphs or lines that stood before", f"{found['repeated_lines']:,}"],
            ["characters in them", f"{found['repeated_characters']:,}"],
        ],
    )
    leakage = report["leakage"]
    rows = [["this split", leakage["after"]]]
    if leakage["before"]:
        rows.insert(0, ["split by single documents", leakage["before"]])
    yield (
        "validation text that stands in the training text too",
        ["split", "runs of 13 words", "of 50 characters", "characters covered"],
        [
            [name, f"{of['grams']:.2%}", f"{of['spans']:.2%}", f"{of['covered']:.2%}"]
            for name, of in rows
        ],
    )


def _bars(report: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, float, str]]]]:
    """Title and bars of each histogram."""
    yield (
        "characters of a document",
        [
            (f"{row['from']:,} to {row['below'] - 1:,}", row["documents"], f"{row['documents']:,}")
            for row in report["lengths"]
        ],
    )
    letters = sum(report["scripts"].values())
    if letters:
        scripts = report["scripts"].items()
        yield "scripts", [(name, n, f"{n / letters:.2%}") for name, n in scripts]


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
