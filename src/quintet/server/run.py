"""Serve until told to stop: uvicorn on a checked address, a drain on SIGTERM, exit status 0."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Generator, Mapping
from types import FrameType

import uvicorn

from quintet.errors import RequestError
from quintet.server.app import create_app
from quintet.server.engines import ServedEngine
from quintet.server.guard import MAX_HEADER_BYTES
from quintet.server.protocol import bounded_protocol
from quintet.server.settings import Settings

_log = logging.getLogger(__name__)
_CLOSE_GRACE_S = 5  # for replies to end after their engines were closed


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
    engines: Mapping[str, ServedEngine],
    settings: Settings,
    *,
    on_listening: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve loaded models until SIGTERM or SIGINT, then let running requests finish.

    After `settings.drain_timeout_s` the engines are closed, which ends what is left
    with an error; a second signal does so at once.

    Args:
        engines: one loaded model per name; closed when this returns.
        settings: addresses and limits.
        on_listening: called once with the server's URL.

    Raises:
        OSError: the address cannot be bound.
    """
    asyncio.run(_serve(engines, settings, on_listening))


async def _serve(
    engines: Mapping[str, ServedEngine],
    settings: Settings,
    on_listening: Callable[[str], None],
) -> None:
    async def close_engines() -> None:
        for engine in engines.values():
            await engine.close()

    with contextlib.closing(_listen(settings)) as listener:
        config = uvicorn.Config(
            create_app(engines, settings),
            http=bounded_protocol(settings),
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(settings.idle_timeout_s),
            timeout_graceful_shutdown=int(settings.drain_timeout_s) + _CLOSE_GRACE_S,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
        on_listening(_url(listener))
        try:
            await _Server(config, settings.drain_timeout_s, close_engines).serve([listener])
        finally:
            await close_engines()


class _Server(uvicorn.Server):
    """uvicorn's server with our signals: drain, then close the engines, then exit 0.

    uvicorn raises the signal again after its shutdown, which would end the process
    with the signal's status and before the engines are closed.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain_timeout_s: float,
        close_engines: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        self._drain_timeout_s = drain_timeout_s
        self._close_engines = close_engines
        self._closing: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        delay_s = 0.0 if self.should_exit else self._drain_timeout_s
        self.should_exit = True
        asyncio.get_running_loop().call_later(delay_s, self._end_requests)

    def _end_requests(self) -> None:
        if self._closing is None:
            _log.warning("ending the requests that are still running")
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        await self._close_engines()


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
