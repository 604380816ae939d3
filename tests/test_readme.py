"""The README's commands and code run as they are written."""

from __future__ import annotations

import json
import re
import shlex
from itertools import islice
from pathlib import Path

import pytest

from folio.cli.main import main
from folio.corpus.builtin import BUILTIN, python_docs
from folio.recipe.presets import SIZES, Size

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def block_with(language: str, words: str) -> str:
    (found,) = [block for block in blocks(language) if words in block]
    return found


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOLIO_RUNS")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are the README's; the model and the text that they do not name are small."""
    monkeypatch.setitem(SIZES, "nano", Size(1, 2, 32, 128, 64, 64))
    monkeypatch.setitem(BUILTIN, "python-docs", lambda: islice(python_docs(), 2, None, 12))


@pytest.mark.usefixtures("whole_end")
def test_the_first_run_runs(capfd: pytest.CaptureFixture[str]):
    lines = block_with("sh", "--name first").splitlines()
    commands = [words for line in lines if (words := shlex.split(line, comments=True))]
    assert len(commands) == 6
    for command in commands:
        assert command[0] == "folio"
        main(command[1:])  # exits only after a mistake
    out = capfd.readouterr().out
    assert "nats per token" in out and "80/80" in out


def test_the_tokenizer_commands_run(capfd: pytest.CaptureFixture[str]):
    for command in block_with("sh", "folio tokenizer").splitlines():
        main(shlex.split(command, comments=True)[1:])
    out = capfd.readouterr().out
    assert "recommended: " in out and "|␣statement" in out


def test_the_fine_tuning_runs(book: Path, tmp_path: Path):
    small = "--model.n-layers 1 --model.d-model 16 --training.max-steps 4 --name first"
    main(["train", str(book), *small.split()])
    (tmp_path / "letters.txt").write_text("The winds sing of the line. " * 200, encoding="utf-8")
    main(shlex.split(block_with("sh", "--from first"))[1:])
    card = (tmp_path / "runs" / "letters" / "README.md").read_text(encoding="utf-8")
    assert "| new text, before and after | " in card and "| old text, before and after | " in card


def test_the_conversations_run(book: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    book.write_text("Why does it rain? It rains.\n" + book.read_text(encoding="utf-8"), "utf-8")
    small = "--model.n-layers 1 --model.d-model 16 --training.max-steps 4 --name letters"
    main(["train", str(book), *small.split()])
    lines = [
        json.dumps({"prompt": f"Why of {i}?", "completion": f"It rains {i * i} winds."})
        for i in range(300)
    ]
    (tmp_path / "chats.jsonl").write_text("\n".join(lines), encoding="utf-8")
    train, sample = block_with("sh", "--chat").splitlines()
    main(shlex.split(train, comments=True)[1:])
    assert "\u27e6It rains" in capfd.readouterr().err
    main(shlex.split(sample, comments=True)[1:])
    assert capfd.readouterr().out.endswith("\n")


def test_the_ladder_commands_are_those_that_exist(monkeypatch: pytest.MonkeyPatch):
    from folio.cli import ladder

    done = []
    for name in ("_list", "_one", "_all", "_ablation", "_page", "_check_own"):
        monkeypatch.setattr(ladder, name, lambda *given, name=name: done.append(name))
    for command in block_with("sh", "folio ladder").splitlines():
        main(shlex.split(command, comments=True)[1:])
    assert done == ["_list", "_one", "_all", "_ablation", "_ablation", "_page", "_check_own"]


def test_the_python_example_runs(capfd: pytest.CaptureFixture[str]):
    exec(compile(block_with("python", "folio.load"), "README.md", "exec"), {})
    assert capfd.readouterr().out.count("\n") > 1


def test_every_other_command_parses():
    from folio.cli.overrides import settings_table, split_words
    from folio.recipe.recipe import source_layers

    for block in blocks("sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["folio", "train"]:
                positional, flags = split_words(tuple(words[2:]))
                own = ("minutes", "name", "validation", "from", "keep", "lora")
                settings_table([flag for flag in flags if flag[0] not in own])
                if not positional or not positional[0].startswith("runs/"):  # made before
                    source_layers([w.replace("recipes/", f"{ROOT}/recipes/") for w in positional])


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", block_with("sh", "make demo"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_every_linked_file_exists():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_each_loss_in_the_table_of_recipes_stands_in_the_header_of_its_recipe():
    table = README[README.index("\n## The lowest loss") : README.index("\n## Tuning")]
    row = r"^\| (\S.*?) \| .* \| (1\.\d+)(?: ± ([\d.]+))? \| exact"
    rows = re.findall(row, table, re.MULTILINE)
    assert len(rows) > 5
    header = ""
    for recipe, loss, error in rows:
        if recipe.startswith("`"):
            header = (ROOT / "recipes" / f"{recipe.strip('`')}.toml").read_text(encoding="utf-8")
        assert f"{loss} +- {error}" in header if error else loss in header, recipe


def test_every_recipe_is_read_and_its_header_names_it():
    from folio.config import read_toml
    from folio.recipe.recipe import make_recipe

    for path in (ROOT / "recipes").glob("*.toml"):
        make_recipe(read_toml(path))
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first == f"# folio train recipes/{path.name}"
