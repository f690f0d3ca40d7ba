"""Serve until told to stop: uvicorn on a checked address, a drain on SIGTERM, exit status 0."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import uvicorn

from quintet.errors import RequestError
from quintet.server.app import create_app
from quintet.server.disconnect import cancel
from quintet.server.guard import MAX_HEADER_BYTES
from quintet.server.health import HealthMonitor
from quintet.server.http_stats import HTTPStats
from quintet.server.models import Models
from quintet.server.protocol import begin_drain, bounded_protocol, bounded_websocket
from quintet.server.settings import Settings

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CLOSE_GRACE_S = 30  # for an engine to finish its step, and for replies to end after that
_NUM_THREADS = 64
_DRAIN_TICK_S = 0.02
_FRAME_GRACE_S = 2.0
_PING_S = 20.0  # between pings on a WebSocket, and until a missing answer ends it


def check_exposure(settings: Settings, *, force: bool) -> None:
    """Refuse to serve other machines without a key.

    Raises:
        RequestError: the address is not a loopback one, there is no key, and force is not given.
    """
    if not settings.is_loopback and not settings.keys and not force:
        raise RequestError(
            f"{settings.host} can be reached from other machines: "
            "give an --api-key or --api-key-file, or --force to serve everybody",
            parameter="host",
        )


def serve(
    models: Models,
    settings: Settings,
    *,
    on_listening: Callable[[Server], None] = lambda server: None,
) -> None:
    """Serve loaded models until SIGTERM or SIGINT, then let running requests finish.

    After `settings.drain_timeout_s` the engines are closed, which ends what is left
    with an error; a second signal does so at once.

    Args:
        models: closed when this returns.
        settings: addresses and limits.
        on_listening: called once connections are accepted.

    Raises:
        OSError: the address cannot be bound.
    """
    asyncio.run(serve_async(models, settings, on_listening=on_listening))


async def serve_async(
    models: Models,
    settings: Settings,
    *,
    on_listening: Callable[[Server], None] = lambda server: None,
    prepare: Callable[[], Awaitable[None]] | None = None,
    listener: socket.socket | None = None,
) -> None:
    """`serve` inside a running event loop.

    Args:
        on_listening: called once connections are accepted, and `prepare` has ended.
        prepare: loads the models to hold; until it ends /health says that the server is starting,
            and requests wait.
        listener: a socket that listens, which several processes may serve; closed when this
            returns.

    Raises:
        Exception: whatever `prepare` raised.
    """
    preparing: asyncio.Future[None] | None = None
    # Requests wait for helpers, compilers and the disk in threads, which cost little; a model whose
    # template hangs holds a handful of them, and must not hold them all.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_NUM_THREADS))
    try:
        with contextlib.closing(listen(settings) if listener is None else listener) as listener:
            server = Server(models, settings, _url(listener, settings))
            if prepare is None:
                on_listening(server)
            else:
                preparing = asyncio.ensure_future(_prepare(server, prepare, on_listening))
            await server.serve([listener])
        if preparing is not None and preparing.done():
            preparing.result()
    finally:
        await _close(models)
        if preparing is not None:
            await cancel(preparing)


async def _prepare(
    server: Server, prepare: Callable[[], Awaitable[None]], on_listening: Callable[[Server], None]
) -> None:
    server.health.is_starting = True
    try:
        await prepare()
    except BaseException:
        server.stop_now()
        raise
    server.health.is_starting = False
    on_listening(server)


class Server(uvicorn.Server):
    """uvicorn's server with our signals: drain, then close the models, then exit 0.

    uvicorn itself raises the signal again after its shutdown, which would end the
    process with the signal's status and before the engines are closed.

    Args:
        models: closed when the drain takes too long.
        settings: addresses and limits.
        url: where it listens.
    """

    def __init__(self, models: Models, settings: Settings, url: str) -> None:
        app = create_app(models, settings)
        config = uvicorn.Config(
            app,
            http=bounded_protocol(settings),
            ws=bounded_websocket(settings),
            ws_max_size=min(settings.max_message_bytes, settings.max_body_bytes),
            ws_per_message_deflate=False,
            ws_ping_interval=_PING_S,
            ws_ping_timeout=_PING_S,
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(settings.idle_timeout_s),
            timeout_graceful_shutdown=_CLOSE_GRACE_S,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
        config.load()
        config.ssl = tls_context(settings)
        super().__init__(config)
        self.url = url
        self.health: HealthMonitor = app.state.health
        self._http_stats: HTTPStats = app.state.http_stats
        self._models = models
        self._drain_timeout_s = settings.drain_timeout_s
        self._draining: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Refuse new requests and end when the others have; called again, end now."""
        if self.health.is_draining:
            self.stop_now()
        else:
            self.health.is_draining = True
            for connection in list(self.server_state.connections):
                begin_drain(connection)
            self._draining = asyncio.ensure_future(self._drain())

    def stop_now(self) -> None:
        """End what still runs with an error, then the server."""
        self.health.is_draining = True
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        if self._is_busy:
            _log.warning("ending the requests that are still running")
        await _close(self._models)
        deadline_s = time.monotonic() + _FRAME_GRACE_S
        while self._is_busy and time.monotonic() < deadline_s:
            await asyncio.sleep(_DRAIN_TICK_S)  # for each stream to send its error frame
        self.should_exit = True

    async def _drain(self) -> None:
        """The port stays open meanwhile, so that probes and new clients are told why."""
        deadline_s = time.monotonic() + self._drain_timeout_s
        while self._is_busy and self._closing is None:
            if time.monotonic() >= deadline_s:
                self.stop_now()
            await asyncio.sleep(_DRAIN_TICK_S)
        if self._closing is None:
            self.should_exit = True

    @property
    def _is_busy(self) -> bool:
        """Whether a request runs; a WebSocket on which nobody waits is none."""
        num_requests = self._http_stats.num_in_flight - self._http_stats.num_sockets
        return num_requests > 0 or any(model.num_users for model in self._models)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)


async def _close(models: Models) -> None:
    closing = asyncio.ensure_future(models.close())
    if (await asyncio.wait({closing}, timeout=_CLOSE_GRACE_S))[1]:
        # A step that hangs holds a thread that nothing can end, and Python would wait for it.
        _log.critical("an engine does not stop; ending the process")
        os._exit(1)
    await closing


def listen(settings: Settings) -> socket.socket:
    """A bound socket, so that a taken port is our error and port 0 has its number at once.

    Raises:
        OSError: the address cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise OSError(error.errno, f"cannot listen on {where}: {error.strerror}") from None
    return listener


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """TLS 1.2 and 1.3 with the certificate of the settings; None where there is none.

    Raises:
        RequestError: a certificate without a key or the reverse, or they cannot be used.
    """
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        raise RequestError("expected --tls-cert and --tls-key together", parameter="tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An empty password: OpenSSL must not ask for one on the terminal.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except (OSError, ValueError) as error:
        raise RequestError(
            f"expected a PEM certificate and its key without a password, in {settings.tls_cert} "
            f"and {settings.tls_key}: {error}",
            parameter="tls",
        ) from None
    return context


def _url(listener: socket.socket, settings: Settings) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
