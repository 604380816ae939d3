"""Duplicates and split of a large corpus: seconds and memory.

    python -m bench.duplicates --megabytes 100

Documents of invented words, one in ten of them a near copy, are written to a folder and read like
any corpus. With --rensa, the signatures of a twentieth are timed against rensa's.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path


def write_corpus(folder: Path, n_bytes: int) -> int:
    """Write documents of 1 to 9 kB; how many."""
    random_ = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(random_.choices(letters, k=random_.randint(2, 9))) for _ in range(30_000)]
    weights = [1 / (rank + 10) for rank in range(len(vocabulary))]
    count = 0
    while n_bytes > 0:
        words = random_.choices(vocabulary, weights, k=random_.randint(200, 1500))
        versions = [words]
        if random_.random() < 0.1:
            near = list(words)
            for _ in range(len(near) // 60):
                near[random_.randrange(len(near))] = "changed"
            versions.append(near)
        for version in versions:
            lines = (" ".join(version[i : i + 12]) for i in range(0, len(version), 12))
            path = folder / f"{count // 1000:03d}" / f"{count:06d}.txt"
            path.parent.mkdir(exist_ok=True)
            n_bytes -= path.write_text("\n".join(lines), encoding="utf-8")
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rensa", action="store_true", help="time rensa on a twentieth too")
    options = parser.parse_args()
    from folio.corpus.corpus import CorpusConfig, read_documents
    from folio.corpus.duplicates import DuplicatesConfig, find_families
    from folio.corpus.leakage import measure_leakage
    from folio.corpus.split import split_documents

    with tempfile.TemporaryDirectory() as name:
        count = write_corpus(Path(name), options.megabytes * 1_000_000)
        begin = time.perf_counter()
        documents = read_documents([name], CorpusConfig()).documents
        read, cpu_before = time.perf_counter(), time.process_time()
        families = find_families(documents, DuplicatesConfig())
        split = split_documents(documents, "clusters", 0.1, families.of)
        done, cpu = time.perf_counter(), time.process_time()
        leakage, _ = measure_leakage(split.training, split.validation)
        measured = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        several = families.record()["families_of_several"]
        print(f"{count:,} documents, {several:,} families of several, kind {split.kind}")
        print(
            f"read {read - begin:.1f} s; duplicates and split {done - read:.1f} s "
            f"({cpu - cpu_before:.1f} s of processor time); leakage "
            f"{measured - done:.1f} s ({leakage.grams:.2%} of 13 words); peak {peak:.2f} GB"
        )
        if options.rensa:
            compare_with_rensa([d.text for d in documents[: count // 20]])


def compare_with_rensa(texts: list[str]) -> None:
    """Signatures and buckets alone, on one thread each."""
    from rensa import RMinHash  # type: ignore[import-not-found]

    from folio.corpus.fingerprints import gram_hashes
    from folio.corpus.minhash import signature

    begin = time.perf_counter()
    for text in texts:
        signature(gram_hashes([text], 5))
    ours = time.perf_counter()
    for text in texts:
        words = text.split()
        minhash = RMinHash(num_perm=128, seed=42)
        minhash.update([" ".join(words[i : i + 5]) for i in range(len(words) - 4)])
        minhash.digest()
    theirs = time.perf_counter()
    print(f"signatures: Folio {ours - begin:.2f} s, rensa {theirs - ours:.2f} s")


if __name__ == "__main__":
    main()
