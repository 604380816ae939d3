from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from folio.corpus.corpus import CorpusConfig, read_documents
from folio.corpus.duplicates import DuplicatesConfig
from folio.corpus.processes import LostError, Process
from folio.corpus.reading import ReadingOptions
from folio.errors import UserError
from folio.recipe.expected_loss import anchor_file
from folio.store import lost, making, plan, shard, worker
from folio.store.directory import Store
from folio.store.making import Part, make_store
from folio.store.shard import Shard
from folio.tokenizers import load
from folio.tokenizers.character import CharacterTokenizer
from folio.tokenizers.config import TokenizerConfig
from folio.tokenizers.sequences import encode_documents
from folio.tokens.token_file import open_token_file
from tests.store.making import TEXTS, content, make, work_inside, write_sources

EXACT = DuplicatesConfig(remove="exact")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def one(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store made by one process."""
    with pytest.MonkeyPatch.context() as patch:
        work_inside(patch)
        return make(tmp_path_factory.mktemp("one") / "store", sources, workers=1)[0]


@pytest.fixture(autouse=True)
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    work_inside(monkeypatch)


def tokens(store: Store, part: str) -> np.ndarray:
    return np.asarray(open_token_file(store.tokens_file(part)))


@pytest.mark.parametrize("mine", ["train.bin", "tokenizer.json", "recipe.toml"])
def test_a_folder_of_something_else_is_no_place_for_a_store(
    sources: Path, tmp_path: Path, mine: str
):
    (tmp_path / mine).write_text("my own")
    (tmp_path / ".hidden").touch()
    with pytest.raises(UserError, match=f"is not a store: it has {mine}.*--into FOLDER"):
        make(tmp_path, sources)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", mine]


def test_a_store_has_the_tokens_of_its_documents_one_after_the_other(sources: Path, one: Store):
    documents = read_documents([str(sources)], CorpusConfig()).documents
    chosen = texts_in(one, "validation")
    held_out = [d.text for d in documents if d.text in chosen]
    others = [d.text for d in documents if d.text not in held_out]
    assert len(documents) == 80 and len(others) + len(held_out) == 80
    tokenizer = load(one.tokenizer_file)
    for part, texts in (("train", others), ("validation", held_out)):
        expected = np.concatenate(list(encode_documents(tokenizer, [[text] for text in texts])))
        np.testing.assert_array_equal(tokens(one, part), expected)
    index = one.index()
    assert index["documents"] == {
        "training": len(others),
        "validation": len(held_out),
        "exact copies": 0,
    }
    assert index["characters"]["training"] == sum(map(len, others))


def texts_in(store: Store, part: str) -> list[str]:
    tokenizer = load(store.tokenizer_file)
    ids = tokens(store, part)
    ends = np.flatnonzero(ids == tokenizer.end_of_document)
    return [tokenizer.decode(piece, skip_special=True) for piece in np.split(ids, ends)]


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_processes_makes_the_same_bytes(
    sources: Path, one: Store, tmp_path: Path, workers: int
):
    store, made = make(tmp_path / "store", sources, workers=workers)
    assert content(store) == content(one) and made.n_made > 5


def test_parts_in_any_order_make_the_same_bytes(sources: Path, one: Store, tmp_path: Path):
    n_made = 0
    for part in ("3/3", "1/3", "2/3"):
        store, made = make(tmp_path / "store", sources, part=part)
        assert (made.index is None) == (part != "2/3")
        n_made += made.n_made
    assert content(store) == content(one)
    assert n_made == len(one.index()["shards"])


def test_a_second_command_makes_nothing_changes_nothing_and_starts_no_process(
    sources: Path, one: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(making, "_worker", lambda: pytest.fail("a process is started"))
    before = {path: path.stat().st_mtime_ns for path in one.path.glob("*.bin")}
    _, made = make(one.path, sources)
    assert made.n_made == 0 and made.n_found == len(one.index()["shards"])
    assert {path: path.stat().st_mtime_ns for path in one.path.glob("*.bin")} == before


def test_a_shard_is_named_by_the_reader_of_its_mailbox_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    inbox = tmp_path / "Inbox"
    inbox.write_text("From - Tue Mar 12 14:05:00 2024\nSubject: Tea\n\nAt five.\n")
    group, settings = plan.Group((str(inbox),), 99), (ReadingOptions(), "f", "none", 1)
    before = group.key(*settings)
    monkeypatch.setattr(plan, "MAILBOX", replace(plan.MAILBOX, revision=99))
    assert group.key(*settings) != before


def test_a_killed_process_loses_one_shard_which_alone_is_made_again(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    characters = TokenizerConfig(kind="character")  # of which a process loads little
    whole, _ = make(tmp_path / "whole", sources, tokenizer=characters)

    class Killed(Process):
        def ask(self, request: dict[str, Any], limit_seconds: float | None = None) -> Any:
            if any(path.endswith("c.jsonl.gz") for path in request["paths"]):
                os.kill(self.process.pid, signal.SIGKILL)
            return super().ask(request, limit_seconds)

    work_inside(monkeypatch, lambda: Killed("folio.store.worker"))
    with pytest.raises(UserError, match=r"1 of \d+ shards could not be made: \S+ .*it died\. What"):
        make(tmp_path / "store", sources, workers=1, tokenizer=characters)
    work_inside(monkeypatch)
    store, made = make(tmp_path / "store", sources, tokenizer=characters)
    assert made.n_made == 1 and content(store) == content(whole)


def test_what_a_killed_process_left_is_removed(sources: Path, one: Store, tmp_path: Path):
    store = Store(tmp_path / "store")
    key = one.index()["shards"][0]["key"]
    store.shards_folder.mkdir(parents=True)
    (store.shards_folder / f".{key}.bin.abc").write_bytes(b"half")
    (store.shards_folder / f".{key}.unpacked").mkdir()
    (store.shards_folder / f"{key}.lock").write_text("process 1 on a machine")
    assert content(make(store.path, sources)[0]) == content(one)


def test_of_two_commands_that_need_a_shard_one_makes_it_and_the_other_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:  # one file in two places is one shard
        folder.mkdir()
        lines = (json.dumps({"text": text}) for text in TEXTS)
        (folder / "texts.jsonl").write_text("\n".join(lines))
    alone, _ = make(tmp_path / "alone", *folders)
    writing = worker.writing
    with ThreadPoolExecutor(1) as pool:
        others: list[Future[Any]] = []

        @contextmanager
        def meanwhile(*given: Any) -> Generator[Any]:
            with writing(*given) as writer:
                if not others:
                    others.append(Future())
                    others[0] = pool.submit(make, tmp_path / "both", *folders, part="2/2")
                    wait(others, timeout=0.2)
                yield writer

        monkeypatch.setattr(worker, "writing", meanwhile)
        store, first = make(tmp_path / "both", *folders, part="1/2")
        _, second = others[0].result()
    assert (first.n_made, second.n_made, second.n_found) == (1, 0, 1)
    assert content(store) == content(alone)


def test_a_new_file_makes_one_shard_more_with_the_same_vocabulary(tmp_path: Path):
    sources = write_sources(tmp_path / "sources")
    store, first = make(tmp_path / "store", sources)
    vocabulary = store.tokenizer_file.read_bytes()
    extra = tmp_path / "zz.txt"
    extra.write_text("Something else. " * 200)
    anchor_file(store.tokens_file("train")).write_text("[]")
    _, second = make(store.path, sources, extra)
    assert (second.n_made, second.n_found) == (1, first.n_made)
    assert store.tokenizer_file.read_bytes() == vocabulary
    assert second.index is not None and second.index["documents"]["training"] > 60
    assert not anchor_file(store.tokens_file("train")).exists()  # it was of less text


def test_a_changed_byte_in_a_shard_is_found_and_the_shard_named(
    sources: Path, one: Store, tmp_path: Path
):
    store, _ = make(tmp_path / "store", sources)
    damaged = Shard(store.shards_folder, store.index()["shards"][1]["key"])
    data = bytearray(damaged.tokens_file.read_bytes())
    data[-1] ^= 1
    damaged.tokens_file.write_bytes(data)
    store.index_file.unlink()
    with pytest.raises(UserError, match=f"shard .*{damaged.key}.bin is damaged.*Delete"):
        make(store.path, sources)
    damaged.record_file.unlink()
    assert content(make(store.path, sources)[0]) == content(one)


@pytest.mark.parametrize("file", ["bin", "documents", "json"])
def test_a_shard_that_was_cut_off_is_made_again(
    sources: Path, one: Store, tmp_path: Path, file: str
):
    store, _ = make(tmp_path / "store", sources)
    path = store.shards_folder / f"{store.index()['shards'][1]['key']}.{file}"
    path.write_bytes(path.read_bytes()[:-5])
    _, made = make(store.path, sources)
    assert made.n_made == 1 and content(store) == content(one)


def test_a_file_that_cannot_be_read_is_left_out_whole_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shard, "BATCH_CHARACTERS", 100)  # so that some of it is written before
    monkeypatch.setattr(plan, "SHARD_BYTES", 1 << 20)
    sources = write_sources(tmp_path / "sources")
    whole = make(tmp_path / "whole", sources)[0].index()["documents"]
    good = [json.dumps({"text": f"Line {n}"}) for n in range(1200)]  # read before the damage is
    (sources / "b.jsonl").write_text("\n".join([*good, *["{"] * 20]))
    store, made = make(tmp_path / "store", sources)
    assert made.index is not None
    (name, why), *others = made.index["refused"].items()
    assert (name, others) == ("b.jsonl", []) and "are not JSON" in why
    assert sum(made.index["documents"].values()) == sum(whole.values()) - 10
    texts = texts_in(store, "train") + texts_in(store, "validation")
    assert sorted(texts) == sorted({*TEXTS, *texts} - set(TEXTS[10:20]))


def test_a_vocabulary_is_learned_from_where_the_bytes_are(tmp_path: Path):
    for n in range(16):
        (tmp_path / f"{n:02}.about.txt").write_text(f"jagen {n}")
        (tmp_path / f"{n:02}.text.txt").write_text(f"{n}: zwölf Boxkämpfer jagen " * 20)
    told, corpus = list[str](), CorpusConfig(sources=(str(tmp_path),))
    store = Store(tmp_path / "store")
    make_store(store, corpus, TokenizerConfig(), 1, told.append)
    unknown = load(store.tokenizer_file).unknown
    assert unknown is not None and not (tokens(store, "train") == unknown).any()
    n_characters = sum(store.index()["characters"].values())
    found = re.search(r"has ([\d,]+) of them, .*, as a sample of ([\d,]+) shows", told[0])
    assert found is not None
    whole, sample = (int(number.replace(",", "")) for number in found.groups())
    assert whole == pytest.approx(n_characters, rel=0.05) and sample <= whole


def test_copies_are_dropped_on_demand_and_are_never_on_both_sides(tmp_path: Path):
    for name in ("one", "two"):
        write_sources(tmp_path / name)
    both = make(tmp_path / "both", tmp_path / "one", tmp_path / "two")[0].index()["documents"]
    alone = make(tmp_path / "alone", tmp_path / "one")[0].index()["documents"]
    assert both == {
        "training": 2 * alone["training"],
        "validation": 2 * alone["validation"],
        "exact copies": 0,
    }
    store, _ = make(tmp_path / "both", tmp_path / "one", tmp_path / "two", duplicates=EXACT)
    dropped = store.index()["documents"]
    assert dropped == alone | {"exact copies": 80}
    assert texts_in(store, "train") == texts_in(Store(tmp_path / "alone"), "train")


@pytest.mark.parametrize("most", [1, 200, 500])
def test_at_most_so_many_tokens_are_held_out_and_at_least_a_document(
    sources: Path, tmp_path: Path, most: int
):
    store, _ = make(tmp_path / "store", sources, validation_tokens=most)
    counts = store.index()["tokens"]
    held_out = store.index()["documents"]["validation"]
    if most == 1:
        assert held_out == 1
    else:
        assert most / 2 < counts["validation"] <= most
    everything = read_documents([str(sources)], CorpusConfig()).documents
    if most == 1:
        encode = load(store.tokenizer_file).encode
        assert counts["validation"] == min(len(encode(d.text)) for d in everything)
    else:
        texts = texts_in(store, "validation")
        keys = sorted(hashlib.sha256(text.encode()).hexdigest() for text in texts)
        assert keys == sorted(d.sha256 for d in everything)[:held_out]


def test_a_document_that_is_most_of_the_text_is_trained_on_wherever_its_hash_lies(tmp_path: Path):
    def key(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    short = [f"The short text {n}." for n in range(40)]
    long = next(t for n in range(10**5) if key(t := f"{n} is long. " * 200) < min(map(key, short)))
    for number, text in enumerate([*short, long]):
        (tmp_path / f"{number:02}.txt").write_text(text)
    store, _ = make(tmp_path / "store", tmp_path, tokenizer=TokenizerConfig(kind="character"))
    counts = store.index()["tokens"]
    most = 0.1 * (counts["training"] + counts["validation"])
    assert most / 2 < counts["validation"] <= most
    assert long in texts_in(store, "train")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"split": "tail"}, "corpus.split must be left out"),
        ({"canaries": 4}, "corpus.canaries must be left out"),
        ({"validation": ("x.txt",)}, "corpus.validation must be left out"),
        ({"text_column": "body"}, "begun with text_column = ''.*another folder"),
    ],
)
def test_settings_that_a_store_cannot_heed_are_refused(
    sources: Path, one: Store, settings: dict[str, Any], match: str
):
    with pytest.raises(UserError, match=match):
        make(one.path, sources, **settings)


def test_a_store_that_was_begun_with_another_vocabulary_is_not_gone_on_with(tmp_path: Path):
    sources = write_sources(tmp_path / "sources")
    paths = [tmp_path / f"{name}.json" for name in ("one", "two")]
    for path, text in zip(paths, ("The words.", "The other words.")):
        CharacterTokenizer.train([text]).save(path)
    one, two = (TokenizerConfig(path=str(path)) for path in paths)
    store, first = make(tmp_path / "store", sources, tokenizer=one)
    with pytest.raises(UserError, match=r"must be that of the store .* got .*two.json"):
        make(store.path, sources, tokenizer=two)
    shutil.copy(paths[0], paths[1])  # the same one under another name
    assert make(store.path, sources, tokenizer=two)[1].n_found == first.n_made


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/", "-1/2"])
def test_a_part_is_a_number_of_a_number(text: str):
    with pytest.raises(UserError, match="--part must be I/N"):
        Part.parse(text)


def test_what_is_no_text_ends_in_a_line(tmp_path: Path):
    for source, match in (
        (tmp_path / "nothing", "There is no file or folder .*nothing"),
        (Path("python-docs"), "There is no file or folder python-docs"),
        (tmp_path, "There is no text in"),
    ):
        with pytest.raises(UserError, match=match):
            make(tmp_path / "store", source)
    (tmp_path / "one.txt").write_text("A single text.")
    with pytest.raises(UserError, match="must have two that differ"):
        make(tmp_path / "store", tmp_path / "one.txt")


def test_conversations_are_not_taken_for_text(tmp_path: Path):
    line = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    (tmp_path / "talks.jsonl").write_text(f"{line}\n" * 3)
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"The text {name}.")
    _, made = make(tmp_path / "store", tmp_path)
    assert made.index is not None
    assert "conversations text" in made.index["refused"]["talks.jsonl"]
    assert made.index["documents"]["training"] == 1


def test_where_all_is_refused_the_reason_is_told(tmp_path: Path):
    line = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    (tmp_path / "talks.jsonl").write_text(f"{line}\n" * 3)
    with pytest.raises(UserError, match=r"no text .*: talks.jsonl is left out: line 1 is a conv"):
        make(tmp_path / "store", tmp_path / "talks.jsonl")


WORKER_WITH_BAD_READER = """
import os
from folio.corpus import streaming
from folio.store import worker
read = streaming.read_text_file
def fail(path, name, *given):
    while name.endswith("hangs.txt"):
        pass
    if name.endswith("crashes.txt"):
        os._exit(1)
    return read(path, name, *given)
streaming.read_text_file = fail
worker.main()
"""


def test_a_file_that_crashes_or_hangs_its_reader_is_left_out_alone_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "bad_reader.py").write_text(WORKER_WITH_BAD_READER)
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(making, "Process", lambda _, **given: Process("bad_reader", **given))
    monkeypatch.setattr(making, "_worker", lambda: Process("bad_reader"))
    monkeypatch.setattr(plan, "SHARD_BYTES", 1 << 20)
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in ("a", "crashes", "hangs", "z"):
        (sources / f"{name}.txt").write_text(f"The text {name}.")
    with ZipFile(sources / "packed.zip", "w") as packed:
        for name in ("crashes", "inside"):
            packed.writestr(f"{name}.txt", f"The text {name}.")
    characters = TokenizerConfig(kind="character")
    store, _ = make(tmp_path / "store", sources, tokenizer=characters, time_limit_seconds=1)
    assert store.index()["refused"] == {
        "crashes.txt": "its reader crashes",
        "hangs.txt": "its reader takes too long",
        "packed.zip/crashes.txt": "its reader crashes",
    }
    texts = texts_in(store, "train") + texts_in(store, "validation")
    assert sorted(texts) == [f"The text {name}." for name in ("a", "inside", "z")]
    left = [*store.path.rglob(".*"), *temporary.iterdir()]
    assert not left, "what was unpacked, and which file was read"


def test_a_process_that_hangs_is_ended_by_its_processor_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lines = ("import sys", "from folio.store.lost import at_most", "sys.stdin.readline()")
    (tmp_path / "hangs.py").write_text("\n".join([*lines, "with at_most(0):", "    while 1: 1"]))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(LostError, match="it took too long"):
        Process("hangs").ask({})
    before = resource.getrlimit(resource.RLIMIT_CPU)
    with lost.at_most(3600):
        assert resource.getrlimit(resource.RLIMIT_CPU) != before
    assert resource.getrlimit(resource.RLIMIT_CPU) == before
