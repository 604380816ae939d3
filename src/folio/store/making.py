"""Makes a store: processes take the shards that are missing, and the last part joins them."""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from itertools import accumulate
from threading import Lock
from typing import Any, NamedTuple

from folio.config import to_table
from folio.console import Progress, amount
from folio.corpus.corpus import CorpusConfig, reading_options
from folio.corpus.processes import LostError, Pool, Process
from folio.corpus.reading import ReadingOptions
from folio.errors import UserError
from folio.storage import locked, read_json, storage_error, write_json
from folio.store.directory import FORMAT, Store
from folio.store.joining import join
from folio.store.lost import ask
from folio.store.plan import Group, digest_of, plan, reading_settings
from folio.store.shard import Shard
from folio.tokenizers import load
from folio.tokenizers.config import TokenizerConfig

MEGABYTE = 10**6
SHOWN = 3


class Part(NamedTuple):
    """One of several commands that make a store together."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read `2/3`.

        Raises:
            UserError: it is something else.
        """
        number, _, of = text.partition("/")
        if number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
            return cls(int(number), int(of))
        raise UserError(f"--part must be I/N with I from 1 to N, as 2/3, got {text!r}.")


@dataclass(frozen=True)
class Made:
    """What a command did for a store."""

    store: Store
    n_made: int
    n_found: int
    """Shards that were there already."""
    index: dict[str, Any] | None
    """The content of index.json; None while other parts are missing."""


def make_store(
    store: Store,
    corpus: CorpusConfig,
    tokenizer: TokenizerConfig,
    n_workers: int,
    tell: Callable[[str], None],
    part: Part = Part(),  # noqa: B008  (a tuple)
) -> Made:
    """Encode the sources of a corpus into a store; what is there already stays.

    Args:
        store: where it is made, or gone on with.
        corpus: what is read, and what is held out.
        tokenizer: the vocabulary; one that has to be learned is learned from a sample.
        n_workers: processes that work at the same time.
        tell: receives a line about what is being done.
        part: which of the shards are made.

    Raises:
        UserError: anything the user can mend; what was made by then is kept.
    """
    if n_workers < 1:
        raise UserError(f"--workers must be at least 1, got {n_workers}.")
    _require_simple(corpus)
    groups = plan(corpus.sources, tell)
    options = reading_options(corpus)
    _begin(store, groups, options, tokenizer, tell)
    settings = read_json(store.settings_file, dict)
    keys, n_made = _make_shards(store, groups, options, settings, n_workers, part)
    digest = digest_of(groups, settings)
    write_json(store.part_file(*part), {"plan": digest, "shards": keys})
    with locked(store.lock_file, f"The store {store.path}", wait=True):
        parts = [_keys_of(store, Part(i + 1, part.of), digest) for i in range(part.of)]
        missing = [str(i + 1) for i, found in enumerate(parts) if found is None]
        if missing:
            tell(f"the store is joined as soon as the other parts are made: {', '.join(missing)}")
            return Made(store, n_made, len(keys) - n_made, None)
        ordered = [(parts[i % part.of] or [])[i // part.of] for i in range(len(groups))]
        named = [(key, group.name) for key, group in zip(ordered, groups)]
        index = join(store, named, corpus, tell)
    return Made(store, n_made, len(keys) - n_made, index)


def _require_simple(corpus: CorpusConfig) -> None:
    """Refuse settings that need all documents at once.

    Raises:
        UserError: one is given.
    """
    usual = CorpusConfig()
    for name, why in (
        ("validation", "it holds out documents of its sources only"),
        ("split", "it holds out whole documents by their hash"),
        ("test_fraction", "it has training and validation text only"),
        ("canaries", "nothing is planted in it"),
        ("engine", "it is made of formats that Folio reads itself"),
    ):
        if getattr(corpus, name) != getattr(usual, name):
            raise UserError(
                f"corpus.{name} must be left out for a store of tokens: {why}. Train from the "
                f"files to use it."
            )
    if corpus.duplicates.remove == "near":
        raise UserError(
            "corpus.duplicates.remove must be none or exact for a store of tokens, got near: "
            "similar documents are found in memory. Remove them before, or train from the files."
        )


def _begin(
    store: Store,
    groups: Sequence[Group],
    options: ReadingOptions,
    tokenizer: TokenizerConfig,
    tell: Callable[[str], None],
) -> None:
    """Make the folder and its vocabulary, or see that they are those that are asked for.

    Raises:
        UserError: the store was begun with other settings.
    """
    store.require_own_folder()
    try:
        store.shards_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, store.path) from error
    asked = {"reading": reading_settings(options), "tokenizer": to_table(tokenizer)}
    with locked(store.lock_file, f"The store {store.path}", wait=True):
        if store.settings_file.exists():
            store.require_vocabulary(tokenizer)
            _require_same(store, asked)
            return
        sampled, n_bytes = _spread(groups), sum(group.n_bytes for group in groups)
        request = {
            "tokenizer": to_table(tokenizer),
            "groups": [group.paths for group in sampled],
            "share": sum(g.n_bytes for g in sampled) / n_bytes if n_bytes else 1.0,
            "options": asdict(options),
            "seconds": options.time_limit_seconds,
            "into": str(store.tokenizer_file),
        }
        answer = _answer_to(request, store, groups[0])
        if answer["failed"]:
            raise UserError(answer["failed"])
        for line in answer["told"]:
            tell(line)
        fingerprint = load(store.tokenizer_file).fingerprint
        made = {"format": FORMAT, **asked, "fingerprint": fingerprint}
        write_json(store.settings_file, made)


def _answer_to(request: dict[str, Any], store: Store, first: Group) -> dict[str, Any]:
    """What a process says that learns the vocabulary, with as many threads as it likes."""
    with Pool(1, lambda: Process("folio.store.worker")) as pool:
        note = store.path / ".reading"
        try:
            return pool.submit(ask, pool.worker, request, note).result()
        except LostError:
            raise UserError(
                f"The vocabulary could not be learned: its process died while it read "
                f"{first.name}. Give a finished one: --tokenizer.path FILE"
            ) from None


def _require_same(store: Store, asked: dict[str, Any]) -> None:
    own = read_json(store.settings_file, dict)
    for table, given in asked.items():
        for name, value in given.items():
            found = own.get(table, {}).get(name)
            if name != "path" and value != found:
                raise UserError(
                    f"The store {store.path} was begun with {name} = {found!r}, and {value!r} is "
                    f"asked for. Give the same settings, or another folder: --into FOLDER"
                )


SAMPLED = 16
"""Places of the text, evenly spread over its bytes, from whose shards a vocabulary is learned."""


def _spread(groups: Sequence[Group]) -> list[Group]:
    """The shards of a sample, the smallest first, so that the others make up for what it lacks."""
    chosen = range(len(groups))
    if len(groups) > SAMPLED:
        ends = list(accumulate(group.n_bytes for group in groups))
        chosen = {bisect(ends, ends[-1] * (2 * i + 1) / (2 * SAMPLED)) for i in range(SAMPLED)}
    return sorted((groups[i] for i in chosen), key=lambda group: group.n_bytes)


def _keys_of(store: Store, part: Part, digest: str) -> list[str] | None:
    """The shards of a part; None if it was not made, or of other files."""
    file = store.part_file(*part)
    if not file.exists():
        return None
    record = read_json(file, dict)
    return record["shards"] if record["plan"] == digest else None


# ---- shards ------------------------------------------------------------------------------


class _Done(NamedTuple):
    key: str
    made: bool
    failed: str | None


def _make_shards(
    store: Store,
    groups: Sequence[Group],
    options: ReadingOptions,
    settings: dict[str, Any],
    n_workers: int,
    part: Part,
) -> tuple[list[str], int]:
    """Make what is missing of a part; returns the keys of all its shards, and how many were made.

    Raises:
        UserError: some could not be made; all others were.
    """
    mine = groups[part.number - 1 :: part.of]
    fingerprint, sequence = settings["fingerprint"], settings["tokenizer"]["sequence"]

    making = defaultdict[str, Lock](Lock)  # of files that are there twice

    def make(group: Group) -> _Done:
        key = group.key(options, fingerprint, sequence, FORMAT)
        with making[key]:
            if Shard(store.shards_folder, key).is_complete():
                return _Done(key, False, None)
            return make_missing(key, group)

    def make_missing(key: str, group: Group) -> _Done:
        request = {
            "folder": str(store.shards_folder),
            "key": key,
            "paths": group.paths,
            "options": asdict(options),
            "vocabulary": str(store.tokenizer_file),
            "sequence": sequence,
            "seconds": options.time_limit_seconds,
        }
        try:
            answer = ask(pool.worker, request, store.shards_folder / f".{key}.reading")
            return _Done(key, answer["made"], answer["failed"])
        except LostError as error:
            return _Done(key, True, f"its process was lost, since {error}")

    total, done_bytes, results = sum(g.n_bytes for g in mine), 0, dict[int, _Done]()
    with (
        Progress(max(1, total // MEGABYTE)) as bar,
        Pool(min(n_workers, max(1, len(mine))), _worker) as pool,
    ):
        jobs = {pool.submit(make, group): i for i, group in enumerate(mine)}
        for job in as_completed(jobs):
            i = jobs[job]
            results[i] = job.result()
            done_bytes += mine[i].n_bytes
            bar.update(done_bytes // MEGABYTE, f"MB  {mine[i].name}")
    failed = [f"{mine[i].name}: {r.failed}" for i, r in sorted(results.items()) if r.failed]
    if failed:
        shown = "; ".join(why.rstrip(".") for why in failed[:SHOWN])
        missing = f"{len(failed)} of {amount(len(mine), 'shard')}"
        raise UserError(
            f"{missing} could not be made: {shown}{'; ...' if failed[SHOWN:] else ''}. What is "
            f"made is kept: the same command makes only what is missing."
        )
    return [results[i].key for i in range(len(mine))], sum(r.made for r in results.values())


def _worker() -> Process:
    return Process("folio.store.worker", OMP_NUM_THREADS="1")
