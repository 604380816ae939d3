"""All benchmarks, one after the other: `make bench`."""

from __future__ import annotations

import subprocess
import sys

COMMANDS = (
    ["bench.training"],
    ["bench.training", "--size", "baby", "--rounds", "3"],
    ["bench.saving"],
    ["bench.page"],
    ["bench.cost"],
    ["bench.minutes", "--minutes", "0.5", "--rounds", "1"],
    ["bench.defaults", "--seeds", "1"],
    ["bench.transfer"],
    ["bench.sampling"],
    ["bench.byte_pairs"],
    ["bench.readers"],
    ["bench.duplicates"],
    ["bench.memory", "--megabytes", "10,100"],
    ["bench.store", "--megabytes", "10,100"],
    ["bench.leakage"],
    ["bench.goldfish"],
    ["bench.tuning", "replay"],
    ["bench.planning"],
    ["bench.planning", "--starvation"],
    ["bench.cluster"],
    ["bench.gloo"],
)


def main() -> None:
    for module, *options in COMMANDS:
        print(f"\n== python -m {module} {' '.join(options)}", flush=True)
        subprocess.run([sys.executable, "-m", module, *options], check=True)


if __name__ == "__main__":
    main()
