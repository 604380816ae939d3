"""The command `folio`: its verbs, and what happens to errors."""

from __future__ import annotations

import atexit
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from keyword import iskeyword
from typing import TYPE_CHECKING, NoReturn

from folio.console import OutputError, output, say, show
from folio.errors import UserError

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError

SUMMARY = "Train a GPT from scratch on your own text, and see what it learned."

LATER_SECONDS = 3.0
"""After the first of several processes, the others leave with the same mistake."""

VERBS = {
    "train": "Train a model on your text.",
    "plan": "Predict which size suits your text, this machine and the time you have.",
    "resume": "Continue a run where it stopped, or train it longer.",
    "sample": "Let a trained model write.",
    "write": "Write together with a model, on an offline page in your browser.",
    "evaluate": "Measure loss, perplexity and bits per byte of a model on a text.",
    "corpus": "Show what is in your text: formats, duplicates, and what leaks into validation.",
    "tokens": "Encode text of any size into a store of tokens, by any number of processes.",
    "tokenizer": "Learn a vocabulary from text, use it, and compare several.",
    "tune": "Search for the best settings, within a budget.",
    "explain": "See what a model makes of a text: surprisal, attention, embeddings.",
    "recall": "Find out whether a model learned or copies, and what it knows by heart.",
    "export": "Export a model to transformers, llama.cpp and Ollama, or as one page.",
    "serve": "Serve models over HTTP with OpenAI's API, and a page to write on.",
    "import": "Import a model that was trained elsewhere.",
    "ladder": "Build up a GPT one idea at a time, from a table to the modern block.",
    "runs": "List the runs, or compare their curves.",
    "doctor": "Look at this machine and installation: for a bug report, and what is slow.",
}


def overview() -> str:
    """The output of `folio --help`; made without the parser, whose import takes most of the
    time.
    """
    width = max(map(len, VERBS)) + 2
    lines = [f"    {verb:{width}}{summary}" for verb, summary in VERBS.items()]
    return "\n".join(
        [
            SUMMARY,
            "",
            "folio VERB ...",
            "",
            *lines,
            "",
            "Begin with folio train, which needs no text; folio sample then lets it write.",
            "folio VERB --help says more; --version; --install-completion for your shell.",
        ]
    )


def make_app() -> App:
    """The command line; the module of a verb is imported when the verb is used."""
    app = _without_verbs()
    for verb, module in modules():
        app.command(f"{module}:{module.rpartition('.')[2]}", name=verb)
    return app


def modules() -> Iterator[tuple[str, str]]:
    """Each verb and its module, which has a function or an app of the module's name."""
    for verb in VERBS:
        yield verb, f"folio.cli.{verb}_" if iskeyword(verb) else f"folio.cli.{verb}"


def _without_verbs() -> App:
    from cyclopts import App, Group

    from folio import __version__
    from folio.cli.help import HelpPage

    flags = Group("Flags")
    return App(
        name="folio",
        help=SUMMARY,
        version=__version__,
        help_format="plaintext",
        help_formatter=HelpPage(),
        group_arguments=flags,
        group_parameters=flags,
        result_action="return_value",
    )


def command() -> NoReturn:
    """Run the command line as a process of its own.

    What Python has to do at the end is done; then the process leaves at once, since taking down
    torch takes longer than many a command.
    """
    # Before torch is loaded: its threads spin where they wait for each other, and beside other
    # programs they spin in place of those that they wait for.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code: object = 0
    try:
        main()
    except SystemExit as error:
        code = error.code
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0; 1 where standard output could not take all of it; 2 after
    a mistake of the user; 130 after Ctrl-C.
    """
    try:
        with output():
            _answer(sys.argv[1:] if arguments is None else arguments)
    except OutputError as error:
        if error.reader_gone:  # `folio sample | head`
            sys.exit(0)
        _fail(f"Standard output could not be written: {error.reason}.", 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _answer(arguments: Sequence[str]) -> None:
    if list(arguments) in ([], ["--help"], ["-h"]):
        show(overview())
        return
    from cyclopts import CycloptsError

    try:
        _app_for(arguments)(arguments, exit_on_error=False, print_error=False)
    except UserError as error:
        _fail(str(error))
    except PermissionError as error:
        _fail(f"No permission to use {error.filename or 'a file'}: {error.strerror}.")
    except OSError as error:  # a file that vanished, a full disk, a name that is too long
        _fail(_in_a_line(error))
    except CycloptsError as error:
        _fail(_not_understood(error))
    except (MemoryError, RuntimeError) as error:
        from folio.accelerator import ran_out_of_memory

        if not ran_out_of_memory(error):
            raise
        _fail(
            f"Memory ran out ({str(error).partition(chr(10))[0][:100]}). What was saved is whole. "
            f"Give fewer windows at once, as --training.micro-batch-size 1, a smaller --size or "
            f"--model.context-length, or a processor: --device.kind cpu."
        )


def _app_for(arguments: Sequence[str]) -> App:
    """The app that answers a user, or the one that answers a shell."""
    if arguments[0] not in ("--install-completion", "__complete"):
        return make_app()
    from folio.cli.completion import completing

    return completing(_without_verbs(), modules())


def _fail(message: str, code: int = 2) -> NoReturn:
    if _is_said_by_another():
        time.sleep(LATER_SECONDS)  # torchrun ends all others when the first one leaves
    else:
        say(f"error: {message}")
    sys.exit(code)


def _not_understood(error: CycloptsError) -> str:
    """What the parser of the command line could not make sense of, and where it is explained."""
    from cyclopts import MissingArgumentError, UnusedCliTokensError

    verb = " ".join(("folio", *(error.command_chain or ())))
    found = " ".join(str(error).split())
    if isinstance(error, UnusedCliTokensError):
        words = error.unused_tokens or ()
        found = f"{verb} takes no further argument, got {shlex.join(words)}."
        if verb == "folio sample":
            prompt = shlex.quote(" ".join(words))
            return f"{found} To go on with it: folio sample RUN --prompt {prompt}"
    elif isinstance(error, MissingArgumentError) and error.argument is not None:
        found = f"{verb} needs a value for {error.keyword or error.argument.name}."
    return f"{found} What it takes: {verb} --help"


def _in_a_line(error: OSError) -> str:
    """What the system refused, and why; a very long name is cut off."""
    why = error.strerror or str(error)[:200]
    if not error.filename:
        return f"The system refused something: {why}."
    return f"{str(error.filename)[:200]} could not be used: {why}."


def _is_said_by_another() -> bool:
    """Whether each of several processes makes this mistake: until they meet they do the same."""
    met = "torch.distributed" in sys.modules and sys.modules["torch.distributed"].is_initialized()
    return os.environ.get("RANK", "0") != "0" and not met
