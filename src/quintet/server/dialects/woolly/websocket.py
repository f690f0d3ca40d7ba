"""The WebSocket protocol: many requests on one connection, each with an id of the client's.

Messages to the client go through one bounded queue and one writer: a client that does not read
stops its own answers, and no other's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from quintet.errors import QuintetError, RequestError
from quintet.server.answers import Answer
from quintet.server.bodies import parse_body
from quintet.server.dialect import Context
from quintet.server.dialects.woolly.bodies import ClientMessage, SamplingConfig
from quintet.server.dialects.woolly.current import CurrentModel
from quintet.server.dialects.woolly.errors import code
from quintet.server.dialects.woolly.generation import (
    Clock,
    chat_request,
    finish_reason,
    num_tokens,
    prompt_request,
)
from quintet.server.disconnect import cancel
from quintet.server.errors import HTTPRefusal, error_reply
from quintet.server.generation import stream_all
from quintet.server.limits import parse_json
from quintet.server.requests import GenerationRequest
from quintet.server.settings import Settings

_log = logging.getLogger(__name__)

MAX_REQUESTS = 16  # unfinished ones of a connection
_MAX_UNSENT = 256  # messages
_STATUS_EVERY_S = 30.0


class Connections:
    """Serves WebSocket connections.

    Args:
        context: models and limits.
        current: which model is meant where none is named.
    """

    def __init__(self, context: Context, current: CurrentModel) -> None:
        self._context = context
        self._current = current
        self._num_open = 0

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one connection to its end."""
        await websocket.accept()
        self._num_open += 1
        try:
            await _Connection(websocket, self._context, self._current, self).run()
        finally:
            self._num_open -= 1

    def status(self) -> dict[str, Any]:
        """The status event."""
        models = list(self._context.models)
        return {
            "type": "status",
            "model": self._current.name,
            "active_sessions": self._num_open,
            "memory_used": sum(model.num_bytes for model in models),
            "gpu_memory_used": 0,
        }


class _Connection:
    def __init__(
        self, websocket: WebSocket, context: Context, current: CurrentModel, all_: Connections
    ) -> None:
        self._websocket = websocket
        self._settings: Settings = context.settings
        self._current = current
        self._all = all_
        self._unsent: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_MAX_UNSENT)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()

    async def run(self) -> None:
        """Read until the client leaves or breaks the protocol; then end what it asked for."""
        writer = asyncio.ensure_future(self._write())
        reader = asyncio.ensure_future(self._read())
        try:
            await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(reader, writer, *self._tasks.values())
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await self._websocket.close()

    async def _read(self) -> None:
        await self._unsent.put(self._all.status())
        while True:
            receiving = asyncio.wait_for(self._websocket.receive(), self._settings.socket_idle_s)
            try:
                message = await receiving
            except asyncio.TimeoutError:
                if self._tasks:
                    continue
                return  # it has nothing to say and nothing to wait for
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes") or (message.get("text") or "").encode()
            request_id = None
            try:
                value = parse_json(data, self._settings.max_json_depth)
                if isinstance(value, dict) and isinstance(value.get("id"), str):
                    request_id = value["id"][:128]
                await self._take(parse_body(ClientMessage, value))
            except (QuintetError, HTTPRefusal) as error:
                await self._tell(request_id, error)

    async def _write(self) -> None:
        while True:
            try:
                event = await asyncio.wait_for(self._unsent.get(), _STATUS_EVERY_S)
            except asyncio.TimeoutError:
                event = self._all.status()
            text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
            try:
                await asyncio.wait_for(
                    self._websocket.send_text(text), self._settings.stall_timeout_s
                )
            except (asyncio.TimeoutError, WebSocketDisconnect, RuntimeError):
                return  # it does not read, or has gone

    async def _take(self, message: ClientMessage) -> None:
        if message.type == "status":
            await self._unsent.put(self._all.status())
            return
        if message.id is None:
            raise RequestError("expected a request's id", parameter="id")
        if message.type == "cancel":
            task = self._tasks.get(message.id)
            if task is None:
                raise RequestError("expected the id of an unfinished request", parameter="id")
            self._cancelled.add(message.id)
            task.cancel()
            return
        asked = _request(message)
        if message.id in self._tasks:
            raise RequestError("expected an id that is not in use", parameter="id")
        if len(self._tasks) >= MAX_REQUESTS:
            raise HTTPRefusal(
                429, f"at most {MAX_REQUESTS} requests at a time", code="too_many_requests"
            )
        task = asyncio.ensure_future(self._answer(message.id, message, asked))
        self._tasks[message.id] = task

    async def _answer(
        self, request_id: str, message: ClientMessage, asked: GenerationRequest
    ) -> None:
        answer, clock = Answer(), Clock()
        try:
            await self._generate(request_id, message, asked, answer)
        except asyncio.CancelledError:
            if request_id not in self._cancelled:
                raise
            answer.finish_reason = "abort"
        except Exception as error:  # noqa: BLE001 - the connection's other requests go on
            await self._tell(request_id, error)
            return
        finally:
            self._tasks.pop(request_id, None)
            self._cancelled.discard(request_id)
        await self._unsent.put(
            {
                "type": "complete",
                "request_id": request_id,
                "text": answer.text,
                **clock.times(num_tokens(answer)),
                "finish_reason": finish_reason(answer),
            }
        )

    async def _generate(
        self, request_id: str, message: ClientMessage, asked: GenerationRequest, answer: Answer
    ) -> None:
        index = 0
        async with contextlib.AsyncExitStack() as stack:
            model = await stack.enter_async_context(
                self._current.use(message.model, message.keep_alive)
            )
            chunks = contextlib.aclosing(stream_all(model, [asked]))
            async for _, chunk in await stack.enter_async_context(chunks):
                answer.add(chunk)
                if chunk.text:
                    await self._unsent.put(
                        {
                            "type": "token",
                            "request_id": request_id,
                            "token": chunk.text,
                            "index": index,
                            "timestamp": round(time.time() * 1000),
                        }
                    )
                    index += 1

    async def _tell(self, request_id: str | None, error: Exception) -> None:
        reply = error_reply(error)
        if reply.status >= 500:
            _log.error("a request on a WebSocket failed", exc_info=error)
        await self._unsent.put(
            {
                "type": "error",
                "request_id": request_id,
                "error": reply.message,
                "code": code(reply),
            }
        )


def _request(message: ClientMessage) -> GenerationRequest:
    config = parse_body(SamplingConfig, message.config or {})
    if message.type == "generate":
        if message.prompt is None:
            raise RequestError("expected a prompt", parameter="prompt")
        return prompt_request(message.prompt, config)
    if message.type == "chat":
        if message.messages is None:
            raise RequestError("expected messages", parameter="messages")
        return chat_request(message.messages, config)
    raise RequestError("expected generate, chat, cancel or status", parameter="type")
