"""Ollama's interface for asyncio programs: the calls of `Client`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oprel import daemon
from oprel.client import calls
from oprel.client.calls import CONNECT_TIMEOUT_S, Call
from oprel.core.exceptions import BackendError
from oprel.responses import (
    EmbeddingsResponse,
    EmbedResponse,
    ListResponse,
    ProcessResponse,
    ShowResponse,
    StatusResponse,
)

if TYPE_CHECKING:
    import httpx


class AsyncClient:
    """
    `Client` for asyncio programs: each call is awaited, and a stream is an async iterator that
    the awaited call gives.

    Args, Raises: as `Client`.
    """

    def __init__(
        self,
        host: str = daemon.DEFAULT_HOST,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> None:
        import httpx

        self.host = daemon.resolved_url(host)
        self._http = httpx.AsyncClient(
            base_url=self.host,
            headers=dict(headers or {}),
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        )

    async def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any] | Any] | None = None,
        stream: bool = False,
        options: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Any:
        """Answer a conversation; see `Client.chat`."""
        return await self._send(calls.chat(model, messages, stream, options=options, **fields))

    async def generate(
        self,
        model: str,
        prompt: str = "",
        stream: bool = False,
        options: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Any:
        """Answer a prompt; see `Client.generate`."""
        return await self._send(calls.generate(model, prompt, stream, options=options, **fields))

    async def embed(
        self, model: str, input: str | Sequence[str] = "", **fields: Any
    ) -> EmbedResponse:
        """Vectors of texts."""
        found: EmbedResponse = await self._send(calls.embed(model, input, **fields))
        return found

    async def embeddings(self, model: str, prompt: str = "", **fields: Any) -> EmbeddingsResponse:
        """The vector of a text, as older programs ask for it."""
        found: EmbeddingsResponse = await self._send(calls.embeddings(model, prompt, **fields))
        return found

    async def list(self) -> ListResponse:
        """The models there are."""
        found: ListResponse = await self._send(calls.list_models())
        return found

    async def ps(self) -> ProcessResponse:
        """The models in memory."""
        found: ProcessResponse = await self._send(calls.ps())
        return found

    async def show(self, model: str) -> ShowResponse:
        """What a model is."""
        found: ShowResponse = await self._send(calls.show(model))
        return found

    async def pull(self, model: str, stream: bool = False) -> Any:
        """Download a model; see `Client.pull`."""
        return await self._send(calls.pull(model, stream))

    async def create(
        self, model: str, modelfile: str | None = None, stream: bool = False, **fields: Any
    ) -> Any:
        """Make a model from another one; see `Client.create`."""
        return await self._send(calls.create(model, modelfile, stream, fields))

    async def delete(self, model: str) -> StatusResponse:
        """Remove a model."""
        found: StatusResponse = await self._send(calls.delete(model))
        return found

    async def copy(self, source: str, destination: str) -> StatusResponse:
        """Give a model a second name."""
        found: StatusResponse = await self._send(calls.copy(source, destination))
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, call: Call) -> Any:
        if call.is_streamed:
            return self._lines(call)
        response = await self._open(call, is_streamed=False)
        return calls.read_answer(call, response.status_code, response.content)

    async def _lines(self, call: Call) -> AsyncIterator[Any]:
        import httpx

        response = await self._open(call, is_streamed=True)
        try:
            if response.status_code >= 400:
                raise calls.read_error(response.status_code, await response.aread())
            async for line in response.aiter_lines():
                if line:
                    yield calls.read_line(call, line)
        except httpx.HTTPError as error:
            raise BackendError(f"{self.host} broke off: {error}") from error
        finally:
            await response.aclose()

    async def _open(self, call: Call, *, is_streamed: bool) -> httpx.Response:
        import httpx

        request = self._http.build_request(call.method, call.path, json=call.body)
        try:
            try:
                return await self._http.send(request, stream=is_streamed)
            except httpx.ConnectError:
                if not daemon.is_own(self.host):
                    raise
            await asyncio.to_thread(daemon.ensure)
            return await self._http.send(request, stream=is_streamed)
        except httpx.HTTPError as error:
            raise BackendError(f"no answer from {self.host}: {error}") from error
