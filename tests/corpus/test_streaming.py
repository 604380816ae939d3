from __future__ import annotations

from pathlib import Path

import pytest

from folio.corpus.cleaning import CleaningConfig
from folio.corpus.corpus import CorpusConfig, read_documents, reading_options
from folio.corpus.files import Findings
from folio.corpus.streaming import RefusedError, texts_of, unpacked_files
from tests.corpus.making import write


def streamed(path: Path, config: CorpusConfig, folder: Path) -> list[str]:
    found = []
    for file in unpacked_files(str(path), Findings(), folder):
        found += ["".join(pieces) for pieces in texts_of(file, reading_options(config))]
    return [text for text in found if text]


FILES = {
    "a.html": "<h1>A page</h1><p>of   two\u00a0lines</p>",
    "b.txt": "Plain \u00a0 text\r\nas it is.",
    "c.txt": "One<|endoftext|>Two<|endoftext|>",
    "d.csv": "id,text\n1,first row\n2,second row\n",
    "e.jsonl": '{"text": "one"}\n{"text": "half a character: \\ud800"}\n{"text": ""}\n',
    "f.py": "x = 1\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("apply_to", ["extracted", "all", "none"])
def test_streamed_texts_are_those_of_the_documents(name: str, apply_to: str, tmp_path: Path):
    path = write(tmp_path / "in", name, FILES[name])
    config = CorpusConfig(
        sources=(str(path),),
        cleaning=CleaningConfig(apply_to=apply_to),  # pyright: ignore[reportArgumentType]
    )
    expected = [document.text for document in read_documents([str(path)], config).documents]
    assert streamed(path, config, tmp_path / "unpacked") == expected


def test_of_an_archive_one_file_is_unpacked_at_a_time(tmp_path: Path):
    import zipfile

    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in FILES:
            archive.writestr(name, FILES[name])
    folder, counts, names = tmp_path / "unpacked", [], []
    for file in unpacked_files(str(path), Findings(), folder):
        counts.append(len(list(folder.iterdir())))
        names.append(file.name.rpartition("/")[2])
    assert counts == [1] * len(FILES) and names == sorted(FILES)
    assert list(folder.iterdir()) == []


def test_a_file_that_cannot_be_read_is_told_from_what_uses_its_texts(tmp_path: Path):
    path = write(tmp_path, "a.jsonl", '{"text": "one"}\n{\n{\n{\n')
    (file,) = unpacked_files(str(path), Findings(), tmp_path / "unpacked")
    with pytest.raises(RefusedError, match="3 of its 4 lines are not JSON"):
        list(texts_of(file, reading_options(CorpusConfig())))
    path = write(tmp_path, "b.txt", "b")
    (file,) = unpacked_files(str(path), Findings(), tmp_path)
    assert path.exists()  # only what was unpacked is deleted
    for pieces in texts_of(file, reading_options(CorpusConfig())):
        with pytest.raises(ValueError, match="mine"):
            [float("mine") for _ in pieces]
