"""The daemon: Ollama's interface over the models of a folder, each loaded when asked for.

python -m oprel.serving --port 11434
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from oprel import daemon
from oprel.aliases import loadable, store_at
from oprel.choice import MAX_NUM_SEQS, context_for
from oprel.core.config import Config
from quintet.errors import CapacityError, QuintetError, RequestError
from quintet.hub.files import default_root

if TYPE_CHECKING:
    from quintet.hub.manifest import Manifest
    from quintet.server.engines import ServedEngine
    from quintet.server.models import Models
    from quintet.server.run import Server

_LOCK_TIMEOUT_S = 2.0  # those who only look whether it is held hold it for a moment


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until told to stop, or idle for long; exit 75 where another daemon has the port."""
    parser = argparse.ArgumentParser(prog="python -m oprel.serving", description=__doc__)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=daemon.DEFAULT_PORT)
    parser.add_argument("--cache-dir")
    parser.add_argument("--default-max-memory-mb", type=int)
    parser.add_argument("--n-threads", type=int)
    parser.add_argument("--ctx-size", type=int, default=Config.ctx_size)
    parser.add_argument("--batch-size", type=int, default=Config.batch_size)
    parser.add_argument("--idle-timeout", type=float, default=0.0)
    options = parser.parse_args(arguments)
    config = Config(
        default_max_memory_mb=options.default_max_memory_mb,
        n_threads=options.n_threads,
        ctx_size=options.ctx_size,
        batch_size=options.batch_size,
    )
    if options.cache_dir:
        config.cache_dir = options.cache_dir
    os.chdir("/")  # so that it keeps no folder from being removed
    sys.exit(run(options.host, options.port, config, idle_timeout_s=options.idle_timeout))


def run(host: str, port: int, config: Config, *, idle_timeout_s: float = 0.0) -> int:
    """
    Serve as the daemon of a port; the exit status.

    Args:
        idle_timeout_s: end after this long without a loaded model; 0: never.
    """
    level = os.environ.get("OPREL_LOG_LEVEL", "WARNING").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        print(f"oprel: OPREL_LOG_LEVEL: expected a level, found {level!r:.40}", file=sys.stderr)
        return 1
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if config.cache_dir is not None:  # for the processes that load the models
        aliases = default_root().absolute() / "aliases.json"
        if aliases.is_file():
            os.environ.setdefault("QUINTET_ALIASES", str(aliases))
        os.environ["QUINTET_HOME"] = str(Path(config.cache_dir).expanduser().absolute())
    lock = daemon.lock_of(port)
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while not lock.try_acquire():
        if time.monotonic() > deadline:
            print(f"oprel: a server runs on port {port} already", file=sys.stderr)
            return daemon._TAKEN
        time.sleep(0.05)
    state = daemon.folder() / f"{port}.json"
    state.unlink(missing_ok=True)  # of one that crashed
    try:
        asyncio.run(_serve(host, port, config, idle_timeout_s))
    except (QuintetError, OSError) as error:
        print(f"oprel: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 1
    finally:
        state.unlink(missing_ok=True)
        lock.release()
    return 0


async def _serve(host: str, port: int, config: Config, idle_timeout_s: float) -> None:
    from quintet.engine.sizing import available_memory_bytes
    from quintet.server.models import LoadPolicy, Models
    from quintet.server.run import check_exposure, serve_async
    from quintet.server.settings import Settings

    settings = Settings(host=host, port=port, dialect="oprel")
    check_exposure(settings, force=False)
    store = store_at(config.cache_dir)
    models = Models(
        store,
        lambda manifest: load(manifest, config),
        LoadPolicy(max_bytes=available_memory_bytes()),
    )
    watches: list[asyncio.Task[None]] = []

    def announce(server: Server) -> None:
        found = daemon.Daemon(os.getpid(), server.url, str(store.root))
        daemon.announce(port, found)
        print(f"Serving at {server.url}", file=sys.stderr, flush=True)
        if idle_timeout_s > 0:
            watches.append(asyncio.ensure_future(_stop_when_idle(server, models, idle_timeout_s)))

    try:
        await serve_async(models, settings, on_listening=announce)
    finally:
        for watch in watches:
            watch.cancel()


async def load(manifest: Manifest, config: Config) -> ServedEngine:
    """
    The engine of a model, in a process of its own, within the memory it may take.

    Raises:
        RequestError: that is too little; not CapacityError, since it will not be more later.
    """
    from quintet.async_llm import AsyncLLM

    limit_mb = daemon.memory_limits().get(manifest.name, config.default_max_memory_mb)
    llm = AsyncLLM(
        loadable(manifest, default_root().absolute()),
        num_threads=config.n_threads,
        max_model_len=await asyncio.to_thread(
            context_for, manifest.path, manifest.parameters, config.ctx_size
        ),
        max_num_batched_tokens=config.batch_size,
        max_num_seqs=min(MAX_NUM_SEQS, config.batch_size),
        max_memory=None if limit_mb is None else limit_mb * 2**20,
        isolated=True,
    )
    try:
        return await llm.__aenter__()  # loads it; the server closes it
    except CapacityError as error:
        if limit_mb is None:
            raise
        raise RequestError(str(error)) from error


async def _stop_when_idle(server: Server, models: Models, timeout_s: float) -> None:
    used_s = time.monotonic()
    while time.monotonic() - used_s < timeout_s:
        await asyncio.sleep(min(1.0, timeout_s / 4))
        if any(True for _ in models):
            used_s = time.monotonic()
    server.stop()


if __name__ == "__main__":
    main()
