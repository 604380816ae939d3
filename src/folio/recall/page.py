"""recall.html: the answer, two pictures, the samples with what was copied, and what it does not
show. One file that loads nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from itertools import accumulate, pairwise
from pathlib import Path
from urllib.parse import quote

import numpy as np

from folio.evaluation.matching import Match
from folio.recall.copies import nearly_spans, spans_of
from folio.recall.heart import TRIES, Known
from folio.recall.measure import Recall, Sample
from folio.recall.personal import masked
from folio.recall.pictures import STYLE, Line, bits_picture, novelty_picture
from folio.recall.record import record_of
from folio.recall.secrets import Secret
from folio.recall.sources import Source
from folio.recall.twin import TRIES as TWIN_TRIES
from folio.recall.words import (
    NOT_SHOWN,
    author_named,
    canary_rows,
    copy_rows,
    gain_in_words,
    none_counted,
    not_looked_in,
    of_which_text,
    tries_of,
    verdict_of,
)
from folio.report import html_page, html_table
from folio.run.directory import Run
from folio.storage import atomic_write, write_json
from folio.tokens.text import to_text

SHOWN_SAMPLES = 12
SHADED = 20
"""Copies of so many characters are shaded."""
SHOWN_DOCUMENTS = 25
STANDS_OUT = 3.0
"""Standard errors above the others, for a document to be named; there are many documents."""


def write_report(run: Run, recall: Recall) -> Path:
    """Write the record and the page into a run, and return the path of the page."""
    html, record_file, page = recall_page(recall), run.recall_file, run.recall_page
    if recall.text:
        record_file, page = run.recall_text_file, run.recall_text_page
    write_json(record_file, record_of(recall))
    with atomic_write(page) as file:
        file.write(html)
    return page


def recall_page(recall: Recall) -> str:
    """The whole page as HTML."""
    places: list[str] = []
    parts = [*_answer(recall), *_passages(recall), *_samples(recall, places)]
    parts += [*_by_heart(recall), *_documents(recall), *_twin(recall), *_secrets(recall)]
    items = "".join(f"<li>{escape(line)}</li>" for line in NOT_SHOWN)
    parts.append(f"<h2>What this does not show</h2>\n<ul>{items}</ul>")
    data = json.dumps(places, ensure_ascii=False).replace("<", "\\u003c")
    parts.append(
        f'<div id="place" hidden></div>\n<script>{_SCRIPT.replace("__PLACES__", data)}</script>'
    )
    name = Path(recall.run).name
    title = f"What {name} says of {recall.text}" if recall.text else f"Did {name} learn, or copy?"
    return html_page(title, f"<style>{STYLE}{_STYLE}</style>" + "\n".join(parts))


def _answer(recall: Recall) -> Iterator[str]:
    verdict = verdict_of(recall)
    yield f'<p class="verdict">{escape(verdict.sentence)}</p>'
    yield f"<p>{_with_options(verdict.advice)}</p>"
    if recall.missing:
        yield f"<p>{escape(not_looked_in(recall))}</p>"
    yield (
        f'<p class="faint">{escape(recall.checkpoint)}; {recall.training_characters:,} '
        f"characters{escape(of_which_text(recall))}. ± is one standard error.</p>"
    )
    yield "<h2>What it writes, and what the author writes</h2>"
    lines = [
        Line("what the model wrote", "model", recall.model.seen, recall.model.seen_errors),
        Line(
            author_named(recall),
            "author",
            recall.author.seen,
            recall.author.seen_errors,
        ),
    ]
    yield (
        f"<p>Share of runs of n characters that stand in {escape(recall.looked_in)}. A model that "
        f"writes as freely as the author runs along the author's line; one that copies runs above "
        f"it.</p>"
    )
    yield novelty_picture(lines)
    head = ["in copies", f"of {recall.length} and more", "nearly", "longest"]
    yield _table(head, [[name, *cells] for name, cells in copy_rows(recall)])
    yield (
        f'<p class="faint">Patterns (rules, columns) do not count. With them it is '
        f"{recall.model.with_patterns} of what the model wrote, and "
        f"{recall.author.with_patterns} of the author's text. Lengths are characters. Nearly: one "
        f"character in ten may differ.</p>"
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    """A table whose numbers keep their unit and sign together, so that it may be narrow."""
    kept = [[c.replace(" %", "\u202f%").replace("± ", "±\u202f") for c in row] for row in rows]
    return html_table(header, kept)


def _with_options(advice: str) -> str:
    """A sentence as HTML without line breaks inside options.

    >>> _with_options("again: --seed 2 <x>")
    'again: <span class="option">--seed 2</span> &lt;x&gt;'
    """
    return re.sub(r"--\S+(?: [\w.]+)?", r'<span class="option">\g<0></span>', escape(advice))


def _passages(recall: Recall) -> Iterator[str]:
    heart = recall.heart
    yield f"<h2>{'How it goes on with passages' if recall.text else 'What it knows by heart'}</h2>"
    if why := none_counted(heart):
        yield f"<p>{why}.</p>"
    else:
        yield from _read_and_new(recall)
    if not heart.suffix_characters:
        return
    rows = []
    for name, shares in (
        (recall.looked_in, heart.text),
        ("of it, more than 5 times there", heart.repeated),
        ("new text", heart.new),
        ("patterns, left out above", heart.patterns),
    ):
        total = shares["at once"].of
        if not total:
            continue
        bound = "0" if total < 100 else f"0, below {300 / total:.1f} %"
        cells = [str(share) if share.count else bound for share in shares.values()]
        rows.append([name, f"{total:,}", *cells])
    yield _table(["", "passages", *TRIES], rows)
    if not heart.by_repeats:
        return
    yield "<h3>By how often a passage stands there</h3>"
    rows = [
        [name, f"{n:,}", f"{bits:.0f}", f"{share:.1%}"] for name, n, bits, share in heart.by_repeats
    ]
    yield _table(["stands", "passages", "median bits", "at once"], rows)


def _read_and_new(recall: Recall) -> Iterator[str]:
    """How sure it is of passages of a text, beside those of new text."""
    heart = recall.heart
    compared = "No passage of new text was there to compare with."
    if n_new := heart.new["at once"].of:
        compared = (
            f"Beside them are {n_new:,} of text that it never read: the distance between the two "
            f"is how well it recognizes what it read."
        )
    yield (
        f"<p>{heart.text['at once'].of:,} passages of {escape(recall.looked_in)}, of "
        f"{heart.suffix_characters:.0f} characters each after at least the "
        f"{heart.prefix_characters:.0f} before them. The further to the left, the surer it goes on "
        f"with a passage. {compared}</p>"
    )
    name = f"passages of {recall.text}" if recall.text else "passages that it read"
    series = [(name, "model", heart.bits), ("new ones", "new", heart.new_bits)]
    yield bits_picture([one for one in series if one[2]])


def _samples(recall: Recall, places: list[str]) -> Iterator[str]:
    yield "<h2>What it wrote</h2>"
    yield (
        f"<p>Shaded is what stands in {escape(recall.looked_in)}, {SHADED} characters and more, "
        f"the longer the darker; dotted is what nearly does. Choose a stretch to see where.</p>"
    )
    for sample in sorted(recall.samples, key=_n_copied, reverse=True)[:SHOWN_SAMPLES]:
        yield f'<pre class="sample">{_shaded(recall, sample, places)}</pre>'
    if len(recall.samples) > SHOWN_SAMPLES:
        yield (
            f'<p class="faint">The {SHOWN_SAMPLES} of {len(recall.samples)} texts with most of '
            f"it.</p>"
        )


def _n_copied(sample: Sample) -> int:
    """A sample's characters that are shaded."""
    spans = (span for match in sample.matches for span in spans_of(match, SHADED))
    return sum(span.stop - span.start for span in spans)


def _shaded(recall: Recall, sample: Sample, places: list[str]) -> str:
    """A sample as HTML; what its stretches copy is appended to `places`."""
    return "\n\u2e3b\n".join(_shaded_match(recall, match, places) for match in sample.matches)


def _shaded_match(recall: Recall, match: Match, places: list[str]) -> str:
    symbols, n = match.query.symbols, len(match.codes)
    begins = [*match.starts.tolist(), len(symbols)]
    # One at a time, since of bytes that are not text several may become one character, or none.
    characters = [to_text(symbols[start:stop])[:1] for start, stop in pairwise(begins)]
    whole = recall.mask("".join(characters))
    # Of each character 0 for plain, 1 for nearly, and 2 and more for a span of its own.
    kinds = np.zeros(n, np.int64)
    for start, stop in nearly_spans(match, recall.sources.text, recall.length):
        kinds[start:stop] = 1
    spans = spans_of(match, SHADED)
    for number, span in enumerate(spans, 2):
        kinds[span.start : span.stop] = number
    cuts = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), n] if n else []
    html = []
    for start, stop in pairwise(cuts):
        kind = int(kinds[start])
        if kind < 2:
            text = escape(whole[start:stop])
            html.append(f'<span class="near">{text}</span>' if kind else text)
            continue
        span = spans[kind - 2]
        n_bytes = begins[span.stop] - begins[span.start]
        places.append(_place(recall, span.end - n_bytes, span.end, span.elsewhere))
        size = span.stop - span.start
        tint = round(min(70, 12 + 50 * size / recall.length))
        html.append(
            f'<mark tabindex="0" data-place="{len(places) - 1}" style="--share: {tint}%" '
            f'title="{size} characters">{escape(whole[start:stop])}</mark>'
        )
    return "".join(html)


def _place(recall: Recall, start: int, stop: int, elsewhere: bool) -> str:
    parts = recall.sources.around(start, stop)
    together, edges = recall.mask("".join(parts)), [*accumulate(map(len, parts), initial=0)]
    before, at, behind = (together[a:b] for a, b in pairwise(edges))
    where = _linked(recall.sources.locate(start))
    more = " It stands elsewhere in the text, too." if elsewhere else ""
    return (
        f"<p>{where}.{more}</p><blockquote>{escape(before)}<b>{escape(at)}</b>"
        f"{escape(behind)}</blockquote>"
    )


def _linked(source: Source) -> str:
    """The name of a document; a link to the page where it is a PDF that lies there."""
    number = re.search(r"\d+", source.page)
    path = Path(source.document)
    if path.suffix.lower() == ".pdf" and number and path.is_file():
        address = f"file://{quote(str(path.resolve()))}#page={number[0]}"
        return f'<a href="{escape(address)}">{escape(str(source))}</a>'
    return escape(str(source))


def _by_heart(recall: Recall) -> Iterator[str]:
    worst = recall.heart.worst
    yield "<h2>Passages that come, the surest first</h2>"
    if not worst:
        yield "<p>None was found within a million tries.</p>"
        return
    yield "<p>Gray is what it was given, the rest is what it goes on with.</p>"
    items = "".join(f"<li>{_known(recall, known)}</li>" for known in worst)
    yield f'<ol class="known">{items}</ol>'


def _known(recall: Recall, known: Known) -> str:
    tries = 2**known.bits
    often = (
        "at once" if known.at_once else f"in {tries:,.0f} tries" if tries >= 2 else "nearly always"
    )
    stands = "once" if known.repeats <= 1 else f"{known.repeats} times"
    where = _linked(recall.sources.locate(known.place))
    together = recall.mask(known.prefix + known.suffix)
    given, said = together[: len(known.prefix)], together[len(known.prefix) :]
    prefix = f'<span class="faint">{escape(given[-120:])}</span>'
    return (
        f"<p><b>{often}</b> ({known.bits:.1f} bits), stands {stands}: {where}</p>"
        f"<blockquote>{prefix}{escape(said)}</blockquote>"
    )


def _documents(recall: Recall) -> Iterator[str]:
    rows = recall.heart.documents
    if len(rows) < 2:
        return
    yield "<h2>Documents</h2>"
    overall = recall.heart.text["in a million"]
    standing_out = [row for row in rows if row[1].above(overall, STANDS_OUT)]
    if not standing_out:
        yield "<p>No document stands out of its error.</p>"
    else:
        names = ", ".join(recall.sources.name(row[0]) for row in standing_out[:5])
        yield f"<p>Of {escape(names)} more comes than of the others.</p>"
    cells = [
        [recall.sources.name(document), f"{share.of:,}", str(share), f"{quantile:.0f}"]
        for document, share, quantile in rows[:SHOWN_DOCUMENTS]
    ]
    yield _table(["document", "passages", "within a million tries", "bits, 5 % are below"], cells)


def _twin(recall: Recall) -> Iterator[str]:
    if (twin := recall.twin) is None:
        return
    yield "<h2>What reading a document changes</h2>"
    yield (
        f"<p>Two models of the same recipe read one half of the documents each, as often as the "
        f"run did. The one that read a passage finds it {gain_in_words(twin.gain)} less surprising "
        f"than the other; {twin.by_reading.count:,} of {twin.by_reading.of:,} passages come within "
        f"{TWIN_TRIES} tries from that one alone, {twin.anyway.count:,} from the one that never "
        f"read them.</p>"
    )
    out = ", ".join(recall.sources.name(document) for document, _ in twin.standing_out()[:5])
    yield f"<p>{escape(out) or 'No document'} stands out of its error.</p>"
    cells = [
        [recall.sources.name(document), f"{gain.passages:,}", gain_in_words(gain)]
        for document, gain in twin.documents[:SHOWN_DOCUMENTS]
    ]
    yield _table(["document", "passages", "less surprising to who read it"], cells)


def _secrets(recall: Recall) -> Iterator[str]:
    yield "<h2>Secrets</h2>"
    secrets = recall.secrets
    if recall.canaries:
        head = ["canaries, planted on purpose", "number", "median bits", "exposure"]
        yield _table(head, canary_rows(recall))
    if not secrets.kinds:
        yield (
            f"<p>No e-mail address, telephone or account number, card or key was found in "
            f"{escape(recall.looked_in)}. Others are looked for with <code>--secrets FILE</code>."
            f"</p>"
        )
        return
    out = secrets.coming_out
    yield (
        f"<p>In {escape(recall.looked_in)}: {secrets.in_words}. {len(out)} come out: of "
        f"{secrets.n_tried:,} that were tried, those that come within a million tries, after what "
        f"stands before them there; and of all, those that stand in what it wrote.</p>"
    )
    rows = [
        [
            masked_again(secret),
            secret.kind,
            f"{secret.stands}",
            tries_of(secret),
            "-" if secret.exposure is None else f"{secret.exposure:.1f}",
            secret.place,
        ]
        for secret in out
    ]
    if rows:
        head = ["secret", "kind", "stands", "comes out", "exposure, 10 is the most", "where"]
        yield _table(head, rows)


def masked_again(secret: Secret) -> str:
    """A secret as the page shows it: always masked, whatever the terminal shows."""
    return masked(secret.shown, secret.kind)


_STYLE = """
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem }
.verdict { font-size: 1.25rem; line-height: 1.4; border-left: .25rem solid var(--accent);
  padding-left: .9rem }
.option { white-space: nowrap }
p { overflow-wrap: anywhere }
@media (max-width: 40rem) { td.number { white-space: normal }
  td:first-child { min-width: 4.5rem; overflow-wrap: anywhere } }
.sample, blockquote { max-width: 48rem; box-sizing: border-box }
.sample { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; line-height: 1.6;
  padding: .75rem; border-radius: .4rem; background: var(--raised) }
mark { color: inherit; border-radius: .15rem; cursor: pointer;
  background: color-mix(in srgb, #ea580c var(--share), transparent) }
mark:focus { outline: 2px solid var(--accent) }
.near { text-decoration: underline dotted; text-decoration-thickness: 2px;
  text-underline-offset: .2em }
blockquote { margin: .3rem 0 1rem; padding: .5rem .75rem; border-left: 3px solid var(--line);
  white-space: pre-wrap; overflow-wrap: anywhere; font: .85rem/1.5 ui-monospace, monospace }
.known { padding-left: 1.5rem } .known p { margin: 0 }
#place { position: sticky; bottom: 0; max-height: 40vh; overflow: auto; padding: .5rem 1rem;
  background: var(--ground); border: 1px solid var(--line); border-radius: .4rem .4rem 0 0;
  box-shadow: 0 -4px 16px #0003 }
#place button { float: right; position: sticky; top: 0; font-size: 1.2rem; line-height: 1;
  padding: .2rem .5rem;
  cursor: pointer; color: inherit; background: var(--ground);
  border: 1px solid var(--line); border-radius: .4rem }
"""

_SCRIPT = """
const places = __PLACES__, panel = document.getElementById("place");
const hide = () => { panel.hidden = true; };
const show = (mark) => {
  panel.innerHTML = `<button aria-label="close">\u00d7</button>${places[mark.dataset.place]}`;
  panel.querySelector("button").addEventListener("click", hide);
  panel.hidden = false;
  panel.scrollTop = panel.querySelector("b").offsetTop - 48;
};
for (const mark of document.querySelectorAll("mark")) {
  mark.addEventListener("click", () => show(mark));
  mark.addEventListener("keydown", (event) => { if (event.key === "Enter") show(mark); });
}
addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
"""
