"""folio plan: which size suits this text, this machine and the available time."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from folio.cli.overrides import Words, from_a_run, settings_table, split_words
from folio.config import Table
from folio.console import amount, few_digits, say, show, table
from folio.errors import UserError
from folio.storage import json_text
from folio.training.config import check_budget

if TYPE_CHECKING:
    from folio.planning.plan import Plan, Row
    from folio.planning.starvation import Starvation
    from folio.recipe.prepare import Prepared
    from folio.recipe.recipe import Recipe

MINUTES = 60.0
UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "MIB": 2**20, "GIB": 2**30}


def plan(
    *corpus: Words,
    minutes: float = MINUTES,
    memory: str = "",
    from_run: Annotated[str | None, Parameter(name="--from")] = None,
    starvation: bool = False,
    gpus: int = 0,
    machines: int = 1,
    gpu: str = "",
    size: str = "",
    link: str = "",
    network: str = "",
    json: bool = False,
) -> None:
    """Plan before you train: folio plan CORPUS [--minutes 60] [--memory 8GB]

    Measures this machine and this text, for a minute at most, and predicts memory, speed and loss
    of each size. Settings are flags, as for folio train: --preset gpt2, --model.context-length 128.

    With --gpus it takes a recipe or settings in place of a text, measures nothing, and predicts
    time and memory on GPUs that you do not have.

    Args:
        corpus: Text, as for folio train.
        minutes: How long the training may take.
        memory: How much memory it may take, such as 8GB; by default all of the machine's.
        from_run: Begin with the weights of a run, as folio train --from does.
        starvation: Also train a small model on parts of the text, for some minutes, to see what
            more text would give.
        gpus: GPUs in each machine, for which time and memory are predicted: up to 8 or so.
        machines: Machines, each with so many GPUs.
        gpu: Kind of GPU, such as h100, a100, 4090 or t4; by default h100.
        size: Size of the model on the GPUs, by default small. Without --gpus all are compared.
        link: Bandwidth between GPUs of a machine, such as 20GB a second; by default that of the
            GPU.
        network: Bandwidth of each machine's network, such as 100Gbit a second, the default.
        json: Print JSON.
    """
    if gpus or machines != 1 or gpu or link or network:
        from folio.cli.plan_cluster import show_cluster

        if memory or from_run is not None or starvation or minutes != MINUTES:
            raise UserError(
                "folio plan --gpus measures nothing. Leave --memory, --from, --starvation and "
                "--minutes out."
            )
        words = (*corpus, "--size", size) if size else corpus
        show_cluster(words, gpus, machines, gpu, link, network, json)
        return
    check_budget("--minutes", minutes)
    positional, flags = split_words(corpus)
    _refuse_a_size(size, positional)
    layers: list[Table] = [{"corpus": {"sources": positional}}] if positional else []
    if memory:
        layers.append({"device": {"memory_gigabytes": parse_bytes(memory) / 1e9}})
    if from_run is not None:
        layers.append({"start": {"run": from_run}})
    layers.append(settings_table(flags))

    from folio.recipe.recipe import lay_over, make_recipe
    from folio.recipe.start import started

    given = started(from_a_run(lay_over(*layers)))
    recipe = make_recipe(given)
    _refuse_a_budget(given)

    # Only now, since it loads torch: mistakes are answered at once.
    from folio.planning.plan import make_plan
    from folio.recipe.prepare import prepare
    from folio.recipe.sizing import is_size_open

    prepared = prepare(recipe, say)
    if starvation and "train.mask" in prepared.files:
        raise UserError(
            "--starvation trains on all tokens of a text, and of conversations only the answers "
            "count. Leave it out."
        )
    found = make_plan(given, prepared, minutes, say)
    record = found.record()
    if not json:
        show(plan_table(found))
        show(f"\n{found.verdict()}")
        words = ["folio", "train", *positional, "--minutes", f"{minutes:g}"]
        words += [word for name, value in flags for word in (f"--{name}", value)]
        if from_run is not None:
            words += ["--from", from_run]
        elif not is_size_open(given):  # part of a shape is given, so that none would be chosen
            words += ["--size", found.best.recipe.size]
        if memory:
            words += ["--device.memory-gigabytes", f"{parse_bytes(memory) / 1e9:g}"]
        show(f"try  {shlex.join(words)}")
    if starvation:
        hunger = _measure_hunger(prepared, recipe)
        record["starvation"] = hunger.record()
        if not json:
            show("\n" + "\n".join(hunger.lines()))
    if json:
        show(json_text(record, indent=2))


def _refuse_a_size(size: str, positional: list[str]) -> None:
    if size:
        raise UserError(
            "folio plan compares all sizes on a text. Leave --size out, or add --gpus 1 for a plan "
            "without a text."
        )
    for word in positional:
        if word.endswith(".toml"):
            raise UserError(
                f"folio plan compares sizes on a text, and a recipe has its size, got '{word}'. "
                f"Name the text, or add --gpus 1 to plan the recipe."
            )


def _measure_hunger(prepared: Prepared, recipe: Recipe) -> Starvation:
    from folio.planning.starvation import measure_starvation
    from folio.recipe.build import choose_for

    texts = prepared.training(), prepared.validation()
    return measure_starvation(*texts, prepared.tokenizer.vocab_size, choose_for(recipe), say)


def _refuse_a_budget(given: Table) -> None:
    from folio.recipe.recipe import BUDGETS

    if budgets := [name for name in BUDGETS if name in given.get("training", {})]:
        flag = f"--training.{budgets[0].replace('_', '-')}"
        raise UserError(f"folio plan says what --minutes give. Leave {flag} out.")


def plan_table(found: Plan) -> str:
    """A table with one row per size."""
    header = ["size", "parameters", "memory", "tokens/s", "tokens", "epochs", "predicted loss"]
    limit = found.memory_limit
    lines = [
        f"{found.n_training:,} tokens to train on, {amount(found.minutes, 'minute')}, "
        f"{f'{limit / 1e9:.1f} GB of' if limit else 'unknown'} memory; loss in nats per token, "
        f"roughly",
        "",
        table(header, [_cells(row) for row in found.rows]),
    ]
    if not all(row.candidate.measured for row in found.rows):
        lines.append("* not tried here; follows from the size above it")
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    size, epochs = row.candidate, row.candidate.epochs
    return [
        size.recipe.size,
        f"{size.recipe.model.n_parameters / 1e6:.1f} M",
        f"{size.memory_bytes / 1e9:.2f} GB" if size.memory_bytes else "-",
        f"{size.tokens_per_second:,.0f}{'' if size.measured else ' *'}",
        f"{size.n_tokens / 1e6:,.1f} M",
        few_digits(epochs),
        f"{row.loss:.2f} ± {row.loss_band:.2f}" if row.loss else "-",
    ]


def parse_bytes(text: str) -> float:
    """Parse a size such as 8GB, to bytes.

    Raises:
        UserError: it is not a number with a unit.

    >>> parse_bytes("8GB"), parse_bytes("1.5 GiB")
    (8000000000.0, 1610612736.0)
    """
    number = text.rstrip("BGIKMTbgikmt ")
    unit = text[len(number) :].strip().upper()
    try:
        return float(number) * UNITS[unit]
    except (ValueError, KeyError):
        raise UserError(f"--memory must be a size such as 8GB or 500MB, got '{text}'.") from None
