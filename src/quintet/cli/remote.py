"""A running server, asked over its HTTP API.

Source: Ollama documentation, "API": /api/ps, and /api/generate with keep_alive 0.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from quintet.errors import ModelNotFoundError, QuintetError, RequestError

if TYPE_CHECKING:
    import httpx

DEFAULT_HOST = "http://127.0.0.1:11434"
_TIMEOUT_S = 30.0


class ServerError(QuintetError):
    """A server that cannot be reached, or says no."""


def server_url() -> str:
    """
    $QUINTET_HOST, with or without http:// and a port; else this machine at Ollama's port.

    Raises:
        RequestError: it is no address.
    """
    text = os.environ.get("QUINTET_HOST") or DEFAULT_HOST
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RequestError(f"expected an address, found {text!r}", parameter="QUINTET_HOST")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port is None and "://" not in text:
        port = 11434
    return f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """
    One request and its answer; $QUINTET_API_KEY is sent along if it is set.

    Raises:
        ServerError: nobody answers, the answer is no JSON object, or it is an error.
        ModelNotFoundError: 404, with the server's words.
    """
    import httpx

    url = server_url()
    key = os.environ.get("QUINTET_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.request(
            method, url + path, json=body, headers=headers, timeout=_TIMEOUT_S, trust_env=False
        )
    except httpx.HTTPError as error:
        raise ServerError(
            f"no answer from {url}: {error}; QUINTET_HOST says where the server is"
        ) from error
    return _read(url, response)


def _read(url: str, response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        answer = None
    text = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(text, dict):
        text = text.get("message")
    if response.status_code == 404 and isinstance(text, str):
        raise ModelNotFoundError(text)
    if response.status_code == 401:
        raise ServerError(f"{url} wants a key: set QUINTET_API_KEY")
    if response.status_code != 200:
        raise ServerError(f"{url} answered {response.status_code}: {text or 'no reason given'}")
    if not isinstance(answer, dict):
        raise ServerError(f"{url}: expected a JSON object, found {response.text[:80]!r}")
    return answer
