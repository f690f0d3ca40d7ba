"""Serve until told to stop: uvicorn on a checked address, a drain on SIGTERM, exit status 0."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Generator

import uvicorn

from quintet.errors import RequestError
from quintet.server.app import create_app
from quintet.server.guard import MAX_HEADER_BYTES
from quintet.server.models import Models
from quintet.server.protocol import bounded_protocol, bounded_websocket
from quintet.server.settings import Settings

_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CLOSE_GRACE_S = 30  # for an engine to finish its step, and for replies to end after that


def check_exposure(settings: Settings, *, force: bool) -> None:
    """Refuse to serve other machines without a key.

    Raises:
        RequestError: the address is not a loopback one, there is no key, and force is not given.
    """
    if not settings.is_loopback and not settings.key_digests and not force:
        raise RequestError(
            f"{settings.host} can be reached from other machines: "
            "give an --api-key, or --force to serve everybody",
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
) -> None:
    """`serve` inside a running event loop."""
    try:
        with contextlib.closing(_listen(settings)) as listener:
            server = Server(models, settings, _url(listener))
            on_listening(server)
            await server.serve([listener])
    finally:
        await _close(models)


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
        super().__init__(
            uvicorn.Config(
                create_app(models, settings),
                http=bounded_protocol(settings),
                ws=bounded_websocket(settings),
                ws_max_size=settings.max_body_bytes,
                ws_per_message_deflate=False,
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=int(settings.idle_timeout_s),
                timeout_graceful_shutdown=int(settings.drain_timeout_s) + _CLOSE_GRACE_S,
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            )
        )
        self.url = url
        self._models = models
        self._drain_timeout_s = settings.drain_timeout_s
        self._closing: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Take no new connections, end after the drain; called again, end now."""
        delay_s = 0.0 if self.should_exit else self._drain_timeout_s
        self.should_exit = True
        asyncio.get_running_loop().call_later(delay_s, self._end_requests)

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

    def _end_requests(self) -> None:
        if self._closing is None:
            _log.warning("ending the requests that are still running")
            self._closing = asyncio.ensure_future(_close(self._models))


async def _close(models: Models) -> None:
    closing = asyncio.ensure_future(models.close())
    if (await asyncio.wait({closing}, timeout=_CLOSE_GRACE_S))[1]:
        # A step that hangs holds a thread that nothing can end, and Python would wait for it.
        _log.critical("an engine does not stop; ending the process")
        os._exit(1)
    await closing


def _listen(settings: Settings) -> socket.socket:
    """A bound socket, so that a taken port is our error and port 0 has its number at once."""
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


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
