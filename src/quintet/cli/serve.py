"""`quintet serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from quintet.cli.serve_options import (
    AdminKeyOption,
    AllowedHostOption,
    ApiKeyFileOption,
    ApiKeyOption,
    CacheDtype,
    CorsOriginOption,
    DialectName,
    DialectOption,
    DraftModelOption,
    DrainTimeoutOption,
    ForceOption,
    HostOption,
    InProcessOption,
    KeepAliveOption,
    KVDtypeOption,
    LogFormat,
    LogFormatOption,
    LogLevel,
    LogLevelOption,
    MaxConcurrentOption,
    MaxLoadedOption,
    MaxQueueOption,
    ModelsArgument,
    NgramOption,
    PortOption,
    QueueTimeoutOption,
    RateRequestsOption,
    RateTokensOption,
    RequestTimeoutOption,
    SandboxLoadOption,
    TLSCertOption,
    TLSKeyOption,
)

if TYPE_CHECKING:
    from quintet.hub.manifest import Manifest
    from quintet.server.catalog import Catalog
    from quintet.server.engines import ServedEngine
    from quintet.server.run import Server

# Where other machines can reach the server.  Alone on this one, who waits wants to.
_REQUESTS_PER_MINUTE = 60  # of a key
_MAX_QUEUE = 128
_QUEUE_TIMEOUT_S = 60.0


def serve(
    models: ModelsArgument = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = None,
    dialect: DialectOption = DialectName.quintet,
    api_key: ApiKeyOption = None,
    admin_key: AdminKeyOption = None,
    api_key_file: ApiKeyFileOption = None,
    allowed_host: AllowedHostOption = None,
    cors_origin: CorsOriginOption = None,
    force: ForceOption = False,
    tls_cert: TLSCertOption = None,
    tls_key: TLSKeyOption = None,
    rate_limit_requests: RateRequestsOption = None,
    rate_limit_tokens: RateTokensOption = 0,
    max_concurrent: MaxConcurrentOption = 0,
    max_queue: MaxQueueOption = None,
    queue_timeout: QueueTimeoutOption = None,
    request_timeout: RequestTimeoutOption = 3600.0,
    drain_timeout: DrainTimeoutOption = 30.0,
    context: ContextOption = None,
    threads: ThreadsOption = None,
    backend: BackendOption = Backend.auto,
    dtype: DtypeOption = Dtype.auto,
    mmap: MmapOption = True,
    mlock: MlockOption = False,
    max_memory: MaxMemoryOption = None,
    packed_cache: PackedCacheOption = False,
    kv_dtype: KVDtypeOption = CacheDtype.auto,
    ngram_speculation: NgramOption = False,
    draft_model: DraftModelOption = None,
    keep_alive: KeepAliveOption = 300.0,
    max_loaded: MaxLoadedOption = 3,
    sandbox_load: SandboxLoadOption = False,
    in_process: InProcessOption = False,
    log_format: LogFormatOption = LogFormat.text,
    log_level: LogLevelOption = None,
) -> None:
    """Serve models over HTTP, in the dialects of OpenAI, Anthropic, Ollama and llama-server.

    Every option may be set in the environment: --rate-limit-requests as
    QUINTET_SERVE_RATE_LIMIT_REQUESTS, and so on.
    """
    import asyncio
    import dataclasses
    import logging
    import resource

    from quintet.cli.options import status
    from quintet.config import EngineConfig
    from quintet.engine.sizing import available_memory_bytes
    from quintet.errors import RequestError
    from quintet.hub.resolve import resolve
    from quintet.hub.store import Store
    from quintet.server.catalog import ServedModels
    from quintet.server.flavours import FLAVOURS
    from quintet.server.keys import USER_SCOPES, ApiKey, read_key_file
    from quintet.server.models import FOREVER_S, LoadPolicy, Models
    from quintet.server.rate_limits import RateLimits
    from quintet.server.run import check_exposure, serve_async
    from quintet.server.settings import LOOPBACK_HOSTS, Settings

    configure_log(log_format, log_level)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold everybody's prompts
    if rate_limit_requests is None:
        rate_limit_requests = 0 if host in LOOPBACK_HOSTS else _REQUESTS_PER_MINUTE
    if max_queue is None:
        max_queue = EngineConfig.max_queue if host in LOOPBACK_HOSTS else _MAX_QUEUE
    if queue_timeout is None:
        queue_timeout = 0.0 if host in LOOPBACK_HOSTS else _QUEUE_TIMEOUT_S
    settings = Settings(
        host=host,
        port=FLAVOURS[dialect.value].port if port is None else port,
        dialect=dialect.value,
        keys=(
            *(ApiKey.of(key, scopes=USER_SCOPES) for key in api_key or ()),
            *(ApiKey.of(key) for key in admin_key or ()),
            *(() if api_key_file is None else read_key_file(api_key_file)),
        ),
        rate_limits=RateLimits(
            requests_per_minute=rate_limit_requests or None,
            tokens_per_minute=rate_limit_tokens or None,
            max_concurrent=max_concurrent or None,
        ),
        cors_origins=frozenset(checked_origins(cors_origin or [])),
        tls_cert=tls_cert,
        tls_key=tls_key,
        extra_hosts=frozenset(allowed_host or ()),
        drain_timeout_s=drain_timeout,
    )
    if dialect is DialectName.densecore and wants_auth() and not settings.keys:
        raise RequestError("AUTH_ENABLED wants a key: give an --api-key", parameter="api_key")
    check_exposure(settings, force=force)
    sources = served_models(models or [])
    if draft_model is not None and len(sources) != 1:
        raise RequestError("expected one model to guess for", parameter="draft_model")
    catalog: Catalog = Store()
    policy = LoadPolicy(
        keep_alive_s=keep_alive,
        max_loaded=max_loaded,
        max_bytes=available_memory_bytes(),
        request_timeout_s=request_timeout or None,
        queue_timeout_s=queue_timeout or None,
    )
    if sources:
        catalog = ServedModels(manifest_of(name, model) for name, model in sources.items())
        policy = dataclasses.replace(
            policy, keep_alive_s=FOREVER_S, max_loaded=len(sources), max_bytes=None
        )

    async def main() -> None:
        from quintet.async_llm import AsyncLLM
        from quintet.engine.file_check import FileCheck

        check = FileCheck()

        async def load(manifest: Manifest) -> ServedEngine:
            if sandbox_load:
                await asyncio.to_thread(check.check, manifest.path)
            llm = AsyncLLM(
                sources.get(manifest.name, manifest.name),
                max_model_len=context,
                num_threads=threads,
                backend=backend.value,
                dtype=dtype.value,
                kv_dtype=kv_dtype.value,
                max_queue=max_queue,
                ngram_speculation=ngram_speculation,
                draft_model=draft_model,
                use_mmap=mmap,
                use_mlock=mlock,
                max_memory=max_memory,
                packed_cache=packed_cache,
                isolated=not in_process,
            )
            try:
                return await llm.__aenter__()  # loads it; the server closes it
            except BaseException:
                await llm.close()  # should the server be told to stop before it is loaded
                raise

        served = Models(catalog, load, policy)

        async def prepare() -> None:
            if sandbox_load and draft_model is not None:
                await asyncio.to_thread(check.check, resolve(draft_model))
            for name in sources:
                with status(f"Loading {name}"):
                    await served.load(name)

        await serve_async(served, settings, on_listening=announce, prepare=prepare)

    def announce(server: Server) -> None:
        names = ", ".join(sources) or "models on demand"
        if log_format is LogFormat.json:
            fields = {"models": list(sources), "url": server.url}
            logging.getLogger(__name__).info("serving", extra={"fields": fields})
        else:
            typer.echo(f"Serving {names} at {server.url}/v1", err=True)

    asyncio.run(main())


def configure_log(format: LogFormat, level: LogLevel | None) -> None:
    """Set up the log of this process and of those it starts."""
    import os

    from quintet.engine.worker.launch import LOG_FORMAT_VARIABLE
    from quintet.logs import configure
    from quintet.server.exchange import current_request_id

    if level is None:
        level = LogLevel.info if format is LogFormat.json else LogLevel.warning
    os.environ[LOG_FORMAT_VARIABLE] = format.value
    configure(format.value, level.value, current_request_id)


def wants_auth() -> bool:
    """What DenseCore's AUTH_ENABLED says."""
    import os

    return os.environ.get("AUTH_ENABLED", "").strip().lower() in ("1", "true", "yes", "on")


def checked_origins(origins: list[str]) -> list[str]:
    """Origins as browsers write them; "*" would let any page use this machine.

    Raises:
        RequestError: something else.
    """
    import re

    from quintet.errors import RequestError

    for origin in origins:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9.\[\]:_-]+", origin):
            raise RequestError(
                f"expected an origin such as https://chat.example, found {origin!r}",
                parameter="cors_origin",
            )
    return origins


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
