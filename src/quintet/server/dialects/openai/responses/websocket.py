"""Responses over a WebSocket: `response.create` messages in, the events of HTTP's streams out.

A `stream_id` names a lane: turns of a lane follow each other, those of several lanes run side by
side, and their events and errors carry the name.  What `store: false` keeps from the server's
store, the connection itself remembers until it closes.

Sources: OpenAI, "WebSocket mode" guide, and openai-python, src/openai/lib/responses_websocket
(lanes, limits, error codes); RFC 6455, section 7.4 (close codes).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from quintet.errors import RequestError
from quintet.server.bodies import parse_body
from quintet.server.dialect import Context
from quintet.server.dialects.openai.responses.bodies import ResponseBody
from quintet.server.dialects.openai.responses.store import ResponseStore
from quintet.server.dialects.openai.responses.turn import Turn
from quintet.server.dialects.openai.sampling import refuse
from quintet.server.disconnect import cancel
from quintet.server.errors import ErrorReply, HTTPRefusal, error_reply
from quintet.server.limits import parse_json
from quintet.server.protocol import DRAINING
from quintet.server.streaming import json_bytes

_log = logging.getLogger(__name__)

MAX_LANES: Final = 32
MAX_PENDING: Final = 16
_MAX_REMEMBERED: Final = 64
_MAX_REMEMBERED_BYTES: Final = 16 * 1024 * 1024
_STREAM_ID: Final = re.compile("[A-Za-z0-9_.-]{1,256}")
_IDLE_CODE: Final = 1000
_RESTART_CODE: Final = 1012


class ResponsesSocket:
    """
    One connection.

    Args:
        context: models and limits.
        store: the server's.
        websocket: not accepted yet; the guard has let it pass.
    """

    def __init__(self, context: Context, store: ResponseStore, websocket: WebSocket) -> None:
        self._context = context
        self._settings = context.settings
        self._store = store
        self._remembered = ResponseStore(_MAX_REMEMBERED, _MAX_REMEMBERED_BYTES, math.inf)
        self._websocket = websocket
        self._lanes: dict[str | None, _Lane] = {}
        self._num_pending = 0
        self._nothing_pending = asyncio.Event()
        self._nothing_pending.set()
        self._draining = websocket.scope["state"][DRAINING] = asyncio.Event()

    async def run(self) -> None:
        """Serve until the client leaves, or is silent or deaf for too long."""
        await self._websocket.accept()
        closing = asyncio.ensure_future(self._close_when_drained())
        try:
            while (message := await self._receive()) is not None:
                await self._handle(message)
        except WebSocketDisconnect:
            pass
        finally:
            await cancel(closing, *(lane.task for lane in self._lanes.values()))

    async def _close_when_drained(self) -> None:
        """The server stops: what is pending may end, or fails with the models."""
        await self._draining.wait()
        await self._nothing_pending.wait()
        await self._websocket.close(_RESTART_CODE, "the server is stopping")

    async def _receive(self) -> str | bytes | None:
        """The next message; None when the client has nothing to say and nothing to wait for."""
        while True:
            receiving = asyncio.wait_for(self._websocket.receive(), self._settings.socket_idle_s)
            try:
                message = await receiving
            except asyncio.TimeoutError:
                if self._num_pending:
                    continue
                await self._websocket.close(_IDLE_CODE, "idle")
                return None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            text: str | None = message.get("text")
            return message["bytes"] if text is None else text

    async def _handle(self, message: str | bytes) -> None:
        """Put a request at the end of its lane, or say what is wrong with it."""
        stream_id = None
        try:
            if isinstance(message, bytes):
                raise RequestError("expected a text message")
            data = parse_json(message.encode("utf-8", "surrogatepass"), self._max_depth)
            if not isinstance(data, dict) or data.get("type") != "response.create":
                raise RequestError('expected "response.create"', parameter="type")
            stream_id = _checked_stream_id(data)
            body = parse_body(ResponseBody, data)
            if body.background:
                raise refuse("background", "not over a WebSocket")
            if self._draining.is_set():
                raise HTTPRefusal(503, "the server is stopping", code="server_stopping")
            if self._num_pending >= MAX_PENDING:
                raise HTTPRefusal(
                    429, f"{MAX_PENDING} responses are pending", code="too_many_pending_responses"
                )
            lane = self._lane(stream_id)
        except (RequestError, HTTPRefusal) as error:
            await self._send_error(error_reply(error), stream_id)
            return
        self._num_pending += 1
        self._nothing_pending.clear()
        lane.bodies.put_nowait(body)

    def _lane(self, stream_id: str | None) -> _Lane:
        lane = self._lanes.get(stream_id)
        if lane is None:
            if stream_id is not None and len(self._lanes.keys() - {None}) >= MAX_LANES:
                raise HTTPRefusal(
                    400,
                    f"expected at most {MAX_LANES} stream ids on a connection",
                    code="websocket_stream_limit_reached",
                )
            lane = self._lanes[stream_id] = _Lane()
            lane.task = asyncio.ensure_future(self._serve(lane, stream_id))
        return lane

    async def _serve(self, lane: _Lane, stream_id: str | None) -> None:
        """Answer a lane's requests, one after the other."""
        while True:
            body = await lane.bodies.get()
            try:
                await self._answer(body, stream_id)
            except WebSocketDisconnect:
                return  # `run` hears of it as well
            finally:
                self._num_pending -= 1
                if not self._num_pending:
                    self._nothing_pending.set()

    async def _answer(self, body: ResponseBody, stream_id: str | None) -> None:
        turn: Turn | None = None
        try:
            keeps = [self._remembered] if body.store is False else [self._remembered, self._store]
            turn = Turn(body, [self._remembered, self._store], keeps)
            async with contextlib.aclosing(turn.events(self._context)) as events:
                async for event in events:
                    await self._send(event, stream_id)
        except WebSocketDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - told to the client; the next turn goes on
            reply = error_reply(error)
            if reply.status >= 500:
                _log.error("a response ended early", exc_info=error)
            failed = None if turn is None else turn.failed(reply)
            if failed is None:
                await self._send_error(reply, stream_id)
            else:
                await self._send(failed, stream_id)

    async def _send_error(self, reply: ErrorReply, stream_id: str | None) -> None:
        error = reply.openai_body()["error"]
        if reply.headers:
            error["headers"] = dict(reply.headers)
        await self._send({"type": "error", "status": reply.status, "error": error}, stream_id)

    async def _send(self, event: dict[str, Any], stream_id: str | None) -> None:
        if stream_id is not None:
            event = {**event, "stream_id": stream_id}
        text = json_bytes(event).decode()
        await self._websocket.send_text(text)

    @property
    def _max_depth(self) -> int:
        return self._settings.max_json_depth


class _Lane:
    """Requests that wait for each other."""

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.bodies: asyncio.Queue[ResponseBody] = asyncio.Queue()


def _checked_stream_id(data: dict[str, Any]) -> str | None:
    stream_id = data.get("stream_id")
    if stream_id is None:
        return None
    if not isinstance(stream_id, str) or _STREAM_ID.fullmatch(stream_id) is None:
        raise HTTPRefusal(
            400,
            "stream_id: expected 1 to 256 letters, digits, underscores, hyphens or periods",
            code="invalid_stream_id",
        )
    return stream_id
