"""Conversations with an `AsyncLLM`: the names of `Sessions`, awaitable."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING, cast

from quintet.async_llm import AsyncLLM
from quintet.chat import Tools
from quintet.engine.output import OutputChunk
from quintet.engine.request import RequestOptions
from quintet.sampling.params import SamplingParams
from quintet.sessions.exchange import Exchange, Reply
from quintet.sessions.store import Message, SessionInfo, SessionStore

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncSessions:
    """
    Named conversations with a model.  Exchanges of one conversation wait for each other, those of
    different ones share the engine's steps.

    To be used from one event loop.

    Args: as for `Sessions`.

    Raises: as for `Sessions`.
    """

    def __init__(self, llm: AsyncLLM, path: str | os.PathLike[str] | None = None) -> None:
        self._llm = llm
        self._store = SessionStore(path)
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}  # with the number of users

    async def chat(
        self,
        name: str,
        content: str | Sequence[Message],
        params: SamplingParams | None = None,
        *,
        system: str | None = None,
        tools: Tools | None = None,
        enable_thinking: bool | None = None,
        **options: Unpack[RequestOptions],
    ) -> Reply:
        """Say something in a conversation; see `Sessions.chat`.  Cancelling it leaves the
        conversation as it was."""
        params = params or SamplingParams()
        async with self._holding(name):
            exchange = await self._begin(name, content, params, system, tools, enable_thinking)
            output = await self._llm.chat(
                exchange.messages,
                params,
                tools=tools,
                enable_thinking=enable_thinking,
                **options,
            )
            return await asyncio.to_thread(exchange.finish, self._store, output)

    async def stream(
        self,
        name: str,
        content: str | Sequence[Message],
        params: SamplingParams | None = None,
        *,
        system: str | None = None,
        tools: Tools | None = None,
        enable_thinking: bool | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncGenerator[OutputChunk, None]:
        """The same token by token; see `Sessions.stream`."""
        params = params or SamplingParams()
        async with self._holding(name):
            exchange = await self._begin(name, content, params, system, tools, enable_thinking)
            stream = self._llm.stream_chat(
                exchange.messages,
                params,
                tools=tools,
                enable_thinking=enable_thinking,
                **options,
            )
            chunks = []
            async with contextlib.aclosing(cast("AsyncGenerator[OutputChunk, None]", stream)):
                async for chunk in stream:
                    chunks.append(chunk)
                    if chunk.is_last:
                        await asyncio.to_thread(exchange.finish_stream, self._store, chunks)
                    yield chunk

    async def history(self, name: str) -> list[Message]:
        """All messages of a conversation; see `Sessions.history`."""
        conversation = await asyncio.to_thread(self._store.read, name)
        return Exchange(conversation, ()).starting_at(0).messages

    async def list(self) -> list[SessionInfo]:
        """All conversations, the one written to last first."""
        return await asyncio.to_thread(self._store.list)

    async def reset(self, name: str) -> None:
        """Forget what was said; see `Sessions.reset`."""
        await asyncio.to_thread(self._store.reset, name)

    async def delete(self, name: str) -> bool:
        """Forget a conversation altogether; whether there was one."""
        return await asyncio.to_thread(self._store.delete, name)

    async def close(self) -> None:
        """Close the file; the model stays.  Idempotent."""
        await asyncio.to_thread(self._store.close)

    async def __aenter__(self) -> AsyncSessions:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _begin(
        self,
        name: str,
        content: str | Sequence[Message],
        params: SamplingParams,
        system: str | None,
        tools: Tools | None,
        enable_thinking: bool | None,
    ) -> Exchange:
        await self._llm.__aenter__()  # loads it, if nobody has yet
        # In a thread: it reads a file and counts tokens.
        return await asyncio.to_thread(
            Exchange.begin,
            self._store,
            self._llm,
            name,
            content,
            params=params,
            system=system,
            tools=tools,
            enable_thinking=enable_thinking,
        )

    @contextlib.asynccontextmanager
    async def _holding(self, name: str) -> AsyncIterator[None]:
        lock, num_users = self._locks.get(name) or (asyncio.Lock(), 0)
        self._locks[name] = lock, num_users + 1
        try:
            async with lock:
                yield
        finally:
            lock, num_users = self._locks[name]
            if num_users == 1:
                del self._locks[name]
            else:
                self._locks[name] = lock, num_users - 1
