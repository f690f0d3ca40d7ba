"""A hub on this machine that can misbehave: an API, and a second host that has the content.

Source of the wire: huggingface_hub's HfApi.model_info and file_download, and the Hub's answers
to them: a 302 with X-Linked-Etag from /resolve/, ranges and a strong ETag where it leads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c0ffee" * 6 + "c0de"


@dataclass
class Fault:
    """
    What goes wrong with one answer of the content host; without arguments nothing does.

    Args:
        cut: bytes of the body to send before the connection is closed.
        stall_s: wait before the body.
        status: answer with this instead.
        headers: replace those of the answer; None takes one away.
        body: send this instead of the content, before ranges are applied.
        ignores_range: the whole content, with 200.
        is_chunked: no Content-Length.
        extra: bytes after the body.
        redirect: to this address.
    """

    cut: int | None = None
    stall_s: float = 0.0
    status: int | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    ignores_range: bool = False
    is_chunked: bool = False
    extra: bytes = b""
    redirect: str | None = None


@dataclass
class Request:
    """What a client asked: the port it asked at, its path and headers."""

    port: int
    path: str
    headers: dict[str, str]


class FakeHub:
    """
    Repositories, faults to come, and requests so far.

    Attributes:
        content: by repository and path.
        plain: paths that are not in large file storage.
        faults: for the next requests for content, in order; then all goes well.
        listing: changes the list of a repository before it is sent.
        api_faults: statuses for the next requests for a list.
        requests: all so far.
        pace_s: to wait after each 16 KiB of content.
    """

    def __init__(self) -> None:
        self.content: dict[str, dict[str, bytes]] = {}
        self.plain: set[str] = set()
        self.faults: list[Fault] = []
        self.listing: Callable[[dict[str, Any]], Any] = lambda listing: listing
        self.api_faults: list[int] = []
        self.requests: list[Request] = []
        self.redirects: Callable[[str], str] | None = None
        self.pace_s = 0.0
        self._lock = threading.Lock()
        self._servers = [self._serve(), self._serve()]
        self.port, self.content_port = (server.server_address[1] for server in self._servers)
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def _serve(self) -> ThreadingHTTPServer:
        server = _Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def close(self) -> None:
        """Stop both hosts."""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(self, repo: str, path: str, content: bytes, *, is_plain: bool = False) -> str:
        """Put a file into a repository; returns its sha256."""
        self.content.setdefault(repo, {})[path] = content
        if is_plain:
            self.plain.add(path)
        return hashlib.sha256(content).hexdigest()

    def content_requests(self) -> list[Request]:
        """Those that reached the second host."""
        return [request for request in self.requests if request.port == self.content_port]

    def next_fault(self) -> Fault:
        """The next one that was ordered."""
        with self._lock:
            return self.faults.pop(0) if self.faults else Fault()

    def list_repository(self, repo: str) -> Any:
        """The answer of the API."""
        siblings = []
        for path, content in self.content[repo].items():
            sha1 = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            item: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": sha1}
            if path not in self.plain:
                sha256 = hashlib.sha256(content).hexdigest()
                item["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(item)
        return self.listing({"id": repo, "sha": COMMIT, "siblings": siblings})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients are killed here."""


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.hub.requests.append(Request(port, self.path, headers))
        with contextlib.suppress(ConnectionError):
            if port == self.hub.port:
                self._endpoint()
            else:
                self._content()

    def do_HEAD(self) -> None:
        """What huggingface_hub asks before it downloads."""
        repo, path = re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", self.path).groups()
        content = self.hub.content[repo][path]
        self.send_response(302)
        # Another host's name: huggingface_hub 1.33 follows redirects to the same, on any port.
        where = f"http://localhost:{self.hub.content_port}/{repo}/{path}"
        for name, value in (
            ("Location", where),
            ("X-Repo-Commit", COMMIT),
            ("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"'),
            ("X-Linked-Size", str(len(content))),
            ("Content-Length", "0"),
        ):
            self.send_header(name, value)
        self.end_headers()

    def _endpoint(self) -> None:
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/main\?blobs=[Tt]rue", self.path)
        if api:
            if self.hub.api_faults:
                self._send(self.hub.api_faults.pop(0), b"", {"Retry-After": "0"})
            elif api[1] in self.hub.content:
                self._send(200, json.dumps(self.hub.list_repository(api[1])).encode(), {})
            else:
                self._send(404, b'{"error":"Repository not found"}', {})
            return
        file = re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", self.path)
        if file is None:
            self._send(404, b"", {})
            return
        where = f"http://127.0.0.1:{self.hub.content_port}/{file[1]}/{file[2]}"
        if self.hub.redirects is not None:
            where = self.hub.redirects(where)
        self._send(302, b"", {"Location": where, "X-Repo-Commit": COMMIT})

    def _content(self) -> None:
        fault = self.hub.next_fault()
        if fault.redirect is not None:
            self._send(302, b"", {"Location": fault.redirect})
            return
        if fault.status is not None:
            self._send(fault.status, b"", {k: v for k, v in fault.headers.items() if v})
            return
        _, user, repo, path = self.path.split("/", 3)
        content = self.hub.content[f"{user}/{repo}"][path]
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        content = content if fault.body is None else fault.body
        headers: dict[str, str | None] = {"ETag": tag, "Accept-Ranges": "bytes"}
        status, start = 200, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        current = fault.headers.get("ETag", tag)
        if asked and not fault.ignores_range and self.headers.get("If-Range", current) == current:
            start = int(asked[1])
            if start >= len(content):
                self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(status, content[start:] + fault.extra, {**headers, **fault.headers}, fault)

    def _send(
        self, status: int, body: bytes, headers: dict[str, Any], fault: Fault | None = None
    ) -> None:
        fault = fault or Fault()
        self.send_response(status)
        if fault.is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        else:
            headers = {"Content-Length": str(len(body)), **headers}
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        time.sleep(fault.stall_s)
        end = len(body) if fault.cut is None else fault.cut
        for start in range(0, end, 16384):
            self.wfile.write(body[start : min(end, start + 16384)])
            time.sleep(self.hub.pace_s)
        if fault.cut is not None:
            self.close_connection = True


@contextlib.contextmanager
def running_hub() -> Iterator[FakeHub]:
    """A hub for as long as the block runs."""
    hub = FakeHub()
    try:
        yield hub
    finally:
        hub.close()
