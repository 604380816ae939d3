"""How far off the predictions of `folio plan --gpus` are, from speeds that others published.

    python -m bench.cluster             # predicted by published, one row a figure
    python -m bench.cluster --fit       # the constants, fitted anew to the rows marked with a star

Nothing is computed on a GPU. Rows without a star were not looked at when the constants were fitted.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.published import ALL_REDUCES, RUNS, Published, Sent
from folio.console import table
from folio.planning import gpus
from folio.planning.gpus import Generation
from folio.planning.step_cost import COMPILED, all_reduce_seconds, computing

NEAR = 0.13
"""Share of a figure within which a prediction is called near."""


def main() -> None:
    parser = argparse.ArgumentParser(description="How far off folio plan --gpus is.")
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    if options.fit:
        print(table(["constant", "fitted"], fit()))
        return
    header = ["figure", "published", "predicted", "ratio", ""]
    print(table(header, [run_cells(run) for run in RUNS]))
    for title, rows in (
        ("all", RUNS),
        ("fitted (*)", [run for run in RUNS if run.is_fitted]),
        ("held out", [run for run in RUNS if not run.is_fitted]),
    ):
        print(summary(title, [math.log(ratio(run)) for run in rows]))
    print("\n" + table(["all-reduce", "bytes", "published", "predicted", "ratio"], sent_rows()))
    print(summary("all", [math.log(sent_seconds(sent) / measured(sent)) for sent in ALL_REDUCES]))


def summary(title: str, errors: Sequence[float]) -> str:
    """How large the errors are, which are logarithms of ratios."""
    off = np.abs(np.expm1(errors))
    near = int((off < NEAR).sum())
    rms = math.sqrt(np.square(errors).mean())
    return (
        f"{title}: {near} of {len(off)} within {NEAR:.0%}, median {np.median(off):.1%}, rms "
        f"{rms:.1%}, worst {off.max():.0%}"
    )


def run_cells(run: Published) -> list[str]:
    model, card = run.model, next(n for n, gpu in gpus.GPUS.items() if same_card(gpu, run.gpu))
    name = f"{run.program}, {card}, {model.n_parameters / 1e6:,.0f} M, T {model.context_length}"
    star = "*" if run.is_fitted else ""
    found = predicted(run)
    return [
        name,
        f"{run.tokens_per_second:,.0f}",
        f"{found:,.0f}",
        f"{found / run.tokens_per_second:.2f}",
        star,
    ]


def same_card(one: gpus.Gpu, other: gpus.Gpu) -> bool:
    return replace(one, bandwidth=0.0) == replace(other, bandwidth=0.0)


def ratio(run: Published) -> float:
    return predicted(run) / run.tokens_per_second


def predicted(run: Published) -> float:
    """Tokens per second of one GPU."""
    n_tokens = run.windows * run.parts * run.model.context_length
    cost = computing(run.model, run.gpu, n_tokens, run.parts, run.kernels)
    cost = replace(cost, products=cost.products * (1 + run.recomputed))
    return n_tokens / cost.computing


def sent_seconds(sent: Sent) -> float:
    return all_reduce_seconds(sent.n_bytes, sent.n_gpus, sent.n_machines, sent.link, sent.network)


def measured(sent: Sent) -> float:
    """Seconds of an all-reduce."""
    return 2 * (sent.n_gpus - 1) / sent.n_gpus * sent.n_bytes / sent.bus


def sent_rows() -> list[list[str]]:
    rows = []
    for sent in ALL_REDUCES:
        found, known = sent_seconds(sent), measured(sent)
        cells = [f"{seconds * 1e3:,.2f} ms" for seconds in (known, found)]
        rows.append([sent.what, f"{sent.n_bytes / 1e6:,.0f} MB", *cells, f"{found / known:.2f}"])
    return rows


NAMES = (
    "AMPERE.product_share",
    "AMPERE.attention_share",
    "HOPPER.product_share",
    "HOPPER.attention_share",
    "COMPILED.block_bytes",
    "PLAIN.block_bytes",
)


def errors_of(constants: NDArray[np.float64], runs: Sequence[Published]) -> NDArray[np.float64]:
    """Logarithms of predicted by published, with other constants."""
    generations = {
        gpus.AMPERE: Generation(constants[0], constants[1]),
        gpus.HOPPER: Generation(constants[2], constants[3]),
    }
    changed = [
        replace(
            run,
            gpu=replace(run.gpu, generation=generations[run.gpu.generation]),
            kernels=replace(run.kernels, block_bytes=constants[4 + (run.kernels is not COMPILED)]),
        )
        for run in runs
    ]
    return np.array([math.log(ratio(run)) for run in changed])


def fit() -> list[list[str]]:
    """Fit the constants by least squares, figures far off counting less (Gauss and Newton)."""
    runs = [run for run in RUNS if run.is_fitted]
    found = np.array([0.8, 0.3, 0.7, 0.2, 100.0, 310.0])
    for _ in range(60):
        errors = errors_of(found, runs)
        weight = 1 / (1 + (errors / 0.05) ** 2) ** 0.25
        slopes = np.stack(
            [
                (errors_of(found * np.where(np.arange(len(found)) == i, 1.001, 1.0), runs) - errors)
                / 0.001
                for i in range(len(found))
            ],
            axis=1,
        )
        step, *_ = np.linalg.lstsq(weight[:, None] * slopes, -weight * errors, rcond=None)
        found = found * np.exp(np.clip(step, -0.2, 0.2))
    return [[name, f"{value:.4g}"] for name, value in zip(NAMES, found)]


if __name__ == "__main__":
    main()
