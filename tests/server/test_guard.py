"""Host, Origin, key and header checks, on a socket and on the route table."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.routing import Route, WebSocketRoute

from quintet.server.app import create_app
from quintet.server.guard import OPEN_PATHS
from quintet.server.models import Models
from quintet.server.settings import Settings, key_digest

from .fake import FakeEngine
from .harness import run, serving


def call(
    method: str, path: str, *, settings: Settings | None = None, **kwargs: Any
) -> httpx.Response:
    """One request to the app, without a socket."""

    async def main() -> httpx.Response:
        app = create_app(Models.of({"m": FakeEngine()}), settings or Settings())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **kwargs)

    return asyncio.run(main())


def handshake_status(path: str, settings: Settings, **headers: str) -> int:
    """What a WebSocket handshake is refused with, or 101."""

    async def main() -> int:
        sent: list[Any] = []

        async def receive() -> Any:
            kind = "disconnect" if any(m["type"] == "websocket.accept" for m in sent) else "connect"
            return {"type": f"websocket.{kind}"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [
                (k.encode(), v.encode()) for k, v in ({"host": "localhost"} | headers).items()
            ],
            "extensions": {"websocket.http.response": {}},
            "subprotocols": [],
        }
        await create_app(Models.of({"m": FakeEngine()}), settings)(scope, receive, send)
        return sent[0].get("status", 101)

    return asyncio.run(main())


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:11434", "127.0.0.1", "127.0.0.1:1", "[::1]:11434", "models.lan:80"],
)
def test_known_hosts_are_served(host: str):
    """Loopback names and configured names are served, whatever their case and port."""
    settings = Settings(extra_hosts=frozenset({"Models.lan"}))
    assert call("GET", "/v1/models", headers={"host": host}, settings=settings).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "localhost.evil.com",
        "127.0.0.1.nip.io",
        "evil.com:11434",
        "0.0.0.0",
        "192.168.1.10",
        "x.local",
        "[::2]",
        "2130706433",
    ],
)
def test_foreign_hosts_are_refused(host: str):
    """A page that points its own name at this machine gets nothing, health included."""
    for path in ("/v1/models", "/health"):
        reply = call("GET", path, headers={"host": host})
        assert reply.status_code == 403
        assert reply.json()["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    "host",
    ["", "x/health?", "localhost/health?", "localhost:11434/../health", "a b", "localhost#",
     "user@localhost", "localhost:port", "[::1", "localhost:123456", "l\xf6calhost"],
)  # fmt: skip
def test_malformed_hosts_are_refused(host: str):
    """A Host that could change the path or hide a name is a 400."""
    reply = call("GET", "/v1/models", headers={"host": host.encode("latin-1")})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "invalid_host"


def test_two_hosts_are_refused():
    """With two Host headers nobody can tell which one was meant."""
    headers = [("host", "localhost"), ("host", "localhost")]
    assert call("GET", "/v1/models", headers=headers).status_code == 400


def test_every_route_but_health_needs_the_key():
    """Walks the route table: without a key, or with a wrong one, nothing answers but health."""
    settings = Settings(key_digests=(key_digest(b"secret"),))
    app = create_app(Models.of({"m": FakeEngine()}), settings)
    walked = []
    for route in app.routes:
        if isinstance(route, WebSocketRoute):
            assert handshake_status(route.path, settings) == 401
            continue
        assert isinstance(route, Route)
        for method in route.methods or ():
            path = route.path.replace("{name:path}", "m")
            walked.append(path)
            for headers in (
                {},
                {"authorization": "Bearer wrong"},
                {"authorization": "Bearer "},
                {"authorization": "Basic secret"},
                {"x-api-key": "secret "},
                {"x-api-key": ""},
            ):
                status = call(method, path, headers=headers, settings=settings).status_code
                assert status == (200 if path in OPEN_PATHS else 401), (method, path, headers)
    assert "/v1/chat/completions" in walked
    assert set(walked) & OPEN_PATHS == {"/health"}


def test_a_websocket_from_another_page_is_refused():
    """Browsers let any page open one here, and send its name along."""
    path = "/v1/responses"
    assert handshake_status(path, Settings()) == 101
    assert handshake_status(path, Settings(), origin="http://localhost") == 101
    assert handshake_status(path, Settings(), origin="https://evil.com") == 403
    assert handshake_status(path, Settings(), host="evil.com") == 403


def test_paths_that_are_no_route_need_the_key_too():
    """What exists is not told to strangers."""
    settings = Settings(key_digests=(key_digest(b"secret"),))
    for path in ("/", "/nothing", "/health/", "/health/../v1/models", "/HEALTH", "//health"):
        assert call("GET", path, settings=settings).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer secret"}, {"authorization": "bearer secret"},
     {"x-api-key": "secret"}],
)  # fmt: skip
def test_the_key_opens(headers: dict[str, str]):
    """Both usual headers carry the key."""
    settings = Settings(key_digests=(key_digest(b"other"), key_digest(b"secret")))
    assert call("GET", "/v1/models", headers=headers, settings=settings).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost", 400),
        ("https://localhost", 400),
        ("http://localhost:3000", 403),
        ("http://evil.com", 403),
        ("http://localhost.evil.com", 403),
        ("null", 403),
    ],
)
def test_writes_from_other_pages_are_refused(origin: str, status: int):
    """A browser page of another origin cannot post; one of this server gets as far as the body."""
    reply = call("POST", "/v1/completions", headers={"origin": origin}, content=b"")
    assert reply.status_code == status


def test_no_cors_headers():
    """Pages of other origins cannot read replies."""
    reply = call("GET", "/v1/models", headers={"origin": "http://evil.com"})
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_header_limits():
    """Too many headers, too many bytes of them, and a long target have their own statuses."""
    many = {f"x-{index}": "1" for index in range(101)}
    assert call("GET", "/v1/models", headers=many).status_code == 431
    assert call("GET", "/v1/models", headers={"x": "a" * 65536}).status_code == 431
    assert call("GET", "/v1/models?" + "a" * 16384).status_code == 414


def test_every_reply_has_a_request_id():
    """Replies and refusals can be found again in the log."""
    ids = {
        call("GET", "/v1/models", headers=headers).headers["x-request-id"]
        for headers in ({}, {"host": "evil.com"}, {"host": "?"})
    }
    assert len(ids) == 3


def test_unknown_paths_and_methods_have_error_bodies():
    """404 and 405 come in the same shape as every other error."""
    assert call("GET", "/v1/nothing").json()["error"]["code"] == "not_found"
    reply = call("GET", "/v1/completions")
    assert reply.status_code == 405
    assert reply.json()["error"]["code"] == "method_not_allowed"


def test_server_names_nothing_about_itself():
    """No Server header, on a real socket."""

    async def main() -> None:
        async with serving({"m": FakeEngine()}) as server, httpx.AsyncClient() as client:
            reply = await client.get(f"{server.url}/health")
        assert reply.json() == {"status": "ok"}
        assert "server" not in reply.headers

    run(main())
