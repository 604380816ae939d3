"""Memory that a corpus takes, by its size: flat, or not.

    python -m bench.memory --megabytes 10,100,1000

Stretches of the standard library's sources, one word in ten changed, so that most texts share
lines with most others: as files of 200 kB, and as one file. Each is read, searched for duplicates,
split and searched for leakage in a process of its own; the peak is that of it and its children
together.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.standard_library import standard_library

LIBRARY_BYTES = 6_000_000
FILE_BYTES = 200_000
CHANGED = 0.1


def stretches(n_bytes: int) -> Iterator[bytes]:
    """Texts of about FILE_BYTES, `n_bytes` together."""
    random_ = random.Random(1)
    sources = "".join(standard_library(LIBRARY_BYTES).values())
    while n_bytes > 0:
        begin = random_.randrange(len(sources) - FILE_BYTES)
        words = sources[begin : begin + FILE_BYTES].split(" ")
        for i in range(len(words)):
            if words[i] and random_.random() < CHANGED:
                words[i] = f"w{random_.randrange(10**6)}"
        text = " ".join(words).encode()
        yield text
        n_bytes -= len(text)


def write_corpus(folder: Path, n_bytes: int, as_one: bool) -> None:
    """Write the texts into one file, or a file each."""
    for i, text in enumerate(stretches(n_bytes)):
        path = folder / ("all.txt" if as_one else f"{i:06d}.txt")
        with path.open("ab") as file:
            file.write(text + b"\n")


def measure(path: str) -> None:
    """Print processor time and the peak of memory so far after each part of the work."""
    from folio.corpus.corpus import CorpusConfig, read_documents
    from folio.corpus.duplicates import DuplicatesConfig, find_families
    from folio.corpus.leakage import measure_leakage
    from folio.corpus.split import split_documents

    def done(part: str) -> None:
        usages = [
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        peak = sum(usage.ru_maxrss for usage in usages) / 1000
        print(
            f"  {part:<12}{time.process_time():6.1f} s of processor time{peak:7.0f} MB", flush=True
        )

    documents = read_documents([path], CorpusConfig()).documents
    done("read")
    families = find_families(documents, DuplicatesConfig())
    done("duplicates")
    split = split_documents(documents, "auto", 0.1, families.of)
    leakage, _ = measure_leakage(split.training, split.validation)
    done("leakage")
    print(f"  {families.record()}, split {split.kind}, {leakage}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", default="10,100,1000")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    for megabytes in map(int, options.megabytes.split(",")):
        for as_one in (False, True):
            with tempfile.TemporaryDirectory() as name:
                write_corpus(Path(name), megabytes * 1_000_000, as_one)
                print(f"{megabytes} MB, {'one file' if as_one else 'many files'}", flush=True)
                command = [sys.executable, "-m", "bench.memory", "--measure", name]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
