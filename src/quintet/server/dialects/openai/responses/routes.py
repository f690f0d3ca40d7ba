"""The routes under /v1/responses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from quintet.errors import CapacityError, RequestError
from quintet.server.bodies import parse_body
from quintet.server.dialect import Context, Operation
from quintet.server.dialects.openai.responses.bodies import ResponseBody, TurnBody
from quintet.server.dialects.openai.responses.store import ResponseStore, StoredResponse
from quintet.server.dialects.openai.responses.turn import Turn, turn_prompt
from quintet.server.dialects.openai.responses.websocket import ResponsesSocket
from quintet.server.dialects.openai.sampling import refuse
from quintet.server.disconnect import cancel, unless_disconnected
from quintet.server.errors import HTTPRefusal, error_reply
from quintet.server.limits import read_json
from quintet.server.streaming import FrameStream, event

_log = logging.getLogger(__name__)

MAX_BACKGROUND: Final = 64
_MAX_LISTED: Final = 100
_ONE: Final = "/v1/responses/{id}"

RESPONSE_OPERATIONS: Final = {
    "POST /v1/responses": Operation(ResponseBody),
    "POST /v1/responses/input_tokens": Operation(TurnBody),
    f"GET {_ONE}": Operation(query={"stream": {"const": "false"}}),
    f"GET {_ONE}/input_items": Operation(
        query={
            "order": {"enum": ["asc", "desc"]},
            "limit": {"type": "integer", "minimum": 1, "maximum": _MAX_LISTED},
            "after": {"type": "string"},
        }
    ),
}


def response_routes(context: Context) -> list[BaseRoute]:
    """Create, read, call off and forget responses."""
    handlers = _Handlers(context)
    return [
        Route("/v1/responses", handlers.create, methods=["POST"]),
        WebSocketRoute("/v1/responses", handlers.connect),
        Route("/v1/responses/input_tokens", handlers.count, methods=["POST"]),
        Route(_ONE, handlers.retrieve, methods=["GET"]),
        Route(_ONE, handlers.delete, methods=["DELETE"]),
        Route(f"{_ONE}/cancel", handlers.cancel, methods=["POST"]),
        Route(f"{_ONE}/input_items", handlers.input_items, methods=["GET"]),
    ]


class _Handlers:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = ResponseStore()
        self._running: dict[str, tuple[Turn, asyncio.Task[None]]] = {}

    async def create(self, request: Request) -> Response:
        body = parse_body(ResponseBody, await self._json(request))
        turn = Turn(body, [self._store], [] if body.store is False else [self._store])
        if body.background:
            return JSONResponse(self._start(turn))
        if body.stream:
            return FrameStream(
                self._frames(turn),
                lambda error: _error_frame(turn, error),
                self._context.settings.keep_alive_s,
            )
        return JSONResponse(await unless_disconnected(request.receive, self._finish(turn)))

    async def connect(self, websocket: WebSocket) -> None:
        await ResponsesSocket(self._context, self._store, websocket).run()

    async def count(self, request: Request) -> Response:
        body = parse_body(TurnBody, await self._json(request))
        prompt = turn_prompt(body, [self._store])
        async with self._context.models.use(body.model) as model:
            count = await model.count_tokens(prompt)
        return JSONResponse({"object": "response.input_tokens", "input_tokens": count})

    async def retrieve(self, request: Request) -> Response:
        if request.query_params.get("stream") == "true":
            raise refuse("stream", "a response is streamed to the client that makes it alone")
        return JSONResponse(self._stored(request).response)

    async def delete(self, request: Request) -> Response:
        response_id = self._stored(request).response["id"]
        await self._call_off(response_id)
        self._store.delete(response_id)
        return JSONResponse({"id": response_id, "object": "response", "deleted": True})

    async def cancel(self, request: Request) -> Response:
        response = self._stored(request).response
        if not response["background"]:
            raise RequestError("expected a response with background: true", parameter="id")
        await self._call_off(response["id"])
        return JSONResponse(response)

    async def input_items(self, request: Request) -> Response:
        items = list(self._stored(request).input_items)
        query = request.query_params
        if query.get("order", "desc") == "desc":
            items.reverse()
        limit = query.get("limit", "20")
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= _MAX_LISTED):
            raise RequestError(f"expected 1 to {_MAX_LISTED}", parameter="limit")
        return JSONResponse(_page(items, query.get("after"), int(limit)))

    def _start(self, turn: Turn) -> dict[str, Any]:
        """Begin a turn that goes on when its client has left."""
        if turn.body.stream:
            raise refuse("background", "not together with stream; ask for the response by its id")
        if turn.body.store is False:
            raise RequestError("expected store: true beside it", parameter="background")
        if len(self._running) >= MAX_BACKGROUND:
            raise CapacityError(
                f"{MAX_BACKGROUND} responses run in the background", resource="background responses"
            )
        self._context.models.find(turn.body.model)
        turn.keep()
        response_id = turn.response["id"]
        task = asyncio.ensure_future(self._run(turn))
        self._running[response_id] = turn, task
        task.add_done_callback(lambda _: self._running.pop(response_id, None))
        return dict(turn.response)

    async def _run(self, turn: Turn) -> None:
        try:
            await self._finish(turn)
        except Exception as error:  # noqa: BLE001 - told in the response
            turn.failed(_reply(error))

    async def _finish(self, turn: Turn) -> dict[str, Any]:
        async with contextlib.aclosing(turn.events(self._context)) as events:
            async for _ in events:
                pass
        return turn.response

    async def _frames(self, turn: Turn) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(turn.events(self._context)) as events:
            async for data in events:
                yield event(data, data["type"])

    async def _call_off(self, response_id: str) -> None:
        turn, task = self._running.get(response_id, (None, None))
        if turn is not None and task is not None and not task.done():
            await cancel(task)
            turn.cancelled()

    def _stored(self, request: Request) -> StoredResponse:
        stored = self._store.get(request.path_params["id"])
        if stored is None:
            raise HTTPRefusal(404, "no such response is kept", code="response_not_found")
        return stored

    async def _json(self, request: Request) -> Any:
        return await read_json(request.receive, self._context.settings)


def _page(items: Sequence[dict[str, Any]], after: str | None, limit: int) -> dict[str, Any]:
    ids = [item["id"] for item in items]
    if after is not None:
        if after not in ids:
            raise RequestError("expected the id of one of the items", parameter="after")
        items = items[ids.index(after) + 1 :]
    page = items[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > limit,
    }


def _reply(error: Exception) -> Any:
    reply = error_reply(error)
    if reply.status >= 500:
        _log.error("a response ended early", exc_info=error)
    return reply


def _error_frame(turn: Turn, error: Exception) -> bytes:
    reply = _reply(error)
    data = turn.failed(reply)
    if data is None:  # a keep-alive has committed the stream to 200 before anything was known
        fields = {"code": reply.code, "message": reply.message, "param": reply.param}
        data = {"type": "error", "sequence_number": 0, **fields}
    return event(data, data["type"])
