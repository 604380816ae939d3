"""folio plan --gpus: a table and a verdict, without a text and without a measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from folio.cli.plan_cluster import parse_rate
from folio.errors import UserError
from tests.cli.conftest import Folio

GPT2 = ["--preset", "gpt2", "--size", "small", "--training.batch-size", "64"]


def test_a_table_has_a_row_for_each_number_of_gpus(folio: Folio):
    page = folio("plan", "--gpus", "8", "--machines", "2", "--network", "10Gbit", *GPT2).out
    lines = page.splitlines()
    assert lines[0].startswith("gpt2, 12 layers of 768, 124 M parameters: 2.49 G tokens in batches")
    assert lines[1] == "h100, 365 GB/s in a machine, 10 Gbit/s between"
    numbers = [line.split()[0] for line in lines[5:10]]
    assert numbers == ["1", "2", "4", "8", "16"]
    assert lines[-2].startswith("8 GPUs are fastest with this batch of 64 windows; from 16 on")
    assert lines[-1] == (
        "try  torchrun --standalone --nproc-per-node 8 -m folio train TEXT --size small "
        "--preset gpt2 --training.batch-size 64 --training.max-tokens 2488796160"
    )


XL = "--model.n-layers 48 --model.d-model 1600 --model.n-heads 25 --training.max-tokens 1000000"


def test_the_memory_of_each_sharding_is_told_and_the_command_takes_the_first_that_fits(
    folio: Folio,
):
    asked = [*GPT2, *XL.split(), "--training.sharding", "none"]
    lines = folio("plan", "--gpus", "4", "--gpu", "4090", *asked).out.splitlines()
    where = lines.index("memory of a GPU of 24 GB, by training.sharding")
    assert lines[where + 1].split() == ["GPUs", "none", "optimizer", "full"]
    of_two, of_four = (line.split() for line in lines[where + 2 : where + 4])
    assert (of_two[0], of_four[0]) == ("2", "4")
    assert of_two.count("!") == 2, "none and optimizer do not fit"
    assert "with --training.sharding full, each of 2 has" in lines[-2]
    flags = [*GPT2[:2], *GPT2[4:], *XL.split()]
    assert lines[-1].split("train TEXT ")[1].split() == [
        "--size", "small", *flags, "--training.sharding", "full",
    ]  # fmt: skip
    record = json.loads(folio("plan", "--gpus", "4", "--gpu", "4090", "--json", *asked).out)
    assert record["sharding"] == "full" and record["command"] in lines[-1]


def test_several_machines_meet_at_one_of_them(folio: Folio):
    words = ["--gpus", "8", "--machines", "2", "--network", "3200Gbit", "--json", *GPT2]
    command = json.loads(folio("plan", *words).out)["command"]
    assert command.startswith(
        "torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST:29500 --nproc-per-node 8 -m "
    )


def test_what_fits_nowhere_has_no_command(folio: Folio):
    page = folio("plan", "--gpus", "1", "--gpu", "t4", *GPT2, *XL.split()).out
    assert "each GPU holds the whole model" in page and "try " not in page


def test_json_has_the_same(folio: Folio):
    words = ["--gpus", "2", "--gpu", "4090", "--link", "10GB", "--json", *GPT2]
    record = json.loads(folio("plan", *words).out)
    assert [row["gpus"] for row in record["gpus"]] == [1, 2]
    slow = record["gpus"][1]["parts_seconds"]["all_reduce"]
    assert slow == pytest.approx(4 * record["parameters"] / 10e9, rel=0.01)


def test_a_recipe_is_planned_as_it_is(folio: Folio, tmp_path: Path):
    path = tmp_path / "ours.toml"
    path.write_text('preset = "gpt2"\nsize = "mini"\n[training]\nbatch_size = 7\nmax_steps = 10\n')
    record = json.loads(folio("plan", str(path), "--gpus", "1", "--json").out)
    assert record["batch_size"] == 7 and record["tokens"] == 7 * 256 * 10
    more = {"training.batch-size": 9, "training.max-tokens": 2304, "model.vocab-size": 100}
    flags = [f"--{name}={value}" for name, value in more.items()]
    other = json.loads(folio("plan", str(path), "--gpus", "1", "--json", *flags).out)
    assert other["batch_size"] == 9 and other["tokens"] == 9 * 256 * 1
    assert other["parameters"] < record["parameters"]


@pytest.mark.parametrize(
    ("flags", "n_ids", "assumed"),
    [
        ("", 50257, "50,257 ids are assumed"),
        ("--tokenizer.kind character", 128, "128 ids are assumed"),
        ("--tokenizer.kind gpt2", 50257, ""),
        ("--tokenizer.kind bpe --tokenizer.vocab-size 1000", 1000, ""),
    ],
)
def test_a_vocabulary_that_no_setting_tells_is_assumed_and_said(
    folio: Folio, flags: str, n_ids: int, assumed: str
):
    words = ["plan", "--gpus", "1", "--size", "nano", "--json", *flags.split()]
    answer, exact = folio(*words), folio(*words, "--model.vocab-size", str(n_ids))
    assert json.loads(answer.out)["parameters"] == json.loads(exact.out)["parameters"]
    assert assumed in answer.err if assumed else not answer.err
    assert not exact.err


def test_small_models_and_cards_without_a_run_are_told(folio: Folio):
    assert "may take more than twice as long" in folio("plan", "--gpus", "1", "--size", "baby").out
    assert "no published run on this card" in folio("plan", "--gpus", "1", "--gpu", "t4").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--gpus 8 book.txt", "takes a recipe or settings, not a text, got 'book.txt'"),
        ("--gpus 8 --gpu h10", "Did you mean 'h100'"),
        ("--machines 2", "must be at least 1, got 0 and 2"),
        ("--gpus 2 --machines 9999999", "must be at most 1,000,000, got 2 times 9,999,999"),
        ("--gpus 2 --machines 0", "must be at least 1, got 2 and 0"),
        ("--gpus 2 --memory 8GB", "Leave --memory, --from, --starvation and --minutes"),
        ("--gpus 2 --minutes 5", "Leave --memory, --from, --starvation and --minutes out"),
        ("--gpus 2 --training.max-epochs 3", "Give --training.max-tokens, or leave the budget out"),
        ("--gpus 2 --training.minutes 5", "knows no text and keeps no clock"),
        ("--gpus 2 --network fast", "--network must be a bandwidth such as 100Gbit or 20GB"),
    ],
)
def test_mistakes_are_answered_in_a_line(folio: Folio, words: str, message: str):
    answer = folio("plan", *words.split())
    assert answer.code == 2 and message in answer.err


@pytest.mark.parametrize("text", ["", "20", "0GB", "-1GB", "1.2.3GB", "GB", "20 parsecs"])
def test_a_rate_that_is_none_is_a_mistake(text: str):
    with pytest.raises(UserError, match="must be a bandwidth"):
        parse_rate("--link", text)


def test_bits_are_eighths_of_bytes():
    assert parse_rate("--link", "8Gbit") == parse_rate("--link", "1GB") == 1e9
    assert parse_rate("--link", "2.5 tbit/s") == parse_rate("--link", "312.5gb")
