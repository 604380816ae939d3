"""The addresses of a server, and what answers there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from folio.serving.asked import completion_of
from folio.serving.chat import Conversation, chat_of
from folio.serving.completions import Completion
from folio.serving.copied import CopyFinder
from folio.serving.engine import Engine
from folio.serving.fields import read_fields
from folio.serving.looking import answer_look, text_of
from folio.serving.page import page, policy_of
from folio.serving.refusals import RequestError, broken, json_response
from folio.serving.served import Served, choose


class App:
    """The application: all routes, over one engine."""

    def __init__(
        self, served: Mapping[str, Served], engine: Engine, n_connections: Callable[[], int]
    ) -> None:
        self.served, self.engine, self.limits = served, engine, engine.limits
        self.n_connections = n_connections
        self.finders = {name: CopyFinder(one.opened) for name, one in served.items()}
        self.pages = {name: page(served, name) for name in served}
        # Once: a training that goes on may take the checkpoint away.
        self.cards = {name: _card(one) for name, one in served.items()}

    def routes(self) -> Starlette:
        """Return the ASGI application."""
        app = Starlette(
            routes=[
                Route("/", self.write, methods=["GET"]),
                Route("/v1/completions", self.completions, methods=["POST"]),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/models", self.models, methods=["GET"]),
                Route("/v1/models/{name:path}", self.model, methods=["GET"]),
                Route("/look", self.look, methods=["POST"]),
                Route("/health", self.health, methods=["GET"]),
                Route("/metrics", self.metrics, methods=["GET"]),
            ],
            exception_handlers={
                RequestError: _refused,
                HTTPException: _not_here,
                Exception: _broken,
            },
        )
        app.router.redirect_slashes = False
        return app

    async def write(self, request: Request) -> Response:
        """The page to write on, with the model that `?model=` names, or the first."""
        name = request.query_params.get("model") or next(iter(self.served))
        text = self.pages[choose(self.served, name).name]
        return HTMLResponse(text, headers={"Content-Security-Policy": policy_of(text)})

    async def completions(self, request: Request) -> Response:
        """Continue prompts: POST /v1/completions."""
        self.engine.counts.requests += 1
        asked = completion_of(await read_fields(request, self.limits), self.limits)
        # Elsewhere: a prompt of many thousand tokens takes a while, and others are served.
        reply = await run_in_threadpool(Completion, asked, choose(self.served, asked.model))
        return reply.answer(self.engine)

    async def chat(self, request: Request) -> Response:
        """Answer in a conversation: POST /v1/chat/completions."""
        self.engine.counts.requests += 1
        asked = chat_of(await read_fields(request, self.limits), self.limits)
        reply = await run_in_threadpool(Conversation, asked, choose(self.served, asked.model))
        return reply.answer(self.engine)

    async def look(self, request: Request) -> Response:
        """Look at a text, for the page."""
        self.engine.counts.requests += 1
        text, name = text_of(await read_fields(request, self.limits), self.limits)
        one = choose(self.served, name)
        return answer_look(text, one, self.finders[one.name], self.engine)

    async def models(self, request: Request) -> Response:
        """All runs that are served."""
        return json_response({"object": "list", "data": [*self.cards.values()]})

    async def model(self, request: Request) -> Response:
        """Describe one model."""
        return json_response(self.cards[choose(self.served, request.path_params["name"]).name])

    async def health(self, request: Request) -> Response:
        """Whether the server lives, and how busy it is."""
        engine = self.engine
        return json_response(
            {"status": "ok", "active": engine.n_running, "waiting": engine.n_waiting}
        )

    async def metrics(self, request: Request) -> Response:
        """Return counters in Prometheus's format."""
        counts, engine = self.engine.counts, self.engine
        values = [
            ("requests_total", "counter", "Bodies that were read, or refused.", counts.requests),
            ("prompt_tokens_total", "counter", "Tokens of prompts.", counts.prompt_tokens),
            ("tokens_total", "counter", "Tokens that were drawn.", counts.tokens),
            ("completed_total", "counter", "Texts that came to their end.", counts.completed),
            ("cancelled_total", "counter", "Texts whose client left.", counts.cancelled),
            ("failed_total", "counter", "Texts that failed.", counts.failed),
            ("rejected_total", "counter", "Requests for which was no room.", counts.rejected),
            ("active", "gauge", "Texts that are worked on.", engine.n_running),
            ("waiting", "gauge", "Texts that wait.", engine.n_waiting),
            ("connections", "gauge", "Connections, this one included.", self.n_connections()),
        ]
        lines = [
            f"# HELP folio_{name} {text}\n# TYPE folio_{name} {kind}\nfolio_{name} {value}\n"
            for name, kind, text, value in values
        ]
        return PlainTextResponse(
            "".join(lines), media_type="text/plain; version=0.0.4; charset=utf-8"
        )


def _card(served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "folio",
        "context_length": served.context_length,
        "parameters": served.opened.model.config.n_parameters,
    }


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error.response


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.url.path[:80], request.method[:20]
    told = {
        404: f"There is nothing at {path}; there is /v1/completions, /v1/models, /health, /.",
        405: f"{path} does not take {method}.",
    }
    message = told.get(error.status_code, str(error.detail))
    return RequestError(error.status_code, message, headers=error.headers).response


async def _broken(request: Request, error: Exception) -> Response:
    return broken().response
