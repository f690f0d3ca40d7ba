"""The server: Woolly's interface over the GGUF files of a folder.

Source: Woolly, "API Reference", "HTTP API".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from woolly.engine import context_for
from woolly.errors import translated
from woolly.server_config import ServerConfig

if TYPE_CHECKING:
    from quintet.hub.manifest import Manifest
    from quintet.hub.store import Store
    from quintet.server.engines import ServedEngine
    from quintet.server.settings import Settings

_log = logging.getLogger("woolly")
_LEVELS = {"warn": "warning", "trace": "debug"}
_MAX_LOADED = 3


class Directory:
    """
    The models of a folder: its GGUF files, by their names without the ending.

    A name that the user's aliases or Quintet's store knows is found as well, and listed from then
    on.  What is put into the folder later is there at once.

    Args:
        folder: need not exist.
        store: None: the user's.
    """

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        from quintet.hub.store import Store

        self._folder = folder
        self._store = Store() if store is None else store
        self._known: dict[str, Manifest] = {}

    def list(self) -> list[Manifest]:
        """See quintet.server.catalog.Catalog."""
        return [*self._files().values(), *self._known.values()]

    def get(self, name: str) -> Manifest:
        """See quintet.server.catalog.Catalog."""
        import dataclasses

        from quintet.errors import ModelNotFoundError, RequestError
        from quintet.hub.aliases import alias_of
        from quintet.hub.create import local_model

        if name in self._known:
            return self._known[name]
        files = self._files()
        target = alias_of(name, self._store.root)
        for spelling in (name, target, target.removesuffix(".gguf")):
            if spelling in files:
                return files[spelling]
        if target != name and Path(target).expanduser().exists():  # an alias of the user's
            found = local_model(Path(target))
        else:
            try:
                stored = self._store.find(name)
            except RequestError:  # no name of a model there
                stored = None
            if stored is None:
                there = ", ".join(sorted(files)) or "none"
                raise ModelNotFoundError(f"model {name[:100]!r} not found; there is {there}")
            found = stored
        self._known[name] = dataclasses.replace(found, name=name)
        return self._known[name]

    def _files(self) -> dict[str, Manifest]:
        from quintet.server.catalog import local_manifest

        paths: list[Path] = []
        with contextlib.suppress(OSError):
            paths = sorted(path for path in self._folder.glob("*.gguf") if path.is_file())
        return {path.stem: local_manifest(path.stem, path) for path in paths}


def settings_of(config: ServerConfig) -> Settings:
    """
    The configuration as Quintet's.

    Raises:
        InvalidRequest: other machines could use the server without a key, and the file does not
            say that they may.
    """
    from quintet.server.keys import ApiKey
    from quintet.server.rate_limits import RateLimits
    from quintet.server.run import check_exposure
    from quintet.server.settings import Settings

    wants_key = config.api_key is not None and config.api_key_required is not False
    limit = config.requests_per_minute if config.rate_limiting_enabled else None
    with translated():
        settings = Settings(
            host=config.host,
            port=config.port,
            keys=(ApiKey.of(config.api_key),) if wants_key and config.api_key else (),
            rate_limits=RateLimits(requests_per_minute=limit),
            cors_origins=frozenset(config.cors_origins if config.cors_enabled else ()),
            extra_hosts=frozenset([*config.allowed_hosts, *_own_names(config.host)]),
            dialect="woolly",
        )
        check_exposure(settings, force=config.api_key_required is False)
    return settings


def serve(config: ServerConfig, on_listening: Callable[[str], None] | None = None) -> None:
    """
    Serve until SIGTERM or SIGINT.

    Args:
        on_listening: told the server's address once it accepts connections.

    Raises:
        InvalidRequest: a setting that cannot be used.
        ModelNotFound, ModelLoadFailed, OutOfMemory: of a model to preload.
        OSError: the address is taken.
    """
    from quintet.server.models import FOREVER_S, LoadPolicy, Models
    from quintet.server.run import Server, serve_async

    _configure_log(config)
    settings = settings_of(config)
    if config.gpu_enabled and config.gpu_layers > 0:
        _log.info("there is no GPU support; the CPU computes all layers")
    if config.api_key_required is False and not settings.is_loopback:
        _log.warning("anybody who reaches %s may use this server", config.host)

    async def main() -> None:
        from quintet.engine.sizing import available_memory_bytes

        policy = LoadPolicy(
            keep_alive_s=float(config.cache_ttl),
            max_loaded=max(_MAX_LOADED, len(config.preload)),
            max_bytes=available_memory_bytes(),
        )
        models = Models(
            Directory(Path(config.models_directory).expanduser()),
            lambda manifest: _load(manifest, config),
            policy,
        )

        async def prepare() -> None:
            for name in config.preload:
                await models.load(name, FOREVER_S)

        def announce(server: Server) -> None:
            _log.info("serving at %s", server.url)
            if on_listening is not None:
                on_listening(server.url)

        await serve_async(models, settings, on_listening=announce, prepare=prepare)

    with translated():
        asyncio.run(main())


async def _load(manifest: Manifest, config: ServerConfig) -> ServedEngine:
    from quintet.async_llm import AsyncLLM

    return await AsyncLLM(
        manifest.path,
        num_threads=config.cpu_threads,
        max_model_len=await asyncio.to_thread(
            context_for, manifest.path, config.max_sequence_length
        ),
        max_num_seqs=config.max_batch_size,
        kv_cache_bytes=config.cache_size,
        enable_prefix_cache=config.cache_enabled,
        isolated=True,
    ).__aenter__()  # loads it; the server closes it


def _configure_log(config: ServerConfig) -> None:
    from quintet.cli.serve import configure_log
    from quintet.cli.serve_options import LogFormat, LogLevel

    level = _LEVELS.get(config.log_level, config.log_level)
    configure_log(LogFormat(config.log_format), LogLevel(level))
    handler: Any = logging.getLogger().handlers[0]
    if config.log_output == "stdout":
        handler.setStream(sys.stdout)
    elif config.log_output != "stderr":
        descriptor = os.open(config.log_output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        handler.setStream(open(descriptor, "a", encoding="utf-8"))  # noqa: SIM115 - to the end


def _own_names(host: str) -> set[str]:
    """What clients call this machine, where it listens at all its addresses."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104 - the user's choice
        return set()
    names = {socket.gethostname().lower(), socket.getfqdn().lower()}
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(socket.gethostname(), None)
        names |= {str(address[4][0]).partition("%")[0].lower() for address in found}
    # The address that packets to elsewhere would leave from; connecting sends none.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        names.add(probe.getsockname()[0])
    return names
