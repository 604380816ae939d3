"""The known formats, by suffix of the file name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any


@dataclass(frozen=True)
class Format:
    """A format that has to be extracted."""

    name: str
    suffixes: tuple[str, ...]
    reader: str
    """Module and function below folio.corpus.formats."""
    library: str = ""
    """The package that does the work, if any."""
    extra: str = "documents"
    """The extra of pyproject.toml that installs the package."""
    takes: str = "data"
    """`data`, the bytes; `rows`, its lines and the text column; or `path`, for files too large for
    memory."""
    settings: tuple[str, ...] = ()
    """Names of the fields of ReadingOptions that the reader takes."""
    laid_out: bool = True
    """Whether the text was extracted from a layout, so that cleaning applies by default."""
    furniture: bool = False
    """Whether its files may repeat lines that are no text of theirs, such as menus and legal
    notices. Letters begin and end alike, too, and readers of DOCX, ODT and slides know headers and
    footers by themselves."""
    accounts: bool = True
    """Whether it visits all text of a file, so that whatever is neither read nor counted is
    markup."""
    revision: int = 3
    """Raised with each change of the extracted text, so that old cache entries are ignored."""

    @property
    def extractor(self) -> str:
        """Reader and library with their versions, as recorded in the provenance."""
        ours = f"folio {self.name} {self.revision}"
        return f"{ours}, {self.library} {_version(self.library)}" if self.library else ours

    def load(self) -> Callable[..., Any]:
        """The reader function; its libraries are imported when it runs."""
        module, _, function = self.reader.partition(".")
        return getattr(importlib.import_module(f"folio.corpus.formats.{module}"), function)


MAILBOX = Format(
    "mbox", (".mbox",), "mail.read_mbox", takes="path", settings=("mail_headers",), revision=8
)
FORMATS = (
    Format(
        "pdf", (".pdf",), "pdf.read_pdf", "pypdfium2", furniture=True, accounts=False, revision=4
    ),
    Format(
        "html",
        (".html", ".htm", ".xhtml"),
        "html.read_html",
        "selectolax",
        furniture=True,
        revision=6,
    ),
    Format("docx", (".docx", ".docm"), "docx.read_docx", "defusedxml", revision=6),
    Format("odt", (".odt", ".ott", ".ods", ".odp"), "odt.read_odt", "defusedxml", revision=6),
    Format("epub", (".epub",), "epub.read_epub", "selectolax", furniture=True, revision=6),
    Format("xlsx", (".xlsx", ".xlsm"), "workbook.read_xlsx", "defusedxml", revision=5),
    Format("pptx", (".pptx", ".pptm"), "slides.read_pptx", "defusedxml", revision=4),
    MAILBOX,
    Format(
        "saved page",
        (".mht", ".mhtml"),
        "mail.read_saved_page",
        "selectolax",
        furniture=True,
        revision=5,
    ),
    Format("eml", (".eml",), "mail.read_eml", settings=("mail_headers",), revision=7),
    Format(
        "subtitles",
        (".srt", ".vtt", ".sbv", ".ass", ".ssa"),
        "subtitles.read_subtitles",
        revision=7,
    ),
    Format(
        "json",
        (".json",),
        "chats.read_json",
        settings=("text_column", "chat_times", "conversations"),
        laid_out=False,
        revision=8,
    ),
    Format(
        "parquet",
        (".parquet", ".arrow", ".feather"),
        "parquet.read_parquet",
        "pyarrow",
        takes="path",
        settings=("text_column", "conversations"),
        laid_out=False,
        accounts=False,
        extra="parquet",
        revision=7,
    ),
    Format("csv", (".csv",), "tables.read_csv", takes="rows", laid_out=False, revision=4),
    Format("tsv", (".tsv",), "tables.read_tsv", takes="rows", laid_out=False, revision=4),
    Format(
        "jsonl",
        (".jsonl", ".ndjson"),
        "jsonl.read_jsonl",
        takes="rows",
        settings=("conversations",),
        laid_out=False,
        revision=7,
    ),
    Format("notebook", (".ipynb",), "notebook.read_notebook", laid_out=False, revision=4),
    Format("org", (".org",), "org.read_org", takes="rows", laid_out=False, revision=4),
    Format("latex", (".tex", ".ltx"), "latex.read_latex", revision=6),
    Format(
        "xml",
        (".xml", ".tei", ".fb2", ".docbook", ".dbk", ".nxml", ".rss", ".atom", ".opml", ".dita"),
        "xml_text.read_xml",
        "defusedxml",
        settings=("text_column",),
        laid_out=False,
        revision=6,
    ),
)
LINES = Format("lines", (), "plain.read_lines", takes="rows", laid_out=False)
MARKED = Format("marked text", (), "plain.read_marked", takes="rows", laid_out=False)
WHATSAPP = Format(
    "whatsapp",
    (),
    "whatsapp.read_whatsapp",
    takes="rows",
    settings=("chat_times",),
    laid_out=False,
    revision=5,
)
OTHERS = (LINES, MARKED, WHATSAPP)
"""Formats that no file name tells."""
TIKA = Format("tika", (), "tika.read_tika", "tika", furniture=True, accounts=False)

PROSE_SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst")
CODE_SUFFIXES = (
    ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".cs", ".java", ".kt", ".kts",
    ".scala", ".go", ".rs", ".swift", ".m", ".mm", ".js", ".jsx", ".mjs", ".ts", ".tsx", ".rb",
    ".php", ".pl", ".pm", ".lua", ".r", ".jl", ".hs", ".ml", ".mli", ".fs", ".ex", ".exs", ".erl",
    ".clj", ".lisp", ".el", ".scm", ".sh", ".bash", ".zsh", ".ps1", ".sql", ".bib",
    ".toml", ".cfg", ".ini", ".yaml", ".yml", ".cmake", ".mk", ".dart", ".zig", ".nim", ".v",
    ".vhd", ".tcl", ".f", ".f90", ".pas", ".ada", ".asm", ".s", ".css", ".scss",
)  # fmt: skip
MARKED_UP = ("org", "latex", "xml")
"""Formats whose source is also readable text, which some want to learn as it is."""
PLAIN_SUFFIXES = PROSE_SUFFIXES + CODE_SUFFIXES
"""Suffixes of plain text files."""

ARCHIVE_SUFFIXES = (
    ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst",
)  # fmt: skip
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".lzma", ".zst")
"""Suffixes of single compressed files; the suffix before tells the format."""


def format_of(name: str) -> Format | None:
    """The format that a file name tells; None for plain text and unknown types."""
    name = name.lower()
    return next((known for known in FORMATS if name.endswith(known.suffixes)), None)


def is_archive(name: str) -> bool:
    """Whether a file name is that of an archive."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def without_compression(name: str) -> str:
    """A name without the suffix of its compression.

    >>> without_compression("a.txt.gz"), without_compression("a.tar.gz")
    ('a.txt', 'a.tar.gz')
    """
    if is_archive(name) or not name.lower().endswith(COMPRESSED_SUFFIXES):
        return name
    return name.rpartition(".")[0]


def is_known(name: str) -> bool:
    """Whether a file of this name is taken from a folder or an archive."""
    return name.lower().endswith(PLAIN_SUFFIXES) or is_archive(name) or format_of(name) is not None


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"
