"""Help pages tell all that a verb takes, their examples are commands, and shells complete them."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from cyclopts import App

from folio.cli.guides import GUIDES
from folio.cli.main import VERBS, make_app, modules
from folio.cli.overrides import settings_table, split_words
from folio.config import settings
from folio.recipe.recipe import CHANGEABLE, Recipe
from folio.run.directory import runs_folder
from tests.cli.conftest import Folio

every_verb = pytest.mark.parametrize("verb", VERBS)
STANDS_FOR = {"RUN": "notes", "CORPUS": "book.txt"}


def function_of(verb: str) -> object:
    module = dict(modules())[verb]
    return getattr(import_module(module), module.rpartition(".")[2])


def parse(command: str) -> None:
    """Parse a command as `main` does, and its settings as the verb would."""
    name, *words = shlex.split(command)
    assert name == "folio"
    _, bound, _ = make_app().parse_args(words, exit_on_error=False, print_error=False)
    given = [word for name, word in bound.arguments.items() if name in ("corpus", "run", "sources")]
    if any(isinstance(word, tuple) for word in given):
        settings_table(split_words(given[0])[1])


def test_help_of_train_names_its_corpus_and_every_setting(folio: Folio):
    page = folio("train", "--help").out
    usage, _, rest = page.partition("\n")
    assert usage.startswith("Usage: folio train [CORPUS ... | RECIPE.toml] [--TABLE.SETTING")
    rows = re.findall(r"  --(\S*)\. +((?:(?!  --).+\n)+)", rest)
    tables = {name: leaves.split() for name, leaves in rows}
    for setting in settings(Recipe):
        table, _, leaf = setting.name.replace("_", "-").rpartition(".")
        assert leaf in tables[table] if table else f"--{leaf}" in rest, setting.name
    groups = ["Text:", "Time and place:", "Go on from another model:", "Output:", "Settings"]
    places = [rest.index(f"\n{group}") for group in groups]
    assert places == sorted(places) and "Flags:" not in rest
    assert rest.count("\n  folio train ") == 3


@pytest.mark.parametrize("verb", ["train", "merges", "encode", "decode", "compare"])
def test_what_a_verb_of_tokenizer_takes_is_in_one_panel(folio: Folio, verb: str):
    page = folio("tokenizer", verb, "--help").out
    assert "Flags" in page and not re.search("Arguments|Parameters", page)


@every_verb
def test_help_says_how_a_verb_is_called_what_each_flag_does_and_what_comes_next(
    folio: Folio, verb: str
):
    lines = folio(verb, "--help").out.splitlines()
    assert lines[0].startswith(f"Usage: folio {verb} ")
    assert lines[-1] == GUIDES[verb].last_line()
    assert all(len(line) <= 100 for line in lines)
    function = function_of(verb)
    if isinstance(function, App):
        return
    page = "\n".join(lines)
    assert "--empty-" not in page
    for name, given in inspect.signature(function).parameters.items():  # type: ignore[arg-type]
        if given.kind is given.KEYWORD_ONLY and name != "from_run":
            flag = f"--{'no-' if given.default is True else ''}{name.replace('_', '-')}"
            assert re.search(rf"\n  {flag}( [A-Z.]+)?\s+\S", page), flag


def test_a_flag_with_a_few_values_names_them():
    for verb in VERBS:
        if inspect.isfunction(function := function_of(verb)):
            said = dict(
                re.findall(
                    r"^        (\w+): ((?:.+\n)(?: {12}.+\n)*)", function.__doc__ or "", re.M
                )
            )
            for name, kind in get_type_hints(function).items():
                lacking = [x for x in get_args(kind) if isinstance(x, str) and x not in said[name]]
                assert not lacking, f"{verb} --{name}"


def test_help_of_resume_names_the_tables_of_settings_that_can_change(folio: Folio):
    assert f"The settings of {' and '.join(CHANGEABLE)} can change" in folio("resume", "--help").out


@every_verb
def test_examples_and_what_comes_next_are_commands_that_parse(verb: str):
    for example in GUIDES[verb].examples:
        parse(example)
    command = GUIDES[verb].last_line(**STANDS_FOR).removeprefix("next").partition("   (")[0].strip()
    assert "RUN" not in command
    if command.startswith("folio"):
        parse(command)


@every_verb
def test_groups_hold_flags_that_exist(verb: str):
    function = function_of(verb)
    names = " ".join(GUIDES[verb].groups.values()).split()
    assert len(set(names)) == len(names)
    if names:
        known = inspect.signature(function).parameters  # type: ignore[arg-type]
        assert {n.replace("-", "_").replace("from", "from_run") for n in names} == set(known)


def test_what_comes_next_is_said_on_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from folio.cli.guides import say_next

    say_next("sample", RUN="mine")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    say_next("sample", RUN="mine")
    assert "folio recall mine " in capsys.readouterr().err


# ---- completion --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from folio.cli.main import main

    path = tmp_path_factory.mktemp("completion") / "folio.bash"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(path.parent))
        main(["--install-completion", "--shell", "bash", "--output", str(path)])
    assert str(path) in (path.parent / ".bashrc").read_text(encoding="utf-8")
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["tr"], {"train"}),
        (["train", "--model.n-la"], {"--model.n-layers"}),
        (["train", "--model.bias", ""], {"true", "false"}),
        (["train", "--device.kind", "c"], {"cpu", "cuda"}),
        (["tokenizer", "comp"], {"compare"}),
        (["sample", "--weights", ""], {"float32", "bfloat16", "int8"}),
    ],
)
def test_bash_completes_verbs_settings_and_choices(
    script: Path, typed: list[str], offered: set[str]
):
    words = shlex.join(["folio", *typed])
    code = f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _folio; "
    code += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


def test_a_shell_is_told_the_names_of_runs(folio: Folio):
    run = runs_folder() / "first"
    run.mkdir(parents=True)
    (run / "recipe.toml").touch()
    assert "first" in folio("__complete", "sample", "").out.split()


def test_a_verb_that_takes_settings_completes_each_of_them_once():
    from folio.cli.completion import as_a_shell_sees
    from folio.cli.train import train

    names = list(inspect.signature(as_a_shell_sees(train)).parameters)
    assert len(set(names)) == len(names)
    assert {setting.name.replace(".", "_") for setting in settings(Recipe)} < set(names)


def tables_completed() -> dict[str, set[str]]:
    """Verb -> the tables of a recipe whose settings a shell completes."""
    from folio.cli.completion import as_a_shell_sees

    known = [setting.name for setting in settings(Recipe) if "." in setting.name]
    verbs = {verb: function_of(verb) for verb in VERBS}
    offered = {
        verb: inspect.signature(as_a_shell_sees(found)).parameters
        for verb, found in verbs.items()
        if inspect.isfunction(found)
    }
    return {
        verb: {name.partition(".")[0] for name in known if name.replace(".", "_") in names}
        for verb, names in offered.items()
    }


def test_the_verbs_that_take_settings_and_no_others_complete_them():
    tables = tables_completed()
    assert {"sample", "evaluate"} < tables.keys()
    takers = {verb for verb, found in tables.items() if found}
    assert takers == {"train", "plan", "resume", "corpus", "tokens", "tune"}


def test_a_verb_completes_no_settings_that_it_refuses(folio: Folio):
    from folio.cli import tune
    from folio.cli.completion import as_a_shell_sees

    tables = tables_completed()
    assert tables["resume"] == set(CHANGEABLE) and "model" in tables["plan"]
    assert tables["tokens"] == {"corpus", "tokenizer"}
    offered = inspect.signature(as_a_shell_sees(tune.tune)).parameters
    decided = {name.replace(".", "_") for name in tune.DECIDED}
    assert "training_batch_size" in offered and not decided & offered.keys()
    refused = folio("tokens", "book.txt", "--into", "store", "--model.n-layers", "2")
    assert refused.code == 2 and "corpus and tokenizer, got --model" in refused.err


def test_a_shell_completes_the_size_of_a_plan_as_a_flag_for_gpus():
    from folio.cli.completion import as_a_shell_sees
    from folio.cli.plan import plan

    size = inspect.signature(as_a_shell_sees(plan)).parameters["size"]
    assert size.default == "", "the verb's own, whose help says that it is for --gpus"
    assert "Without --gpus all are compared" in (plan.__doc__ or "")
