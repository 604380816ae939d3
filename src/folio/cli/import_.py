"""folio import: import a model that was trained elsewhere."""

from __future__ import annotations

from pathlib import Path

from folio.console import amount, say, show


def import_(path: Path, *, name: str | None = None, context: int = 0) -> None:
    """Import a model that was trained elsewhere: folio import DIR|FILE.gguf

    Reads a folder of transformers (GPT-2, Llama, Qwen, GPT-NeoX or SmolLM, as safetensors) or a
    GGUF file of them in f32, f16, bf16, q8_0, q4_0 or q4_1, and makes a run of it. Nothing in the
    files is run. Then folio sample, evaluate FILE, explain, recall --text FILE and export work as
    for your own runs.

    Args:
        path: The folder, or the file.
        name: Name of the run; by default taken from the path.
        context: Context length in tokens; 0 takes the model's own, at most 1,024.
    """
    from folio.export.importing import import_run
    from folio.run.opening import open_run

    run = import_run(path, name, context, tell=say)
    config = open_run(run).model.config
    show(
        f"{run.path}: {config.n_parameters:,} parameters, {amount(config.n_layers, 'layer')}, "
        f"width {config.d_model}, {config.vocab_size:,} ids\nLet it write: folio sample {run.word}"
    )
