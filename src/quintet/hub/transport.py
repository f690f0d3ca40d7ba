"""HTTP as the hub needs it: few redirects, none to where it must not lead, and no surprises.

The token goes to the endpoint's own origin and nowhere else.  A redirect may not leave https,
name credentials, or lead from a public endpoint to an address of this machine or network.
Bodies come as they were stored: no compression, so no bombs.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from quintet.errors import DownloadError
from quintet.formats import strict_json
from quintet.hub.hf_home import stored_token

if TYPE_CHECKING:
    import httpx

DEFAULT_ENDPOINT = "https://huggingface.co"
MAX_REDIRECTS = 5
MAX_JSON_BYTES = 4 * 2**20
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0  # without a single byte

_REDIRECTS = {301, 302, 303, 307, 308}
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
_MAX_RETRY_AFTER_S = 120.0


class TransferInterrupted(Exception):  # noqa: N818 - often mended by trying again
    """A transfer that may succeed if it is tried again.

    Args:
        message: what happened.
        retry_after_s: how long the host asks to wait.
    """

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class HubUnreachable(TransferInterrupted):
    """No connection came about: the network is down, or there is no such host."""


class RepositoryRefusedError(DownloadError):
    """The host says there is no such thing, or not for us; `status` is its answer."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


class Answer:
    """
    What a host answered; its body comes when it is asked for.

    Attributes:
        status: 200, 206 or 416.
        headers: by name, whatever the case.
        host: that answered, redirects followed.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.host = response.url.host

    def body(self) -> Iterator[bytes]:
        """
        The body as it comes.

        Raises:
            TransferInterrupted: the connection broke or stalled.
            DownloadError: it is compressed, which was not asked for.
        """
        import httpx

        encoding = self.headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            raise DownloadError(f"{self.host}: expected no compression, found {encoding!r:.40}")
        try:
            yield from self._response.iter_raw()
        except httpx.HTTPError as error:
            raise TransferInterrupted(f"{self.host}: {_reason(error)}") from error


class Transport:
    """
    A client of one endpoint; a context manager.

    Args:
        endpoint: the hub's address; None: $HF_ENDPOINT, else Hugging Face.
        token: who asks; None: $HF_TOKEN, else the token that `hf auth login` stored; "" for none.
        read_timeout_s: without a single byte.

    Raises:
        DownloadError: the endpoint is not an http or https address.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        import httpx

        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        self._token = stored_token() if token is None else token
        parts = _split(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DownloadError(
                f"expected an address of http or https as endpoint, found {self.endpoint!r}"
            )
        self._origin = _origin(parts)
        self._endpoint_is_local = _is_local(parts.hostname)
        timeout = httpx.Timeout(CONNECT_TIMEOUT_S, read=read_timeout_s)
        self._client = httpx.Client(
            follow_redirects=False,
            timeout=timeout,
            headers={"Accept-Encoding": "identity", "User-Agent": "quintet"},
        )

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get_json(self, path: str) -> Any:
        """
        A small document of the endpoint.

        Raises:
            TransferInterrupted, DownloadError: see `open`.
            ModelFormatError: it is not strict JSON.
        """
        with self.open(self.endpoint + path) as answer:
            if answer.status != 200:
                raise DownloadError(
                    f"{self.endpoint}{path}: expected status 200, found {answer.status}"
                )
            body = b""
            for chunk in answer.body():
                body += chunk
                if len(body) > MAX_JSON_BYTES:
                    raise DownloadError(
                        f"{self.endpoint}{path}: expected at most {MAX_JSON_BYTES:,} bytes"
                    )
        return strict_json.loads(body, path=self.endpoint + path)

    @contextlib.contextmanager
    def open(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """
        The answer to a GET, redirects followed.

        Raises:
            TransferInterrupted: the network failed, or the host asks to come again;
                HubUnreachable where there was no connection.
            RepositoryRefusedError: 4xx.
            DownloadError: anything a sound host would not do.
        """
        import httpx

        try:
            response = self._follow(url, headers or {})
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise HubUnreachable(f"{_host(url)}: cannot be reached: {_reason(error)}") from error
        except httpx.HTTPError as error:
            raise TransferInterrupted(f"{_host(url)}: {_reason(error)}") from error
        try:
            yield Answer(response)
        finally:
            response.close()

    def _follow(self, url: str, headers: Mapping[str, str]) -> httpx.Response:
        for _ in range(MAX_REDIRECTS + 1):
            response = self._client.send(
                self._client.build_request("GET", url, headers={**headers, **self._auth(url)}),
                stream=True,
            )
            try:
                if response.status_code not in _REDIRECTS:
                    _check(response)
                    return response
                target = _joined(url, response.headers.get("location", ""))
                self._check_redirect(url, target)
            except BaseException:
                response.close()
                raise
            response.close()
            url = target
        raise DownloadError(f"{_host(url)}: more than {MAX_REDIRECTS} redirects")

    def _auth(self, url: str) -> dict[str, str]:
        parts = urlsplit(url)
        if not self._token or _origin(parts) != self._origin:
            return {}
        if parts.scheme != "https" and not self._endpoint_is_local:
            raise DownloadError(f"{_host(url)}: a token is sent over https only")
        return {"Authorization": f"Bearer {self._token}"}

    def _check_redirect(self, source: str, target: str) -> None:
        parts = _split(target)
        where = f"{_host(source)} redirects to {parts.scheme}://{parts.hostname}"
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DownloadError(f"{where}: expected an address of http or https")
        if "@" in parts.netloc:
            raise DownloadError(f"{where}: the address names credentials")
        if urlsplit(source).scheme == "https" and parts.scheme != "https":
            raise DownloadError(f"{where}: from https to http")
        if not self._endpoint_is_local and _is_local(parts.hostname):
            raise DownloadError(f"{where}: an address of this machine or network")


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status in (200, 206, 416):
        return
    where = f"{response.url.host} answered {status} {response.reason_phrase}".strip()
    if status in _TEMPORARY:
        raise TransferInterrupted(where, retry_after_s=_retry_after(response.headers))
    if status in (401, 403):
        where += "; it may be private, gated or not there: HF_TOKEN says who asks"
    if 400 <= status < 500:
        raise RepositoryRefusedError(where, status)
    raise DownloadError(where)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Source: RFC 9110, section 10.2.3; the form in seconds."""
    text = headers.get("retry-after", "")
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() else 0.0


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise DownloadError(f"expected an address, found {target[:100]!r}") from error


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # a number that is none is found here
    except ValueError as error:
        raise DownloadError(f"expected an address, found {url[:100]!r}") from error
    return parts


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


def _is_local(host: str) -> bool:
    """Whether any address of the host is not a public one.  A host unknown here is not local."""
    try:
        found = [ipaddress.ip_address(host)]
    except ValueError:
        try:
            rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return False  # a proxy may know it; without one the connection fails anyway
        found = [ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in rows]
    return any(not address.is_global for address in found)


def _host(url: str) -> str:
    """Only the host: what follows may hold a signature."""
    return urlsplit(url).hostname or "hub"


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
