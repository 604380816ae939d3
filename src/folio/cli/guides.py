"""What the help of a verb says beside its flags: examples, groups of flags, and what comes next."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from folio.console import say


@dataclass(frozen=True, kw_only=True)
class Guide:
    """The part of a help page that no signature tells."""

    examples: dict[str, str]
    """Command -> what it does."""
    next: tuple[str, str]
    """A command that makes sense after this one, and why. Words in capitals stand for something."""
    groups: dict[str, str] = field(default_factory=dict)
    """Title -> names of flags; flags in no group come last."""
    has_settings: bool = False
    """Whether the page lists the settings of a recipe, too."""

    def last_line(self, **meant: str) -> str:
        """What comes next, with what words in capitals stand for, as far as that is known."""
        command, why = self.next
        for word, meaning in meant.items():
            command = command.replace(word, meaning)
        return f"next        {command}   ({why})"


GUIDES = {
    "train": Guide(
        examples={
            "folio train notes/ thesis.pdf --minutes 10 --name notes": "ten minutes, all included",
            "folio train book.txt --size small --model.context-length 256": "settings are flags",
            "folio train letters.txt --from notes --keep 0.25": "goes on from the run notes",
        },
        groups={
            "Text": "corpus validation",
            "Time and place": "minutes name",
            "Go on from another model": "from keep lora",
            "Output": "page log settings json",
        },
        has_settings=True,
        next=("folio sample RUN", "lets it write"),
    ),
    "plan": Guide(
        examples={
            "folio plan notes/ --minutes 60 --memory 8GB": "which size suits an hour and 8 GB",
            "folio plan notes/ --starvation": "what twice the text would give",
            "folio plan --gpus 8 --machines 4 --gpu h100 --size small": "on GPUs, without a text",
        },
        groups={
            "Text and time": "corpus minutes memory from starvation",
            "GPUs that you do not have": "gpus machines gpu size link network",
            "Output": "json",
        },
        next=("folio train CORPUS --minutes 60", "trains what the plan recommends"),
    ),
    "resume": Guide(
        examples={
            "folio resume": "the newest run, from its last checkpoint",
            "folio resume notes --minutes 30": "half an hour more",
            "folio resume notes --training.max-steps 5000": "up to this step",
        },
        next=("folio sample RUN", "lets it write"),
    ),
    "sample": Guide(
        examples={
            'folio sample notes --prompt "Once upon" --max-tokens 200': "a text that begins so",
            "folio sample notes --novel 40": "copies at most 40 letters in a row",
            'folio sample talks --chat --prompt "Why does it rain?"': "one answer",
        },
        groups={
            "Text": "run prompt samples max-tokens forever stop stop-string chat novel",
            "How tokens are drawn": "temperature top-k top-p min-p repetition-penalty seed",
            "Model": "checkpoint device weights",
            "Output": "json logprobs",
        },
        next=("folio recall RUN", "finds out whether it learned or copies"),
    ),
    "write": Guide(
        examples={
            "folio write": "the newest run, in your browser",
            "folio write notes --out notes.html --no-open": "only writes the page",
        },
        next=("folio export RUN --to hf", "for transformers; gguf is for llama.cpp and Ollama"),
    ),
    "evaluate": Guide(
        examples={
            "folio evaluate": "the newest run, on its own held-out text",
            "folio evaluate notes story.txt": "on a text of yours",
            "folio evaluate notes --baselines": "beside n-grams, xz and PPMd",
        },
        next=("folio recall RUN", "finds out whether it learned or copies"),
    ),
    "corpus": Guide(
        examples={
            "folio corpus notes/": "formats, duplicates, leakage",
            "folio corpus notes/ --validation story.txt": "holds a file out, too",
            "folio corpus notes/ --corpus.duplicates.remove near": "without near-duplicates",
        },
        next=("folio train CORPUS --minutes 10", "trains on this text"),
    ),
    "tokens": Guide(
        examples={
            "folio tokens crawl/ --into store --workers 8": "parquet, jsonl.zst, folders of text",
            "folio tokens crawl/ --into store --part 3/40": "the share of one of 40 machines",
            "folio tokens crawl/ --into store --tokenizer.vocab-size 32768": "settings are flags",
        },
        next=("folio train STORE", "trains on it"),
    ),
    "tokenizer": Guide(
        examples={
            "folio tokenizer compare book.txt --vocab-sizes 512,1024": "which one to take",
            "folio tokenizer train book.txt --vocab-size 1024 --out tok.json": "learns one",
            'folio tokenizer encode tok.json --text "Hello" --pieces': "uses it",
        },
        next=("folio train CORPUS --tokenizer.path tok.json", "trains with this vocabulary"),
    ),
    "tune": Guide(
        examples={
            "folio tune book.txt --trials 25 --epochs 30 --workers 2": "a study of 25 runs",
            "folio tune runs/tune-book --trials 40": "continues it",
        },
        next=("folio train runs/tune-book/best.toml", "trains with the best settings"),
    ),
    "explain": Guide(
        examples={
            'folio explain notes --text "To be, or not"': "a page: surprisal, attention, map",
            'folio explain --text "To be" --tensors': "small matrices, printed here",
        },
        next=("folio evaluate RUN", "measures it on its held-out text"),
    ),
    "recall": Guide(
        examples={
            "folio recall": "the newest run",
            "folio recall notes --twin": "what reading changed, by two more trainings",
            "folio recall smol --text book.txt": "what an imported model can say of a text",
        },
        next=("folio sample RUN --novel 40", "writes without long copies"),
    ),
    "export": Guide(
        examples={
            "folio export notes --to hf": "a folder for transformers",
            "folio export notes --to gguf --type q8_0": "a file for llama.cpp and Ollama",
            "folio export notes --to html --out notes.html": "a page to write on",
        },
        next=("folio recall RUN", "find out what it copies, before you give it away"),
    ),
    "serve": Guide(
        examples={
            "folio serve notes": "http://127.0.0.1:8000/v1, a page at /",
            "folio serve notes talks --port 8080 --novel 40": "two models, no long copies",
        },
        next=("curl http://127.0.0.1:8000/v1/models", "asks the server what it has"),
    ),
    "import": Guide(
        examples={
            "folio import SmolLM2-135M/ --name smol": "a folder of transformers",
            "folio import model.gguf --context 512": "a GGUF file, with a shorter context",
        },
        next=("folio sample RUN", "lets it write"),
    ),
    "ladder": Guide(
        examples={
            "folio ladder": "the list of steps",
            "folio ladder 3": "trains step 3 in seconds and lets it write",
            "folio ladder all --seeds 3": "trains 0 to 6, with a table and a picture",
            "folio ladder --page": "a page with curves, what changed in the code, and exercises",
            "folio ladder check 2 my_heads.py": "tests your own version of step 2",
        },
        next=("folio ladder 7 --minutes 10", "the same block, scaled up"),
    ),
    "runs": Guide(
        examples={
            "folio runs": "all runs",
            "folio runs --compare notes letters": "their curves",
            "folio runs --compare a-1 a-2 b-1 b-2": "two recipes, two seeds of each",
        },
        next=("folio sample RUN", "lets one of them write"),
    ),
    "doctor": Guide(
        examples={
            "folio doctor": "paste all of it into a bug report",
            "folio doctor --measure --json": "measures the precisions now, as JSON",
        },
        next=("folio plan CORPUS --minutes 60", "predicts what this machine can train"),
    ),
}


def say_next(verb: str, **meant: str) -> None:
    """Say on a terminal what comes after a verb; in a script nobody reads it.

    Args:
        verb: the verb that is done.
        meant: word in capitals -> what it stands for: `RUN="notes"`.
    """
    if sys.stderr is not None and sys.stderr.isatty():
        say(GUIDES[verb].last_line(**meant))
