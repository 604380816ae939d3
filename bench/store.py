"""What a store of tokens costs, by the size of the text, and how much memory it takes.

    python -m bench.store --megabytes 10,100,1000 --workers 1,2

Documents of about a kilobyte, each different, in files of 50 MB of JSON lines: 1,000 MB are a
million documents. Each store is made by `folio tokens` in processes of their own; processor time is
that of all of them, memory that of the largest. The vocabulary of 8,192 is learned once, before;
`again` is the same command when there is nothing left to make.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bench.standard_library import standard_library
from folio.console import table
from folio.tokenizers.config import TokenizerConfig, train_tokenizer

LIBRARY_BYTES = 6_000_000
FILE_BYTES = 50_000_000
DOCUMENT_CHARACTERS = 1000


class Cost(NamedTuple):
    seconds: float
    processor_seconds: float
    largest_bytes: int


def write_documents(folder: Path, n_bytes: int) -> int:
    """Write documents into files; returns how many there are."""
    draw = random.Random(1)
    library = "".join(standard_library(LIBRARY_BYTES).values())

    def lines():
        while True:
            begin = draw.randrange(len(library) - 2 * DOCUMENT_CHARACTERS)
            stop = begin + draw.randrange(DOCUMENT_CHARACTERS // 2, 3 * DOCUMENT_CHARACTERS // 2)
            yield json.dumps({"text": f"{draw.random()} {library[begin:stop]}"}) + "\n"

    coming, n = lines(), 0
    for number in range(-(-n_bytes // FILE_BYTES)):
        left = min(FILE_BYTES, n_bytes - number * FILE_BYTES)
        with (folder / f"{number:05}.jsonl").open("w", encoding="utf-8") as file:
            while left > 0:
                block = list(islice(coming, 1000 if left > 2_000_000 else 1))
                left -= file.write("".join(block))
                n += len(block)
    return n


def cost_of(*command: str) -> Cost:
    """Run a command of folio."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "folio", *command])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    seconds = time.monotonic() - began
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", default="10,100,1000")
    parser.add_argument("--workers", default="1,2")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        vocabulary = Path(name, "tok.json")
        config = TokenizerConfig(kind="bpe", vocab_size=8192)
        train_tokenizer(config, [standard_library(LIBRARY_BYTES).values()]).save(vocabulary)
        for megabytes in map(int, options.megabytes.split(",")):
            with tempfile.TemporaryDirectory(dir=name) as sources:
                n_documents = write_documents(Path(sources), megabytes * 1_000_000)
                for workers in options.workers.split(","):
                    with tempfile.TemporaryDirectory(dir=name) as store:
                        command = ("tokens", sources, "--into", store, "--workers", workers)
                        command = (*command, "--tokenizer.path", str(vocabulary))
                        made, again = cost_of(*command), cost_of(*command)
                    gigabytes = megabytes / 1000
                    rows.append(
                        [
                            f"{megabytes:,}",
                            f"{n_documents:,}",
                            workers,
                            f"{made.seconds:.1f}",
                            f"{made.processor_seconds:.1f}",
                            f"{made.processor_seconds / gigabytes:.0f}",
                            f"{made.largest_bytes / 1e6:.0f}",
                            f"{again.seconds:.1f}",
                        ]
                    )
    names = ["MB", "documents", "workers", "s", "processor s", "processor s/GB", "MB RAM", "again"]
    print(table(names, rows))


if __name__ == "__main__":
    main()
