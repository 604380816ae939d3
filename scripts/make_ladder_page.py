"""Write docs/ladder.md and its pictures from what was measured.

    folio ladder all --seeds 3 --json > docs/ladder/steps.json
    folio ladder 9 --json > docs/ladder/ablation.json
    folio ladder 9 --minutes 0.75 --json > docs/ladder/ablation-time.json
    folio tune recipes/tune-baby.toml ... --json > docs/ladder/study.json    (the rest stands there)
    python scripts/make_ladder_page.py

No number on the page is typed: losses come from the four files, tensors are computed here.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from folio.config import read_toml
from folio.ladder import scaled_up
from folio.ladder.ablation import BASE, MAX_STEPS
from folio.ladder.sizes import Sizes
from folio.ladder.step1_head import Head
from folio.ladder.steps import COURSE, STEPS
from folio.pictures import Dots, draw_dots
from folio.recipe.recipe import make_recipe
from folio.tokenizers.character import CharacterTokenizer

DOCS = Path(__file__).parents[1] / "docs"
RECIPES = DOCS.parent / "recipes"
TEXT = "First Citizen"

Record = dict[str, Any]


def main() -> None:
    steps = json.loads((DOCS / "ladder" / "steps.json").read_text(encoding="utf-8"))
    rows = json.loads((DOCS / "ladder" / "ablation.json").read_text(encoding="utf-8"))
    timed = json.loads((DOCS / "ladder" / "ablation-time.json").read_text(encoding="utf-8"))
    study = json.loads((DOCS / "ladder" / "study.json").read_text(encoding="utf-8"))
    (DOCS / "ladder.md").write_text(page(steps, rows, timed, study), encoding="utf-8")
    draw_dots(
        DOCS / "ladder" / "steps.svg",
        [Dots(f"{r['step']}  {r['idea']}", r["validation_losses"], r["expected"]) for r in steps],
        title="One idea at a time",
        x_label="validation loss (nats per character)",
        expected_label=COURSE,
    )
    draw_dots(
        DOCS / "ladder" / "ablation.svg",
        [Dots(r["what"], r["validation_losses"]) for r in rows],
        title="What newer papers changed",
        x_label="validation loss (nats per character)",
        level=("GPT-2's block", rows[0]["mean"]),
    )


def page(steps: list[Record], rows: list[Record], timed: list[Record], study: Record) -> str:
    """docs/ladder.md."""
    parts = [beginning(), attention(), climbing(steps), scaling_up(study), later(rows)]
    parts.append(at_equal_time(timed))
    return "\n\n".join(line for part in parts for line in part) + "\n"


def beginning() -> list[str]:
    tokenizer = CharacterTokenizer.train([TEXT])
    token_ids = tokenizer.encode(TEXT).tolist()
    size = Sizes(vocab_size=0).context_length
    examples = [
        f"{TEXT[: i + 1]!r:12} -> {TEXT[i + 1]!r}    {token_ids[: i + 1]} -> {token_ids[i + 1]}"
        for i in range(size)
    ]
    return [
        "# The ladder: from a table to a GPT, one idea at a time",
        "Written by `scripts/make_ladder_page.py` from runs; no number here is typed. "
        "`folio ladder` lists the steps, `folio ladder 3` trains step 3 and lets it write, "
        "`folio ladder all` trains 0 to 6 in minutes on one processor thread. "
        "`folio ladder --page` makes a page of a training of yours, with the code of each step "
        "beside the one before and exercises; `folio ladder check 2 my_heads.py` tests your own "
        "version of a step.",
        "## What is learned",
        f"A text is cut into characters, and each has a number. A window of {size} characters "
        f"holds {size} examples, since the model predicts after each of them:",
        block(examples),
        "The loss is the mean surprisal of the true next character: -ln(probability given to it), "
        "in nats. A model that knows nothing of 65 characters has ln 65 = "
        f"{torch.tensor(65.0).log().item():.2f}.",
    ]


def attention() -> list[str]:
    """The triangle, of a head that has not learned anything yet."""
    n, sizes = 5, Sizes(vocab_size=0)
    torch.manual_seed(1)
    head, x = Head(sizes, head_dim=sizes.head_dim), torch.randn(1, n, sizes.d_model)
    with torch.no_grad():
        scores = (head.q_proj(x) @ head.k_proj(x).transpose(1, 2) / sizes.head_dim**0.5)[0]
        masked = scores.masked_fill(head.lower_triangle[:n, :n] == 0, float("-inf"))
        weights = masked.softmax(dim=1)
        assert torch.allclose(weights @ head.v_proj(x)[0], head(x)[0], atol=1e-6)
    return [
        "## Attention is a weighted mean of what came before",
        f"Here is one head of `src/folio/ladder/step1_head.py`, untrained, on {n} positions. Each "
        f"row is a query, each column a key. First the scores, query times key:",
        block(matrix(scores)),
        "Then the mask: a position does not see what comes after it.",
        block(matrix(masked)),
        "Then the softmax, which makes each row sum to 1. The head gives the mean of the values "
        "by these weights.",
        block(matrix(weights)),
        '`folio explain RUN --text "..."` shows the same of any trained model, layer by layer.',
    ]


def climbing(steps: list[Record]) -> list[str]:
    seeds = len(steps[0]["seeds"])
    lines = [
        "## The steps",
        f"Batch 32, context 8, width 32, AdamW, 5000 steps, characters of tiny Shakespeare. "
        f"Validation is exact: the whole held-out tenth once. Mean and deviation of {seeds} seeds. "
        f"The steps are those of {COURSE}, whose losses are as it reports them.",
        f"| step | parameters | validation loss | {COURSE} | the idea |\n"
        "| --- | --- | --- | --- | --- |\n"
        + "\n".join(
            f"| [{r['step']}](../src/folio/ladder/{STEPS[r['step']].module}.py) "
            f"| {r['parameters']:,} | {spread(r['validation_losses'])} | {r['expected']} "
            f"| [{r['idea']}]({r['source']}) |"
            for r in steps
        ),
        "![Validation loss of each step beside the course's](ladder/steps.svg)",
    ]
    for before, record in pairwise(steps):
        change = mean(record["validation_losses"]) - mean(before["validation_losses"])
        lines.append(f"**Step {record['step']}**, {record['idea']}: {change:+.3f}. "
                     f"{LESSONS[record['step']]}")  # fmt: skip
    lines += [
        "### Where this differs from the course",
        "\n".join(f"- {line}" for line in DIFFERENCES),
    ]
    return lines


LESSONS = {
    1: "Looking back more than one character pays at once.",
    2: "With as many parameters as before: four patterns are worth more than a wide one.",
    3: "A position does something with what it gathered. Little, since it has little room.",
    4: "Three times as deep, and no better: each block can only pass on what it makes.",
    5: "The big step. The same depth, now trainable, and a wider layer to think in.",
    6: "Small here, with three blocks; with more it decides whether a model trains at all.",
}

DIFFERENCES = (
    "The vocabulary has two more ids, for unknown characters and the end of a document.",
    "Windows are read without replacement, each character once an epoch; the course draws them at "
    "random. Its losses are means over 200 random batches, these are of the whole held-out text.",
    "Scores are divided by the square root of the head's width, as in the paper. Step 2 comes out "
    "better than the course's; assumption: its scores are divided by that of the model's width.",
    "Step 0 has a learning rate of 1e-2: its rows start far from where they must go, and each "
    "moves only when its character comes up.",
)


def scaling_up(study: Record) -> list[str]:
    baby = make_recipe(scaled_up.SETTINGS)
    small = make_recipe(read_toml(RECIPES / "tune-baby.toml"))
    model, training = baby.model, baby.training
    rows = {row["number"]: row for row in study["rows"]}
    best = [rows[number] for number in study["best"]]
    values = best[0]["values"]
    times = model.d_model / small.model.d_model
    pruned = sum(row["state"] == "pruned" for row in rows.values())
    return [
        "## Step 7: scaled up, with dropout",
        f"`folio ladder 7`, or `recipes/shakespeare-baby.toml`: {model.n_layers} layers, "
        f"{model.n_heads} heads, width {model.d_model}, context {model.context_length}, dropout "
        f"{model.residual_dropout}, batch {training.batch_size}, {training.max_steps:,} steps. The "
        f"course reaches {scaled_up.EXPECTED}. That is hours on a CPU and minutes on a GPU, so it "
        f"measures and says how long before it starts; `--minutes 10` makes it short.",
        f"Where do such settings come from? From a study of something smaller: the same block "
        f"with {best[0]['parameters']:,} parameters, on as much less text, read "
        f"{small.training.max_epochs:.0f} times (`recipes/tune-baby.toml` has the command). "
        f"{len(rows)} trials, {pruned} of them stopped early; those that ran to their end:",
        "| trial | learning rate | residual dropout | attention dropout | loss | seeds |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {row['number']} | {row['values']['optimizer.learning_rate']:.2g} "
            f"| {row['values']['model.residual_dropout']:.1f} "
            f"| {row['values']['model.attention_dropout']:.1f} "
            f"| {mean(row['losses'] or [row['loss']]):.4f} | {len(row['losses']) or 1} |"
            for row in best
        ),
        f"Another seed moves the loss by ±{study['noise']:.4f}. The rate is what matters "
        f"({100 * study['importances']['optimizer.learning_rate']:.0f} % of what sets the better "
        f"half apart); with the right one, dropout of the attention helps more than of the "
        f"residual path. The best rate is for a width of {small.model.d_model}. If it falls as "
        f"the width grows, it is {values['optimizer.learning_rate'] / times:.1e} at "
        f"{model.d_model}, where the course has {baby.optimizer.learning_rate:.0e}.",
    ]


def later(rows: list[Record]) -> list[str]:
    base = make_recipe(BASE)
    shape = base.model
    seeds = len(rows[0]["validation_losses"])
    groups = {verdict: [r for r in rows if r.get("verdict") == verdict] for verdict in VERDICTS}
    return [
        "## Step 8: text without end",
        "`folio ladder 8` lets that model write until Ctrl-C; `folio sample --forever` any other.",
        "## Step 9: what newer papers changed",
        f"From GPT-2's block, one change at a time: {shape.n_layers} layers, width "
        f"{shape.d_model}, context {shape.context_length}, {MAX_STEPS:,} steps each at the same "
        f"rate and order of reading, {seeds} seeds; Muon has a rate of its own for its matrices, "
        f"{base.optimizer.matrix_learning_rate}. `folio ladder 9 --only rope` repeats a row. The "
        f"same steps are not the same time, the rate was not tuned for each row, and other sizes "
        f"may differ. The last rows are what was kept of it, n-grams of the training text, which "
        f"are counted once the model is trained, and both. The loss beside n-grams is that of "
        f"model and n-grams together, each half of the held-out text by weights from the other "
        f"half; what was counted is not among the parameters.",
        ablation(rows),
        "![Validation loss of each change beside the baseline](ladder/ablation.svg)",
        *(
            f"**{verdict.capitalize()}**: {'; '.join(r['what'] for r in found)}."
            for verdict, found in groups.items()
            if found
        ),
        "A difference counts where it is above three standard errors (more where few seeds say "
        "how large they are), the deviation between seeds "
        "pooled over all rows.",
    ]


def at_equal_time(rows: list[Record]) -> list[str]:
    minutes = f"{rows[0]['minutes']:.15g}"
    seeds = len(rows[0]["validation_losses"])
    return [
        "### At equal time",
        f"`folio ladder 9 --minutes {minutes}` trains each row for {minutes} minutes in place of "
        f"{MAX_STEPS:,} steps, {seeds} seeds. The time is that of the whole run, from reading the "
        f"text to the card, with the evaluation and the counting of n-grams, so that a row whose "
        f"step takes longer makes fewer of them. Rows at equal time depend on the machine and on "
        f"what else runs on it.",
        ablation(rows, timed=True),
    ]


def ablation(rows: list[Record], timed: bool = False) -> str:
    """The table of step 9, with the mean number of steps where the time was equal."""
    columns = ["change", "parameters", "validation loss", "difference", "seen"]
    cells = [
        [
            f"[{r['what']}]({r['source']})",
            f"{r['parameters']:,}",
            spread(r["validation_losses"]),
            f"{r['difference']:+.3f}" if "difference" in r else "",
            r.get("verdict", ""),
        ]
        for r in rows
    ]
    if timed:
        columns.insert(2, "steps")
        for row, r in zip(cells, rows, strict=True):
            row.insert(2, f"{mean(r['steps']):,.0f}")
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


VERDICTS = ("helps", "hurts", "no difference seen")


def spread(losses: list[float]) -> str:
    return f"{mean(losses):.4f} ± {stdev(losses):.4f}"


def matrix(values: torch.Tensor) -> list[str]:
    return [" ".join(f"{value:6.2f}" for value in row) for row in values.tolist()]


def block(lines: list[str]) -> str:
    return "\n".join(["```text", *lines, "```"])


if __name__ == "__main__":
    main()
