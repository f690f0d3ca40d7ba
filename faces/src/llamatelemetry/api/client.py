"""A client of llama-server, Quintet's or llama.cpp's own."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any

import httpx

from llamatelemetry.api.responses import (
    ChatCompletionChunk,
    ChatCompletionResponse,
    Choice,
    ChunkChoice,
    CompletionChoice,
    CompletionResponse,
    Delta,
    DetokenizeResponse,
    Embedding,
    EmbeddingResponse,
    EmbeddingUsage,
    Message,
    Model,
    ModelList,
    TokenizeResponse,
    Usage,
    parsed,
)
from llamatelemetry.exceptions import ClientError, ServerError

__all__ = [
    "ChatCompletionChunk",
    "ChatCompletionResponse",
    "Choice",
    "ChunkChoice",
    "CompletionChoice",
    "CompletionResponse",
    "Delta",
    "DetokenizeResponse",
    "Embedding",
    "EmbeddingResponse",
    "EmbeddingUsage",
    "LlamaCppClient",
    "Message",
    "Model",
    "ModelList",
    "TokenizeResponse",
    "Usage",
]

_MODEL = "default"  # llama-server has one and does not look at its name


class LlamaCppClient:
    """
    Talks to one server.  Safe to use from several threads.

    Args:
        base_url: of the server, without "/v1".
        api_key: what it asks for.
        timeout: seconds without a byte after which a request is given up.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        api_key: str | None = None,
        timeout: float = 30,
    ) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._client = httpx.Client(base_url=base_url.rstrip("/"), headers=headers, timeout=timeout)

    def health(self) -> dict[str, Any]:
        """`{"status": "ok"}` of a server that is well.

        Raises:
            ServerError: it is not, or not yet.
            ClientError: it cannot be reached; so for all methods.
        """
        return dict(self._request("GET", "/health"))

    def list_models(self) -> ModelList:
        """The models it has."""
        return parsed(ModelList, self._request("GET", "/v1/models"))

    def get_props(self) -> dict[str, Any]:
        """What the server is, as llama-server's /props says."""
        return dict(self._request("GET", "/props"))

    def get_slots(self) -> list[dict[str, Any]]:
        """Its seats and whether they are taken, as llama-server's /slots says."""
        return list(self._request("GET", "/slots"))

    def chat_completion(
        self,
        messages: Sequence[dict[str, Any]],
        max_tokens: int = 256,
        temperature: float = 0.8,
        top_p: float = 0.95,
        top_k: int = 40,
        repeat_penalty: float = 1.1,
        stop: list[str] | None = None,
        seed: int | None = None,
        stream: bool = False,
        **kwargs: Any,
    ) -> Any:
        """
        The assistant's next message.

        Args:
            messages: the conversation.
            max_tokens, temperature, top_p, top_k, repeat_penalty, stop, seed: how it is drawn.
            stream: True gives what `chat_completion_stream` gives.
            kwargs: further fields of the request.

        Returns:
            A `ChatCompletionResponse`, or a generator of `ChatCompletionChunk`.

        Raises:
            ClientError: the request was refused.
            ServerError: the server failed.
        """
        body = _body(
            messages=list(messages),
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repeat_penalty=repeat_penalty,
            stop=stop,
            seed=seed,
            **kwargs,
        )
        if stream:
            return self._stream("/v1/chat/completions", body)
        return parsed(ChatCompletionResponse, self._request("POST", "/v1/chat/completions", body))

    def chat_completion_stream(
        self, messages: Sequence[dict[str, Any]], **kwargs: Any
    ) -> Generator[ChatCompletionChunk, None, None]:
        """The assistant's next message as it comes; leaving the loop ends the request.

        Args, Raises: as for `chat_completion`.
        """
        chunks: Generator[ChatCompletionChunk, None, None] = self.chat_completion(
            messages, **{**kwargs, "stream": True}
        )
        return chunks

    def completion(
        self,
        prompt: str,
        max_tokens: int = 256,
        temperature: float = 0.8,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> CompletionResponse:
        """
        Continue a text.

        Args:
            prompt: the text.
            max_tokens, temperature, stop: how it is drawn.
            kwargs: further fields of the request.

        Raises: as for `chat_completion`.
        """
        body = _body(
            prompt=prompt, max_tokens=max_tokens, temperature=temperature, stop=stop, **kwargs
        )
        return parsed(CompletionResponse, self._request("POST", "/v1/completions", body))

    def embeddings(self, input: str | list[str], model: str | None = None) -> EmbeddingResponse:
        """
        Vectors of texts.

        Args:
            input: one or several.
            model: its name, for servers that have several.

        Raises: as for `chat_completion`.
        """
        body = _body(input=input, model=model)
        return parsed(EmbeddingResponse, self._request("POST", "/v1/embeddings", body))

    def tokenize(self, text: str) -> TokenizeResponse:
        """The tokens of a text."""
        return parsed(TokenizeResponse, self._request("POST", "/tokenize", {"content": text}))

    def detokenize(self, tokens: list[int]) -> DetokenizeResponse:
        """The text of tokens."""
        return parsed(DetokenizeResponse, self._request("POST", "/detokenize", {"tokens": tokens}))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> LlamaCppClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            response = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise ClientError(f"{self._client.base_url}: {error}") from error
        _check(response)
        try:
            return response.json()
        except ValueError:
            raise ClientError(f"{path}: expected JSON, found {response.text[:100]!r}") from None

    def _stream(
        self, path: str, body: dict[str, Any]
    ) -> Generator[ChatCompletionChunk, None, None]:
        try:
            with self._client.stream("POST", path, json={**body, "stream": True}) as response:
                if not response.is_success:
                    response.read()
                    _check(response)
                for line in response.iter_lines():
                    if not line.startswith("data:"):
                        continue
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    content = json.loads(data)
                    if "error" in content:
                        raise ServerError(_message(content, data))
                    yield parsed(ChatCompletionChunk, content)
        except (httpx.HTTPError, json.JSONDecodeError) as error:
            raise ClientError(f"{self._client.base_url}: {error}") from error


def _body(**fields: Any) -> dict[str, Any]:
    return {"model": _MODEL, **{name: each for name, each in fields.items() if each is not None}}


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        message = _message(response.json(), response.text)
    except ValueError:
        message = response.text[:500]
    kind = ServerError if response.is_server_error else ClientError
    raise kind(f"{response.status_code}: {message}")


def _message(content: Any, text: str) -> str:
    error = content.get("error") if isinstance(content, dict) else None
    if isinstance(error, dict) and "message" in error:
        return str(error["message"])
    return text[:500]
