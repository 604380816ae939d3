"""Train on texts that no file holds: here the docstrings of Python's standard library.

A corpus is a function that gives documents. Under a name in the table of built-in corpora it is a
source like any other: cleaned of duplicates, split by documents, accounted for, cached.

python examples/06_own_corpus.py
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folio
from folio.corpus.builtin import BUILTIN
from folio.corpus.document import Document, document_from_text


def docstrings() -> Iterator[Document]:
    """One document for each module of the standard library that explains itself."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        tree = ast.parse(path.read_bytes())
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
        if text := "\n\n".join(filter(None, texts)):
            yield document_from_text(f"docstrings/{path.stem}", text + "\n")


def main(minutes: float | None = 1, **settings: Any) -> folio.Result:
    BUILTIN["docstrings"] = docstrings
    result = folio.train("docstrings", minutes=minutes, **settings)
    print(folio.load(result.run.path).generate("Return ", max_tokens=200, seed=1))
    return result


if __name__ == "__main__":
    main()
