"""folio plan --gpus: time and memory on GPUs, and where communication costs more than it gives."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from folio.cli.overrides import settings_table, split_words
from folio.console import amount, duration, say, show, table
from folio.errors import UserError
from folio.storage import json_text

if TYPE_CHECKING:
    from folio.planning.cluster import ClusterPlan, Row
    from folio.tokenizers.config import TokenizerConfig

RATES = {"mbit": 1.25e5, "gbit": 1.25e8, "tbit": 1.25e11, "mb": 1e6, "gb": 1e9, "tb": 1e12}
"""Unit -> bytes."""
GPT2_IDS = 50_257
CHARACTERS = 128
"""Assumption: as many as a text in one alphabet has, with its marks."""
MOST_GPUS = 1_000_000
SMALL_MODEL = 100e6
"""Parameters below which predictions are too good: python -m bench.cluster."""


def show_cluster(
    words: tuple[str, ...],
    gpus: int,
    machines: int,
    gpu: str,
    link: str,
    network: str,
    json: bool,
) -> None:
    """Print the plan; arguments as in `plan`."""
    if gpus < 1 or machines < 1:
        raise UserError(
            f"--gpus and --machines must be at least 1, got {gpus} and {machines}. "
            f"For example: folio plan --gpus 8 --machines 4 --gpu h100 --size small"
        )
    if gpus * machines > MOST_GPUS:
        raise UserError(
            f"--gpus times --machines must be at most {MOST_GPUS:,}, got {gpus:,} times "
            f"{machines:,}. Nobody has measured so many."
        )
    positional, flags = split_words(words)

    from folio.planning.cluster import Cluster, plan_cluster
    from folio.planning.gpus import gpu_of
    from folio.recipe.recipe import lay_over, make_recipe, source_layers
    from folio.recipe.start import started

    if any(not word.endswith(".toml") for word in positional):
        raise UserError(
            f"folio plan --gpus takes a recipe or settings, not a text, got '{positional[0]}'. For "
            f"example: folio plan --gpus {gpus} --size small --training.max-tokens 2000000000"
        )
    given = started(lay_over(*source_layers(positional), settings_table(flags)))
    recipe = make_recipe({"size": "small"}, given)
    if not recipe.model.vocab_size:
        n_ids = vocabulary_size(recipe.tokenizer)
        recipe = make_recipe({"size": "small"}, given, {"model": {"vocab_size": n_ids}})
    card = gpu_of(gpu or "h100")
    wire = parse_rate("--link", link) if link else card.link
    cable = parse_rate("--network", network or "100Gbit")
    found = plan_cluster(recipe, Cluster(card, gpus, machines, wire, cable))
    command = shlex.join(cluster_command(found, positional, flags))
    if json:
        show(json_text(found.record() | {"command": command}, indent=2))
        return
    show(cluster_table(found, gpu or "h100"))
    if any(row.fits for row in found.rows):
        show(f"try  {command}")


def vocabulary_size(config: TokenizerConfig) -> int:
    """The ids of a tokenizer, as far as its settings tell; an assumption is reported."""
    n_ids, whose = GPT2_IDS, "as GPT-2 has"
    if config.kind == "character":
        n_ids, whose = CHARACTERS, "as many characters as a text in one alphabet has"
    if not config.vocab_size and config.kind != "gpt2":
        say(
            f"vocabulary: {n_ids:,} ids are assumed, {whose}, since no text is read. Give another "
            f"size with --model.vocab-size"
        )
    return config.vocab_size or n_ids


def cluster_command(
    found: ClusterPlan, recipes: list[str], flags: list[tuple[str, str]]
) -> list[str]:
    """The words that start the training on the fastest part of the cluster that it fits into.

    Args:
        found: the plan.
        recipes, flags: what it was asked for.
    """
    from folio.training.config import budget_steps

    part, recipe = found.best.cluster, found.recipe
    words = ["folio", "train"]
    if part.total > 1:
        meeting = "--standalone"
        if part.n_machines > 1:
            meeting = f"--nnodes {part.n_machines} --rdzv-backend c10d --rdzv-endpoint HOST:29500"
        words = f"torchrun {meeting} --nproc-per-node {part.n_gpus} -m folio train".split()
    words += [*(recipes or ["TEXT"]), "--size", recipe.size]
    others = [flag for flag in flags if flag[0] not in ("size", "training.sharding")]
    words += [word for name, value in others for word in (f"--{name}", value)]
    if not budget_steps(recipe.training, recipe.model.context_length, 0):
        words += ["--training.max-tokens", f"{found.n_tokens}"]
    if part.total > 1 and found.sharding != "none":
        words += ["--training.sharding", found.sharding]
    return words


def cluster_table(found: ClusterPlan, name: str) -> str:
    """Write the plan: what was asked, a row per number of GPUs, the verdict."""
    recipe, cluster = found.recipe, found.cluster
    model = recipe.model
    header = ["GPUs", "machines", "windows", "memory", "computing", "all-reduce", "tokens/s"]
    lines = [
        f"{recipe.preset}, {amount(model.n_layers, 'layer')} of {model.d_model}, "
        f"{model.n_parameters / 1e6:,.0f} M parameters: "
        f"{found.n_tokens / 1e9:,.2f} G tokens in batches of "
        f"{amount(recipe.training.batch_size, 'window')} of {model.context_length}",
        f"{name}, {cluster.link / 1e9:,.0f} GB/s in a machine"
        + (f", {cluster.network * 8e-9:,.0f} Gbit/s between" if cluster.n_machines > 1 else ""),
        "predicted, not measured; " + how_sure(found),
        "",
        table([*header, "efficiency", "time"], [_cells(found, row) for row in found.rows]),
        "",
        *_memory_lines(found),
        found.verdict(),
    ]
    return "\n".join(lines)


def _memory_lines(found: ClusterPlan) -> list[str]:
    """A table of what each GPU needs by what they divide; none for one GPU."""
    shared = [row for row in found.rows if row.cluster.total > 1]
    if not shared:
        return []
    choices, room = shared[0].memory_by_sharding, found.cluster.gpu.memory_bytes
    rows = [
        [f"{row.cluster.total:,}", *(_gigabytes(x, room) for x in row.memory_by_sharding.values())]
        for row in shared
    ]
    return [
        f"memory of a GPU of {room / 1e9:.0f} GB, by training.sharding",
        table(["GPUs", *choices], rows),
        "",
    ]


def how_sure(found: ClusterPlan) -> str:
    """How far off published figures were (bench/cluster.py), in words."""
    if found.recipe.model.n_parameters < SMALL_MODEL:
        return "small models may take more than twice as long"
    if not found.cluster.gpu.is_checked:
        return "no published run on this card was compared"
    return "of published runs most were within 13 %"


def _cells(found: ClusterPlan, row: Row) -> list[str]:
    split = "" if row.windows_at_once == row.windows else f" by {row.windows_at_once}"
    return [
        f"{row.cluster.total:,}",
        f"{row.cluster.n_machines:,}",
        f"{row.windows}{split}",
        _gigabytes(row.memory_bytes, found.cluster.gpu.memory_bytes),
        _milliseconds(row.cost.computing),
        _milliseconds(row.cost.all_reduce),
        f"{row.tokens_per_second:,.0f}",
        f"{found.efficiency(row):.0%}",
        duration(row.hours * 3600),
    ]


def _gigabytes(n_bytes: float, room: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB{' !' if n_bytes > room else ''}"


def _milliseconds(seconds: float) -> str:
    digits = 0 if seconds >= 0.1 else 1
    return f"{seconds * 1e3:,.{digits}f} ms"


def parse_rate(flag: str, text: str) -> float:
    """Parse a bandwidth such as 100Gbit or 20GB, to bytes per second.

    Raises:
        UserError: it is not a number above 0 with a unit.

    >>> parse_rate("--network", "100Gbit"), parse_rate("--link", "20 GB/s")
    (12500000000.0, 20000000000.0)
    """
    parts = re.fullmatch(r"([0-9.]+) ?([MGT](?:B|bit|b))(?:/s|ps)?", text.strip(), re.IGNORECASE)
    unit = parts[2].lower() if parts else ""
    try:
        rate = float(parts[1]) * RATES[unit] if parts else 0.0
    except (ValueError, KeyError):
        rate = 0.0
    if not rate > 0:
        raise UserError(f"{flag} must be a bandwidth such as 100Gbit or 20GB, got '{text}'.")
    return rate
