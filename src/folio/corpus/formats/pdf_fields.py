"""Form fields and annotations of a PDF page, which are not part of its text."""

from __future__ import annotations

import ctypes
from typing import Any

from folio.corpus.formats.passage import Notes

_SEEN = ("FPDF_ANNOT_WIDGET", "FPDF_ANNOT_FREETEXT")
LONGEST_BYTES = 1 << 24


def field_texts(pdf: Any, page: Any, notes: Notes) -> list[str]:
    """The values of the page's form fields and the text boxes laid on it; comments are counted."""
    from pypdfium2 import raw

    texts: list[str] = []
    for i in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, i)
        if not annotation:
            continue
        kind = raw.FPDFAnnot_GetSubtype(annotation)
        if kind == raw.FPDF_ANNOT_WIDGET:
            value = _value(pdf, annotation)
            if value.strip():
                texts.append(value.strip())
        elif kind == raw.FPDF_ANNOT_FREETEXT:
            contents = _string(annotation, b"Contents")
            if contents.strip():
                texts.append(contents.strip())
        elif kind != raw.FPDF_ANNOT_LINK:
            notes.drop("comments", _string(annotation, b"Contents"))
        raw.FPDFPage_CloseAnnot(annotation)
    return texts


def _value(pdf: Any, annotation: Any) -> str:
    """What was filled in or chosen; nothing for buttons and check boxes."""
    from pypdfium2 import raw

    if pdf.formenv is None:
        return _string(annotation, b"V")
    kind = raw.FPDFAnnot_GetFormFieldType(pdf.formenv, annotation)
    if kind not in (
        raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX
    ):  # fmt: skip
        return ""
    return _read(
        lambda buffer, n: raw.FPDFAnnot_GetFormFieldValue(pdf.formenv, annotation, buffer, n)
    )


def _string(annotation: Any, key: bytes) -> str:
    from pypdfium2 import raw

    return _read(lambda buffer, n: raw.FPDFAnnot_GetStringValue(annotation, key, buffer, n))


def _read(get: Any) -> str:
    """Read UTF-16 by a function that first returns the length, then fills a buffer."""
    n_bytes = get(None, 0)
    if not 2 < n_bytes < LONGEST_BYTES:
        return ""
    buffer = (ctypes.c_ushort * (n_bytes // 2))()
    get(buffer, n_bytes)
    text = bytes(buffer).decode("utf-16-le", "replace").rstrip("\0")
    return text.replace("\r\n", "\n").replace("\r", "\n")
