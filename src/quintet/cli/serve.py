"""`quintet serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from quintet.cli.options import (
    Backend,
    BackendOption,
    ContextOption,
    Dtype,
    DtypeOption,
    MaxMemoryOption,
    MlockOption,
    MmapOption,
    PackedCacheOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from quintet.hub.manifest import Manifest
    from quintet.server.catalog import Catalog
    from quintet.server.engines import ServedEngine
    from quintet.server.run import Server


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]MODEL",
            help="Models to load now and hold, by name or path; without any, those of the store "
            "are loaded when asked for.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 11434,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="QUINTET_API_KEY",
            help="A key that clients must send; may be repeated.",
            show_envvar=True,
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A name clients may reach this server by; may be repeated."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Serve other machines without a key.")
    ] = False,
    context: ContextOption = None,
    threads: ThreadsOption = None,
    backend: BackendOption = Backend.auto,
    dtype: DtypeOption = Dtype.auto,
    mmap: MmapOption = True,
    mlock: MlockOption = False,
    max_memory: MaxMemoryOption = None,
    packed_cache: PackedCacheOption = False,
    keep_alive: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds that a model loaded on demand stays after its last request."
        ),
    ] = 300.0,
    max_loaded: Annotated[int, typer.Option(min=1, help="Models loaded on demand at a time.")] = 3,
    in_process: Annotated[
        bool,
        typer.Option(
            "--in-process",
            help="Run models as threads of the server, not as processes of their own.",
        ),
    ] = False,
) -> None:
    """Serve models over HTTP, in the dialects of OpenAI and llama-server."""
    import asyncio
    import logging

    from quintet.cli.options import status
    from quintet.engine.sizing import available_memory_bytes
    from quintet.hub.store import Store
    from quintet.server.catalog import ServedModels
    from quintet.server.models import FOREVER_S, LoadPolicy, Models
    from quintet.server.run import check_exposure, serve_async
    from quintet.server.settings import Settings, key_digest

    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    settings = Settings(
        host=host,
        port=port,
        key_digests=tuple(key_digest(key.encode()) for key in api_key or ()),
        extra_hosts=frozenset(allowed_host or ()),
    )
    check_exposure(settings, force=force)
    sources = served_models(models or [])
    catalog: Catalog = Store()
    policy = LoadPolicy(
        keep_alive_s=keep_alive, max_loaded=max_loaded, max_bytes=available_memory_bytes()
    )
    if sources:
        catalog = ServedModels(manifest_of(name, model) for name, model in sources.items())
        policy = LoadPolicy(keep_alive_s=FOREVER_S, max_loaded=len(sources))

    async def main() -> None:
        from quintet.async_llm import AsyncLLM

        async def load(manifest: Manifest) -> ServedEngine:
            return await AsyncLLM(
                sources.get(manifest.name, manifest.name),
                max_model_len=context,
                num_threads=threads,
                backend=backend.value,
                dtype=dtype.value,
                use_mmap=mmap,
                use_mlock=mlock,
                max_memory=max_memory,
                packed_cache=packed_cache,
                isolated=not in_process,
            ).__aenter__()  # loads it; the server closes it

        served = Models(catalog, load, policy)
        try:
            for name in sources:
                with status(f"Loading {name}"):
                    await served.load(name)
            await serve_async(served, settings, on_listening=announce)
        finally:
            await served.close()

    def announce(server: Server) -> None:
        names = ", ".join(sources) or "models on demand"
        typer.echo(f"Serving {names} at {server.url}/v1", err=True)

    asyncio.run(main())


def manifest_of(name: str, model: str) -> Manifest:
    """A model by name or path as it is served.

    Raises:
        ModelNotFoundError: there is none.
    """
    import dataclasses

    from quintet.hub.resolve import find, resolve
    from quintet.server.catalog import local_manifest

    path = resolve(model)
    stored = find(model)
    if stored is not None:
        return dataclasses.replace(stored, name=name)
    return local_manifest(name, path)


def served_models(arguments: list[str]) -> dict[str, str]:
    """Names and models of `[NAME=]MODEL` arguments; a path without a name gets its file's.

    Raises:
        RequestError: two models of one name, or an empty one.
    """
    from pathlib import Path

    from quintet.errors import RequestError

    sources: dict[str, str] = {}
    for argument in arguments:
        name, separator, model = argument.partition("=")
        if not separator:
            model = argument
            is_path = "/" in model or model.endswith((".gguf", ".safetensors"))
            name = Path(model).name if is_path else model
            name = name.removesuffix(".gguf").removesuffix(".safetensors")
        if not name or not model:
            raise RequestError(f"expected NAME=MODEL, found {argument!r}", parameter="model")
        if name in sources:
            raise RequestError(f"two models are named {name!r}", parameter="model")
        sources[name] = model
    return sources
