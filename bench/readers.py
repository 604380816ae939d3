"""Words that arrive from PDFs whose text is known: Folio beside pypdf, pdfplumber and markitdown.

    python -m bench.readers

Ten documents of invented sentences in six scripts, drawn by reportlab: paragraphs, columns, a
table, words divided at line ends, a turned page, lines from right to left with shaped Arabic
letters, and Chinese, which has no spaces. Recall is the share of the known words that arrive,
precision that of the arriving words that are known, order the share of known neighbours that arrive
as neighbours. A word of Chinese is two characters side by side, so that a space between them costs
a word.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from folio.corpus.formats.passage import Notes
from folio.corpus.formats.pdf import read_pdf

WORDS = {
    "english": "the lamp above harbor burned every night and nobody knew who lit it boats came "
    "home late under its light while children counted waves from a window of old "
    "office near river",
    "german": "Leuchtturm Wärter Straße Größe Fenster brannte jeden Abend über dem Hafen "
    "niemand wusste Dampfschifffahrt Gesellschaft Öffnung Kinder zählten Wellen kamen "
    "spät zurück und das",
    "french": "la lampe du phare brûlait chaque nuit près rivière où les élèves naïfs "
    "comptaient vagues ça personne savait pourquoi été hiver vieux gardien garçon "
    "forêt",
    "russian": "старый фонарь горел каждую ночь над гаванью никто не знал почему дети считали "
    "волны у окна ещё зимой лодки шли домой поздно объём съезд",
    "greek": "ο παλιός φάρος έκαιγε κάθε νύχτα πάνω από το λιμάνι κανείς δεν ήξερε γιατί "
    "παιδιά μετρούσαν κύματα στο παράθυρο χειμώνας βάρκες ήρθαν αργά σπίτι",
    "hebrew": "הנר הישן דלק כל לילה מעל הנמל ואיש לא ידע מדוע ילדים ספרו גלים ליד החלון בחורף "
    "סירות שבו מאוחר הביתה 1984 שומר המגדלור Folio Haifa",
    "arabic": "كان المصباح القديم يضيء كل ليلة فوق الميناء ولم يعرف أحد لماذا عد الأطفال "
    "الأمواج عند النافذة في الشتاء عادت القوارب متأخرة إلى البيت 1984 Folio بلا",
    "chinese": "老灯塔 看守人 每天晚上 在同一时间 点灯 镇上的人 都不知道 原因 有一年冬天 他没有来 "
    "孩子们 走上山去 河边 旧窗户 船只 很晚 回家",
}
SIZE, LEADING = 11, 15
LEFT, TOP, WIDTH = 72, 760, 440
FONT, CHINESE = "DejaVuSans", "STSong-Light"


class Known(NamedTuple):
    """A document, and its text."""

    name: str
    pdf: bytes
    text: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="the time is the best of so many")
    rounds = parser.parse_args().rounds
    documents = make_documents()
    print(f"{'recall / precision / order':<18}" + "".join(f"{name:>23}" for name in READERS))
    totals: dict[str, list[tuple[float, float, float]]] = {name: [] for name in READERS}
    for document in documents:
        line = f"{document.name:<18}"
        for name, read in READERS.items():
            measured = measure(read(document.pdf), document.text)
            totals[name].append(measured)
            line += f"{shown(measured):>23}"
        print(line, flush=True)
    means = (tuple(sum(c) / len(c) for c in zip(*totals[name])) for name in READERS)
    print(f"{'mean':<18}" + "".join(f"{shown(mean):>23}" for mean in means))
    seconds = (min(_seconds(read, documents) for _ in range(rounds)) for read in READERS.values())
    print(f"{'ms a document':<18}" + "".join(f"{1000 * s / len(documents):23.1f}" for s in seconds))


def _seconds(read: Callable[[bytes], str], documents: Sequence[Known]) -> float:
    begin = time.perf_counter()
    for document in documents:
        read(document.pdf)
    return time.perf_counter() - begin


# ---- measures --------------------------------------------------------------------------


def measure(found: str, known: str) -> tuple[float, float, float]:
    """Recall and precision of words, and the share of neighbours that are still neighbours.

    >>> measure("b a c d", "a b c")
    (1.0, 0.75, 0.0)
    """
    words, true = words_of(found), words_of(known)
    common = (Counter(words) & Counter(true)).total()
    neighbours = Counter(pairwise(true))
    kept = (Counter(pairwise(words)) & neighbours).total()
    return (
        common / len(true),
        common / max(len(words), 1),
        kept / max(neighbours.total(), 1),
    )


def words_of(text: str) -> list[str]:
    """The words of a text; of Chinese, characters side by side.

    >>> words_of("Two 灯塔的"), words_of("灯 塔")
    (['Two', '灯塔', '塔的'], [])
    """
    words: list[str] = []
    text = unicodedata.normalize("NFKC", text)  # the glyphs of Arabic letters are letters too
    for word in re.findall(r"[\u4e00-\u9fff]+|[^\W\u4e00-\u9fff]+", text):
        chinese = "\u4e00" <= word[0] <= "\u9fff"
        words += map("".join, pairwise(word)) if chinese else [word]
    return words


def shown(measured: Iterable[float]) -> str:
    return " / ".join(f"{value:.3f}" for value in measured)


# ---- readers ---------------------------------------------------------------------------


def by_folio(data: bytes) -> str:
    return "".join(passage.text for passage in read_pdf(data, Notes()))


def by_pypdf(data: bytes) -> str:
    from pypdf import PdfReader  # pyright: ignore[reportMissingImports]

    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(data)).pages)


def by_pdfplumber(data: bytes) -> str:
    import pdfplumber  # pyright: ignore[reportMissingImports]

    with pdfplumber.open(io.BytesIO(data)) as pdf:
        return "\n".join(page.extract_text() for page in pdf.pages)


def by_markitdown(data: bytes) -> str:
    from markitdown import MarkItDown  # pyright: ignore[reportMissingImports]

    return MarkItDown().convert_stream(io.BytesIO(data), file_extension=".pdf").text_content


READERS = {
    "folio": by_folio, "pypdf": by_pypdf, "pdfplumber": by_pdfplumber, "markitdown": by_markitdown,
}  # fmt: skip


# ---- documents -------------------------------------------------------------------------


def make_documents() -> list[Known]:
    """The ten documents; each drawn line by line, so that what stands where is known."""
    _load_fonts()
    return [
        _paragraphs("english", "Helvetica"),
        _columns("english columns"),
        _turned("english turned"),
        _divided("german divided"),
        _table("french table"),
        _paragraphs("russian", FONT),
        _paragraphs("greek", FONT),
        _paragraphs("hebrew", FONT, leftwards=True),
        _paragraphs("arabic", FONT, leftwards=True),
        _paragraphs("chinese", CHINESE, space=""),
    ]


def _paragraphs(language: str, font: str, leftwards: bool = False, space: str = " ") -> Known:
    canvas, buffer = _canvas()
    paragraphs = [_sentences(language, n, space) for n in range(6)]
    y = TOP
    for text in paragraphs:
        for line in _lines(text, font, WIDTH, space):
            canvas.setFont(font, SIZE)
            if leftwards:
                canvas.drawRightString(LEFT + WIDTH, y, visual(line))
            else:
                canvas.drawString(LEFT, y, line)
            y -= LEADING
        y -= LEADING / 2
    canvas.save()
    return Known(language, buffer.getvalue(), "\n".join(paragraphs))


def _columns(name: str) -> Known:
    canvas, buffer = _canvas()
    columns = [[_sentences("english", 10 * side + n) for n in range(5)] for side in range(2)]
    # Drawn side by side, as some programs do.
    sides = [[line for text in column for line in _lines(text, FONT, 200)] for column in columns]
    for i in range(max(map(len, sides))):
        for side, lines in enumerate(sides):
            if i < len(lines):
                canvas.setFont(FONT, SIZE)
                canvas.drawString(LEFT + 230 * side, TOP - LEADING * i, lines[i])
    canvas.save()
    return Known(name, buffer.getvalue(), "\n".join(columns[0] + columns[1]))


def _turned(name: str) -> Known:
    canvas, buffer = _canvas()
    text = _sentences("english", 30) + " " + _sentences("english", 31)
    canvas.rotate(90)
    for i, line in enumerate(_lines(text, FONT, WIDTH)):
        canvas.setFont(FONT, SIZE)
        canvas.drawString(LEFT, -LEFT - LEADING * i, line)
    canvas.save()
    return Known(name, buffer.getvalue(), text)


def _divided(name: str) -> Known:
    canvas, buffer = _canvas()
    words = _sentences("german", 40).split() + _sentences("german", 41).split()
    lines, y = [""], TOP
    for word in words:
        line = f"{lines[-1]} {word}".strip()
        if _width(line, FONT) <= 240:
            lines[-1] = line
        elif len(word) > 7:
            lines[-1] = f"{lines[-1]} {word[:4]}-"
            lines.append(word[4:])
        else:
            lines.append(word)
    for line in lines:
        canvas.setFont(FONT, SIZE)
        canvas.drawString(LEFT, y, line)
        y -= LEADING
    canvas.save()
    return Known(name, buffer.getvalue(), " ".join(words))


def _table(name: str) -> Known:
    canvas, buffer = _canvas()
    words = _sentences("french", 50).split()
    rows = [words[i : i + 4] for i in range(0, len(words) - 3, 4)]
    before, after = _sentences("french", 51), _sentences("french", 52)
    y = TOP
    for drawn in (_lines(before, FONT, WIDTH), rows, _lines(after, FONT, WIDTH)):
        for line in drawn:
            canvas.setFont(FONT, SIZE)
            cells = [line] if isinstance(line, str) else line
            for i, cell in enumerate(cells):
                canvas.drawString(LEFT + 110 * i, y, cell)
            y -= LEADING
        y -= LEADING
    canvas.save()
    return Known(name, buffer.getvalue(), "\n".join([before, *map(" ".join, rows), after]))


def _sentences(language: str, seed: int, space: str = " ") -> str:
    """About fifty words in sentences."""
    draw = random.Random(seed)
    vocabulary = WORDS[language].split()
    stop = "。" if language == "chinese" else "."
    return space.join(
        space.join(draw.choices(vocabulary, k=draw.randint(6, 14))) + stop for _ in range(5)
    )


def _lines(text: str, font: str, width: float, space: str = " ") -> list[str]:
    lines = [""]
    for word in text.split(space) if space else text:
        line = f"{lines[-1]}{space}{word}" if lines[-1] else word
        if _width(line, font) <= width:
            lines[-1] = line
        else:
            lines.append(word)
    return lines


def _width(text: str, font: str) -> float:
    from reportlab.pdfbase.pdfmetrics import stringWidth

    return stringWidth(text, font, SIZE)


def _canvas() -> tuple[Any, io.BytesIO]:
    from reportlab.pdfgen.canvas import Canvas

    buffer = io.BytesIO()
    return Canvas(buffer), buffer


def _load_fonts() -> None:
    import matplotlib
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfbase.pdfmetrics import registerFont
    from reportlab.pdfbase.ttfonts import TTFont

    registerFont(TTFont(FONT, Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")))
    registerFont(UnicodeCIDFont(CHINESE))


# ---- lines from right to left ----------------------------------------------------------


def visual(line: str) -> str:
    """A line as its glyphs stand from left to right, Arabic letters in the form of their place.

    >>> visual("אב Folio 19 גד.")
    '.דג Folio 19 בא'
    """
    latin = re.sub(r"[A-Za-z][A-Za-z0-9 ]*[A-Za-z0-9]|\d+", lambda run: run[0][::-1], line)
    return shaped(latin)[::-1]


def shaped(text: str) -> str:
    """Arabic letters as the glyphs of the place that they have in their word."""
    forms = _forms()
    letters = [found[0] for found in re.finditer("ل[آأإا]|.", text)]  # lam and alef are one glyph
    out = ""
    for before, letter, after in zip(["", *letters], letters, [*letters[1:], ""]):
        known = forms.get(letter, {})
        joins_before = "<initial>" in forms.get(before, {}) and "<final>" in known
        joins_after = "<initial>" in known and "<final>" in forms.get(after, {})
        place = ("<isolated>", "<initial>", "<final>", "<medial>")[2 * joins_before + joins_after]
        out += known.get(place) or letter
    return out


def _forms() -> dict[str, dict[str, str]]:
    """The glyphs of each Arabic letter, by their places."""
    forms: dict[str, dict[str, str]] = {}
    for code in range(0xFE80, 0xFEFD):
        place, *letters = unicodedata.decomposition(chr(code)).split()
        letter = "".join(chr(int(code, 16)) for code in letters)
        forms.setdefault(letter, {})[place] = chr(code)
    return forms


if __name__ == "__main__":
    main()
