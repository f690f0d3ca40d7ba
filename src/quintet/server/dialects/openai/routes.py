"""The routes under /v1."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from quintet.hub.manifest import Manifest
from quintet.server.bodies import parse_body
from quintet.server.dialect import Context, Dialect, Operation
from quintet.server.dialects.openai.answering import answer
from quintet.server.dialects.openai.bodies import (
    ChatBody,
    CompletionBody,
    ConversationBody,
    EmbeddingBody,
)
from quintet.server.dialects.openai.chat import (
    chat_prompt,
    chat_requests,
    chat_work,
)
from quintet.server.dialects.openai.completions import completion_requests, completion_work
from quintet.server.dialects.openai.embeddings import embeddings
from quintet.server.dialects.openai.responses.routes import RESPONSE_OPERATIONS, response_routes
from quintet.server.limits import read_json

_OPERATIONS: Final = {
    "POST /v1/chat/completions": Operation(ChatBody),
    "POST /v1/chat/completions/input_tokens": Operation(ConversationBody),
    "POST /v1/completions": Operation(CompletionBody),
    "POST /v1/embeddings": Operation(EmbeddingBody),
    **RESPONSE_OPERATIONS,
}


def dialect(context: Context) -> Dialect:
    """OpenAI's interface over these models."""
    handlers = _Handlers(context)
    routes: list[BaseRoute] = [
        Route("/v1/chat/completions", handlers.chat, methods=["POST"]),
        Route("/v1/chat/completions/input_tokens", handlers.count_chat, methods=["POST"]),
        Route("/v1/completions", handlers.completions, methods=["POST"]),
        Route("/v1/embeddings", handlers.embeddings, methods=["POST"]),
        *response_routes(context),
        Route("/v1/models", handlers.list_models, methods=["GET"]),
        Route("/v1/models/{name:path}", handlers.get_model, methods=["GET"]),
    ]
    return Dialect("openai", routes, ("/v1/",), context.flavour.error_body, operations=_OPERATIONS)


class _Handlers:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._models = context.models

    async def chat(self, request: Request) -> Response:
        body = parse_body(ChatBody, await self._json(request))
        requests = chat_requests(body)
        return await answer(
            self._context, request, body, lambda model: chat_work(body, requests, model)
        )

    async def count_chat(self, request: Request) -> Response:
        body = parse_body(ConversationBody, await self._json(request))
        prompt = chat_prompt(body)
        async with self._models.use(body.model) as model:
            count = await model.count_tokens(prompt)
        return JSONResponse({"object": "chat.completion.input_tokens", "input_tokens": count})

    async def completions(self, request: Request) -> Response:
        body = parse_body(CompletionBody, await self._json(request))
        requests = completion_requests(body)
        return await answer(
            self._context, request, body, lambda model: completion_work(body, requests, model)
        )

    async def embeddings(self, request: Request) -> Response:
        return await embeddings(self._context, request)

    async def list_models(self, request: Request) -> Response:
        data = [self._model_object(manifest) for manifest in self._models.catalog.list()]
        return JSONResponse({"object": "list", "data": data})

    async def get_model(self, request: Request) -> Response:
        manifest = self._models.find(request.path_params["name"])
        return JSONResponse(self._model_object(manifest))

    def _model_object(self, manifest: Manifest) -> dict[str, Any]:
        return {
            "id": manifest.name,
            "object": "model",
            "created": int(manifest.modified_at),
            "owned_by": self._context.flavour.owner,
        }

    async def _json(self, request: Request) -> Any:
        return await read_json(request.receive, self._context.settings)
