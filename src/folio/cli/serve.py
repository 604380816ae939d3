"""folio serve: a run over HTTP."""

from __future__ import annotations

import os

from folio.cli.complaints import say_complaints
from folio.console import show
from folio.errors import UserError


def serve(
    *run: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str = "",
    novel: int = 0,
    checkpoint: str = "best",
) -> None:
    """Serve trained models with OpenAI's API: folio serve [RUN ...]

    /v1/completions (text or token ids, stream, n, stop, seed, logprobs, echo), /v1/models,
    /v1/chat/completions where the model learned conversations, a page to write on at /, /health and
    /metrics. Ends with Ctrl-C.

    Args:
        run: Names or paths; by default the newest run. The field `model` of a request chooses among
            several.
        host: Address to listen on; other machines can connect only with a key.
        port: Port to listen on; 0 takes a free one.
        api_key: What a client must send as Authorization: Bearer KEY. FOLIO_API_KEY does the same
            and is not seen by others on this machine.
        novel: As in folio sample: copy at most this many consecutive letters and digits from the
            training text; 0 is no limit.
        checkpoint: best, last or a step.
    """
    from folio.run.directory import find_run

    found = [find_run(name) for name in run or (None,)]
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise UserError(
            f"Runs are chosen by their names, and two of {', '.join(names)} have the same. Rename "
            f"a folder, or serve them apart."
        )
    try:
        from folio.serving.server import Server, serve
    except ModuleNotFoundError as error:
        raise UserError(
            f"folio serve needs {error.name}, which is not installed: pip install 'foliolm[serve]'."
        ) from error
    from folio.run.opening import open_run
    from folio.serving.served import Served

    served = {}
    for one in found:
        opened = open_run(one, checkpoint)
        say_complaints(opened)
        guard = opened.guard(novel) if novel else None
        served[one.name] = Served(one.name, opened, guard)

    def begun(address: str, server: Server) -> None:
        models = ", ".join(
            f"{name} ({m.opened.checkpoint.path.name})" for name, m in served.items()
        )
        told = f"{models} at {address}/v1, a page to write on at {address}/; Ctrl-C ends it"
        show(told, flush=True)  # also where it goes into a file

    serve(served, host, port, api_key or os.environ.get("FOLIO_API_KEY", ""), begun=begun)
