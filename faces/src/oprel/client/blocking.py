"""Ollama's interface from Python.

Where nobody listens at this user's own address a daemon is started; see `oprel.daemon`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
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


class Client:
    """
    A client of a server; safe to use from several threads, and a context manager.

    Args:
        host: its address; the default one stands for the environment's.
        headers: sent with every request.
        timeout: seconds without a byte; None waits.

    Raises:
        ValidationError: `host` is no address.
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
        self._http = httpx.Client(
            base_url=self.host,
            headers=dict(headers or {}),
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        )
        self._close = weakref.finalize(self, self._http.close)

    def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any] | Any] | None = None,
        stream: bool = False,
        options: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Any:
        """
        Answer a conversation.

        Args:
            messages: each with a role and a content.
            stream: give the answer in pieces.
            options: temperature, max_tokens...
            fields: further ones of Ollama's: tools, format, think, keep_alive...

        Returns:
            A ChatResponse, or an iterator of them.

        Raises:
            ModelNotFoundError: there is no such model.
            OprelError: it could not be answered.
        """
        return self._send(calls.chat(model, messages, stream, options=options, **fields))

    def generate(
        self,
        model: str,
        prompt: str = "",
        stream: bool = False,
        options: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Any:
        """Answer a prompt: a GenerateResponse, or an iterator of them; see `chat`."""
        return self._send(calls.generate(model, prompt, stream, options=options, **fields))

    def embed(self, model: str, input: str | Sequence[str] = "", **fields: Any) -> EmbedResponse:
        """Vectors of texts."""
        found: EmbedResponse = self._send(calls.embed(model, input, **fields))
        return found

    def embeddings(self, model: str, prompt: str = "", **fields: Any) -> EmbeddingsResponse:
        """The vector of a text, as older programs ask for it."""
        found: EmbeddingsResponse = self._send(calls.embeddings(model, prompt, **fields))
        return found

    def list(self) -> ListResponse:
        """The models there are."""
        found: ListResponse = self._send(calls.list_models())
        return found

    def ps(self) -> ProcessResponse:
        """The models in memory."""
        found: ProcessResponse = self._send(calls.ps())
        return found

    def show(self, model: str) -> ShowResponse:
        """What a model is."""
        found: ShowResponse = self._send(calls.show(model))
        return found

    def pull(self, model: str, stream: bool = False) -> Any:
        """Download a model: a ProgressResponse, or an iterator of them."""
        return self._send(calls.pull(model, stream))

    def create(
        self, model: str, modelfile: str | None = None, stream: bool = False, **fields: Any
    ) -> Any:
        """
        Make a model from another one, as a Modelfile says.

        Args:
            modelfile: its text or its path.
            fields: Ollama's, instead or beside it: from_, system, template, parameters...

        Returns:
            A ProgressResponse, or an iterator of them.
        """
        return self._send(calls.create(model, modelfile, stream, fields))

    def delete(self, model: str) -> StatusResponse:
        """Remove a model."""
        found: StatusResponse = self._send(calls.delete(model))
        return found

    def copy(self, source: str, destination: str) -> StatusResponse:
        """Give a model a second name."""
        found: StatusResponse = self._send(calls.copy(source, destination))
        return found

    def close(self) -> None:
        """Close the connections."""
        self._close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, call: Call) -> Any:
        if call.is_streamed:
            return self._lines(call)
        response = self._open(call, is_streamed=False)
        return calls.read_answer(call, response.status_code, response.content)

    def _lines(self, call: Call) -> Iterator[Any]:
        import httpx

        response = self._open(call, is_streamed=True)
        try:
            if response.status_code >= 400:
                raise calls.read_error(response.status_code, response.read())
            for line in response.iter_lines():
                if line:
                    yield calls.read_line(call, line)
        except httpx.HTTPError as error:
            raise BackendError(f"{self.host} broke off: {error}") from error
        finally:
            response.close()

    def _open(self, call: Call, *, is_streamed: bool) -> httpx.Response:
        import httpx

        request = self._http.build_request(call.method, call.path, json=call.body)
        try:
            try:
                return self._http.send(request, stream=is_streamed)
            except httpx.ConnectError:
                if not daemon.is_own(self.host):
                    raise
            daemon.ensure()
            return self._http.send(request, stream=is_streamed)
        except httpx.HTTPError as error:
            raise BackendError(f"no answer from {self.host}: {error}") from error
