"""Host, Origin, key and header checks, on a socket and on the route table."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx
import pytest
from starlette.routing import Route, WebSocketRoute

from quintet.server.app import create_app
from quintet.server.guard import OPEN_PATHS
from quintet.server.keys import ApiKey
from quintet.server.models import Models
from quintet.server.settings import DIALECTS, Settings

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


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_route_but_health_needs_the_key(dialect: str):
    """Walks the route table: without a key, or with a wrong one, nothing answers but health."""
    settings = Settings(keys=(ApiKey.of("secret"),), dialect=dialect)
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
    assert "/metrics" in walked
    assert set(walked) & OPEN_PATHS == OPEN_PATHS
    assert all(path == "/health" or path.startswith("/health/") for path in OPEN_PATHS)


def targets(path: str) -> list[str]:
    """Other ways to write a path, which some part of a server may take for another one."""
    return [
        path,
        f"/{path}",
        f"{path}/",
        f"{path}/.",
        f"{path}?x=/health",
        f"{path};/health",
        f"{path}%00",
        f"{path}%2f",
        f"/health/..{path}",
        f"/health/%2e%2e{path}",
        f"/health%2f..{path}",
        f"/./{path[1:]}",
        path.upper(),
        path.replace("/", "\\"),
        f"http://localhost{path}",
        f"http://localhost/health/..{path}",
    ]


def test_no_spelling_of_a_path_opens_it():
    """Doubled slashes, dots, escapes, case, absolute targets, HEAD and OPTIONS: the key is asked
    for, or the request line is no HTTP; on a socket, as a scanner would."""

    async def ask(address: SplitResult, method: str, target: str) -> bytes:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        line = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        writer.write(line.encode())
        reply = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return reply.split(b" ", 2)[1]

    async def main() -> None:
        async with serving({"m": FakeEngine()}, keys=(ApiKey.of("k"),)) as server:
            address = urlsplit(server.url)
            paths = {route.path for route in create_app(Models.of({}), Settings()).routes}
            for path in sorted(paths - OPEN_PATHS):
                for target in targets(path.partition("{")[0]):
                    for method in ("GET", "POST", "HEAD", "OPTIONS"):
                        if method == "GET" or target == path:
                            status = await ask(address, method, target)
                            assert status in (b"401", b"400"), (method, target, status)
            assert await ask(address, "GET", "/health") == b"200"

    run(main())


def test_a_spelling_of_health_is_not_health():
    """Only the exact open paths are open."""
    settings = Settings(keys=(ApiKey.of("secret"),))
    for path in targets("/health")[1:]:
        if not path.startswith(("/health?", "/health/.", "http://localhost/health", "/./")):
            assert call("GET", path, settings=settings).status_code in (400, 401), path


def test_a_key_opens_what_its_scopes_say():
    """A key without the scope of a path is refused; one without scopes opens everything."""
    keys = (
        ApiKey.of("user", "user", frozenset({"inference"})),
        ApiKey.of("probe", "probe", frozenset({"metrics"})),
        ApiKey.of("owner", "owner"),
    )
    settings = Settings(keys=keys)

    def status(key: str, method: str, path: str) -> int:
        return call(method, path, headers={"x-api-key": key}, settings=settings).status_code

    assert status("user", "GET", "/v1/models") == 200
    assert status("user", "GET", "/metrics") == 403
    assert status("user", "POST", "/api/pull") == 403
    assert status("user", "DELETE", "/api/delete") == 403
    assert status("user", "HEAD", "/api/blobs/sha256:00") == 403
    assert status("probe", "GET", "/metrics") == 200
    assert status("probe", "GET", "/v1/models") == 403
    assert status("owner", "GET", "/metrics") == 200
    assert status("owner", "GET", "/v1/models") == 200
    assert status("owner", "POST", "/api/pull") not in (401, 403)
    assert status("nobody", "GET", "/metrics") == 401


def test_bodies_that_are_not_json_are_refused():
    """Forms, other types and compressed bodies are 415; JSON under curl's own type is JSON."""

    def status(**headers: str) -> int:
        return call("POST", "/v1/completions", headers=headers, content=b"{}").status_code

    for kind in (
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/xml",
        "application/x-msgpack",
        "application/jsonx",
        "x",
        "",
    ):
        assert status(**{"content-type": kind}) == 415, kind
    for kind in (
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/problem+json",
        "application/x-www-form-urlencoded",
    ):
        assert status(**{"content-type": kind}) == 400, kind  # as far as the missing model
    assert status() == 400
    assert status(**{"content-encoding": "gzip"}) == 415


def test_a_websocket_from_another_page_is_refused():
    """Browsers let any page open one here, and send its name along."""
    path = "/v1/responses"
    assert handshake_status(path, Settings()) == 101
    assert handshake_status(path, Settings(), origin="http://localhost") == 101
    assert handshake_status(path, Settings(), origin="https://evil.com") == 403
    assert handshake_status(path, Settings(), host="evil.com") == 403


def test_paths_that_are_no_route_need_the_key_too():
    """What exists is not told to strangers."""
    settings = Settings(keys=(ApiKey.of("secret"),))
    for path in ("/", "/nothing", "/health/", "/health/../v1/models", "/HEALTH", "//health"):
        assert call("GET", path, settings=settings).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer secret"}, {"authorization": "bearer secret"},
     {"x-api-key": "secret"}],
)  # fmt: skip
def test_the_key_opens(headers: dict[str, str]):
    """Both usual headers carry the key."""
    settings = Settings(keys=(ApiKey.of("other"), ApiKey.of("secret")))
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


def test_sockets_are_guarded_before_the_handshake():
    """Key, Host and Origin, as for any request; the refusal is an HTTP reply, not a close."""

    async def main() -> None:
        settings = {"keys": (ApiKey.of("k"),), "cors_origins": frozenset({"https://a.b"})}
        async with serving({"m": FakeEngine()}, **settings) as server:
            key = {"x-api-key": "k"}
            for path in ("/ws", "/woolly/ws", "/v1/responses"):
                url = server.url.replace("http", "ws") + path
                for headers, host, status in (
                    ({}, None, 401),
                    ({"authorization": "Bearer wrong"}, None, 401),
                    ({**key, "origin": "http://evil.com"}, None, 403),
                    ({**key, "origin": "null"}, None, 403),
                    (key, "evil.com", 403),
                    (key, "localhost/health?", 400),
                    (key, None, 101),
                    ({**key, "origin": "https://a.b"}, None, 101),
                ):
                    assert await handshake(url, headers, host) == status, (path, headers, host)

    async def handshake(url: str, headers: dict[str, str], host: str | None) -> int:
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        lines = [
            f"GET {address.path} HTTP/1.1",
            f"Host: {host or address.netloc}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        line = await asyncio.wait_for(reader.readline(), 5)
        writer.transport.abort()
        return int(line.split()[1])

    run(main())


def test_no_cors_headers():
    """Pages of other origins cannot read replies."""
    reply = call("GET", "/v1/models", headers={"origin": "http://evil.com"})
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_allowed_origins():
    """A page of an allowed origin may ask, send and read; none that only looks like it may."""
    settings = Settings(
        cors_origins=frozenset({"https://chat.example"}), keys=(ApiKey.of("secret"),)
    )
    asks = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    reply = call("OPTIONS", "/v1/completions", headers=asks, settings=settings)
    assert reply.status_code == 204
    assert reply.headers["access-control-allow-origin"] == "https://chat.example"
    assert "Authorization" in reply.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in reply.headers
    sends = {"origin": "https://chat.example", "x-api-key": "secret"}
    reply = call("POST", "/v1/completions", headers=sends, settings=settings)
    assert reply.status_code == 400  # the body
    assert reply.headers["access-control-allow-origin"] == "https://chat.example"
    del sends["x-api-key"]
    reply = call("POST", "/v1/completions", headers=sends, settings=settings)
    assert reply.status_code == 401
    assert reply.headers["access-control-allow-origin"] == "https://chat.example"
    for origin in ("http://chat.example", "https://chat.example.evil", "https://chat.example:8",
                   "https://CHAT.example", "null", ""):  # fmt: skip
        for method, headers in (("OPTIONS", asks), ("POST", {"x-api-key": "secret"})):
            given = {**headers, "origin": origin}
            reply = call(method, "/v1/completions", headers=given, settings=settings)
            assert reply.status_code in (401, 403), (method, origin)
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


def test_a_clients_request_id_is_kept_if_it_can_do_no_harm():
    """It comes back and stands in the log; one with strange characters is replaced."""

    def answered(*given: str | bytes) -> str:
        headers = [("x-request-id", value) for value in given]
        return call("GET", "/v1/models", headers=headers).headers["x-request-id"]

    for good in ("a", "0b7f-44_a.9", "x" * 128):
        assert answered(good) == good
    for bad in ("", "-a", "a b", "a\tb", "x" * 129, "a;b", b"\xe9", "a\u2028".encode(), '"'):
        assert len(answered(bad)) == 16, bad
    assert len(answered("a", "b")) == 16


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
