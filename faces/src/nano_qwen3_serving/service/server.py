"""Quintet's server with one model and this system's dialect."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nano_qwen3_serving._devices import usable_device
from nano_qwen3_serving._model import DTYPES, ModelOptions
from nano_qwen3_serving.exceptions import load_errors
from nano_qwen3_serving.service.options import ServiceOptions
from quintet import AsyncLLM, ModelNotFoundError
from quintet.hub.manifest import Manifest
from quintet.hub.resolve import resolve
from quintet.server.catalog import local_manifest
from quintet.server.engines import ServedEngine
from quintet.server.keys import ApiKey
from quintet.server.models import FOREVER_S, LoadPolicy, Models
from quintet.server.own_names import own_names
from quintet.server.run import Server, listen, serve_async
from quintet.server.settings import Settings
from quintet.tools.inspect import inspect_model

_log = logging.getLogger("nano_qwen3_serving")


class OneModel:
    """
    A catalog of one model under two names.

    Args:
        name: as it is listed.
        full_name: what it may be asked for as well.
        path: of its files.
    """

    def __init__(self, name: str, full_name: str, path: Path) -> None:
        self._manifest = local_manifest(name, path)
        self._names = {name, full_name}

    def list(self) -> list[Manifest]:
        """See quintet's Catalog."""
        return [self._manifest]

    def get(self, name: str) -> Manifest:
        """See quintet's Catalog."""
        if name not in self._names:
            raise ModelNotFoundError(
                f"model {name[:100]!r} is not served; served: {self._manifest.name}"
            )
        return self._manifest


def served_name(model_name: str) -> str:
    """A model's name over HTTP: of "Qwen/Qwen3-0.6B", "qwen3-0.6b"."""
    return model_name.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf").lower()


def server_settings(options: ServiceOptions) -> Settings:
    """The server's settings."""
    return Settings(
        host=options.host,
        port=options.port,
        keys=(ApiKey.of(options.api_key),) if options.api_key else (),
        dialect="nano",
        extra_hosts=own_names(options.host),
    )


def bind(options: ServiceOptions) -> socket.socket:
    """A socket that listens where the options say; the log tells who can reach it without a key.

    Raises:
        ModelLoadError: there is no such model to serve.
        OSError: the address cannot be bound.
    """
    with load_errors():
        resolve(options.model_name)
    settings = server_settings(options)
    if not settings.is_loopback and not settings.keys:
        _log.warning(
            "%s can be reached from other machines, which need no key: --api-key sets one",
            options.host,
        )
    return listen(settings)


def serve(
    options: ServiceOptions,
    listener: socket.socket,
    on_listening: Callable[[Server], None] = lambda server: None,
) -> None:
    """
    Load the model and serve it until SIGTERM or SIGINT.

    Raises:
        ModelLoadError: it cannot be loaded.
        InvalidParametersError: an option that this model cannot take.
    """
    usable_device(options.device)
    with load_errors():
        path = resolve(options.model_name)
        name = served_name(options.model_name)
        arguments = _engine_options(options, path)
        settings = server_settings(options)

    async def load(manifest: Manifest) -> ServedEngine:
        llm = AsyncLLM(path, **arguments)
        try:
            return await llm.__aenter__()  # loads it; the server closes it
        except BaseException:
            await llm.close()  # should the server be told to stop before it is loaded
            raise

    async def main() -> None:
        catalog = OneModel(name, options.model_name, path)
        models = Models(catalog, load, LoadPolicy(keep_alive_s=FOREVER_S, max_loaded=1))

        async def prepare() -> None:
            with load_errors():
                await models.load(name)

        await serve_async(
            models, settings, on_listening=on_listening, prepare=prepare, listener=listener
        )

    asyncio.run(main())


def _engine_options(options: ServiceOptions, path: Path) -> dict[str, Any]:
    model = ModelOptions(
        options.model_name,
        options.device,
        options.dtype,
        options.max_queue_size,
        options.num_blocks,
        options.block_size,
        options.max_seq_length,
    )
    metadata = inspect_model(path).metadata
    architecture = metadata.get("general.architecture")
    context = metadata.get(f"{architecture}.context_length") or metadata.get(
        "max_position_embeddings"
    )
    lengths = [options.max_seq_length, options.num_blocks * options.block_size]
    return {
        "dtype": DTYPES[options.dtype],
        "num_kv_blocks": model.num_kv_blocks,
        "max_model_len": min([*lengths, context] if isinstance(context, int) else lengths),
        "max_queue": options.max_queue_size,
        # One of several workers is a process that is replaced when it crashes.
        "isolated": options.workers == 1 and not options.reload,
    }
