"""Conversations with an `LLM`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from quintet.chat import Tools
from quintet.engine.output import OutputChunk
from quintet.engine.request import RequestOptions
from quintet.llm import LLM
from quintet.sampling.params import SamplingParams
from quintet.sessions.exchange import Exchange, Reply
from quintet.sessions.locks import NameLocks
from quintet.sessions.store import Message, SessionInfo, SessionStore

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Sessions:
    """
    Named conversations with a model.  Safe to use from several threads: exchanges of one
    conversation wait for each other, those of different ones share the engine's steps.

    Args:
        llm: answers; not closed with this.
        path: of the SQLite file that keeps the conversations; None keeps them in memory.

    Raises:
        RequestError: the file cannot be opened, or is not one of ours.
    """

    def __init__(self, llm: LLM, path: str | os.PathLike[str] | None = None) -> None:
        self._llm = llm
        self._store = SessionStore(path)
        self._locks = NameLocks()

    def chat(
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
        """
        Say something in a conversation, which begins with the first such call.

        When it has outgrown the context the model no longer sees its oldest turns; they are
        kept, and the reply says how many they are.  An answer that fails or is aborted
        leaves the conversation as it was.

        Args:
            name: of the conversation.
            content: what the user says; or messages, such as the results of tools.
            system: the system prompt from now on; None keeps the one there is.
            params, tools, enable_thinking, options: as for `LLM.chat`.

        Raises: as for `LLM.chat`.
            RequestError: the conversation was changed by another process in the meantime.
        """
        params = params or SamplingParams()
        with self._locks.holding(name):
            exchange = self._begin(name, content, params, system, tools, enable_thinking)
            output = self._llm.chat(
                exchange.messages,
                params,
                tools=tools,
                enable_thinking=enable_thinking,
                **options,
            )
            return exchange.finish(self._store, output)

    def stream(
        self,
        name: str,
        content: str | Sequence[Message],
        params: SamplingParams | None = None,
        *,
        system: str | None = None,
        tools: Tools | None = None,
        enable_thinking: bool | None = None,
        **options: Unpack[RequestOptions],
    ) -> Iterator[OutputChunk]:
        """The same token by token; an answer that is not read to its end is not kept."""
        params = params or SamplingParams()
        with self._locks.holding(name):
            exchange = self._begin(name, content, params, system, tools, enable_thinking)
            stream = self._llm.stream_chat(
                exchange.messages,
                params,
                tools=tools,
                enable_thinking=enable_thinking,
                **options,
            )
            chunks = []
            for chunk in stream:
                chunks.append(chunk)
                if chunk.is_last:
                    exchange.finish_stream(self._store, chunks)
                yield chunk

    def history(self, name: str) -> list[Message]:
        """All messages of a conversation, its system prompt first; empty for an unknown one."""
        return Exchange(self._store.read(name), ()).starting_at(0).messages

    def list(self) -> list[SessionInfo]:
        """All conversations, the one written to last first."""
        return self._store.list()

    def reset(self, name: str) -> None:
        """Forget what was said; the system prompt stays.  A no-op for an unknown name."""
        self._store.reset(name)

    def delete(self, name: str) -> bool:
        """Forget a conversation altogether; whether there was one."""
        return self._store.delete(name)

    def close(self) -> None:
        """Close the file; the model stays.  Idempotent."""
        self._store.close()

    def __enter__(self) -> Sessions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(
        self,
        name: str,
        content: str | Sequence[Message],
        params: SamplingParams,
        system: str | None,
        tools: Tools | None,
        enable_thinking: bool | None,
    ) -> Exchange:
        return Exchange.begin(
            self._store,
            self._llm,
            name,
            content,
            params=params,
            system=system,
            tools=tools,
            enable_thinking=enable_thinking,
        )
