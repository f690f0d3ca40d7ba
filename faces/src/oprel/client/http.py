"""HTTP as it is, with endpoints as Oprel has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oprel import daemon
from oprel.core.exceptions import BackendError

if TYPE_CHECKING:
    import httpx

# Oprel has these at the root, Ollama's interface below /api.
_ENDPOINTS = frozenset(
    f"/{name}"
    for name in (
        *("generate", "chat", "embed", "embeddings", "tags", "ps", "show", "pull", "create"),
        *("copy", "delete", "version"),
    )
)
# Streamed unless told otherwise, which nobody expects of `client.post`.
_STREAMED = frozenset({"/api/generate", "/api/chat", "/api/pull", "/api/create"})
DEFAULT_TIMEOUT_S = 600.0


class HTTPClient:
    """
    Sends requests to a server; a context manager.

    Args:
        base_url: its address; the default one stands for the environment's.
        timeout: seconds without a byte.

    Raises:
        ValidationError: `base_url` is no address.
    """

    def __init__(
        self, base_url: str = daemon.DEFAULT_HOST, timeout: float | None = DEFAULT_TIMEOUT_S
    ) -> None:
        import httpx

        self.base_url = daemon.resolved_url(base_url)
        self._client = httpx.Client(base_url=self.base_url, timeout=timeout, trust_env=False)

    def post(self, endpoint: str, json: Any = None) -> httpx.Response:
        """
        Send a POST request; an endpoint that streams gives all at once unless `json` says stream.

        Raises:
            BackendError: nobody answers.
        """
        path = _path(endpoint)
        if path in _STREAMED and isinstance(json, dict):
            json = {"stream": False, **json}
        return self._send("POST", path, json)

    def get(self, endpoint: str) -> httpx.Response:
        """Send a GET request.

        Raises: as `post`.
        """
        return self._send("GET", _path(endpoint), None)

    def delete(self, endpoint: str, json: Any = None) -> httpx.Response:
        """Send a DELETE request.

        Raises: as `post`.
        """
        return self._send("DELETE", _path(endpoint), json)

    def health_check(self) -> bool:
        """Whether a server answers that it is well."""
        try:
            return self._send("GET", "/health", None).status_code == 200
        except BackendError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> HTTPClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, method: str, path: str, body: Any) -> httpx.Response:
        import httpx

        try:
            return self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise BackendError(f"no answer from {self.base_url}: {error}") from error


def _path(endpoint: str) -> str:
    path = endpoint if endpoint.startswith("/") else f"/{endpoint}"
    return f"/api{path}" if path in _ENDPOINTS else path
