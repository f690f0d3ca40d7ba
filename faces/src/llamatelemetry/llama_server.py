"""Quintet's server with llama-server's command line: `python -m llamatelemetry.llama_server -h`.

Source of the options: tools/server/README.md of ggml-org/llama.cpp.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quintet import AsyncLLM, QuintetError
from quintet.hub.manifest import Manifest
from quintet.hub.resolve import resolve
from quintet.server.catalog import local_manifest
from quintet.server.engines import ServedEngine
from quintet.server.keys import ApiKey
from quintet.server.models import FOREVER_S, LoadPolicy, Models
from quintet.server.own_names import own_names
from quintet.server.run import Server, serve_async
from quintet.server.settings import Settings
from quintet.tools.inspect import inspect_model

_log = logging.getLogger("llamatelemetry")


class AnyName:
    """
    A catalog of one model, which answers to every name, as llama-server does.

    Args:
        name: as it is listed.
        path: of its files.
    """

    def __init__(self, name: str, path: Path) -> None:
        self._manifest = local_manifest(name, path)

    def list(self) -> list[Manifest]:
        """See quintet's Catalog."""
        return [self._manifest]

    def get(self, name: str) -> Manifest:
        """See quintet's Catalog."""
        return self._manifest


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if options.n_gpu_layers > 0 or options.tensor_split:
        _log.warning("no GPU is used: all layers run on the CPU")
    try:
        asyncio.run(_serve(options))
    except (QuintetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(options: argparse.Namespace) -> None:
    path = resolve(options.model)
    name = options.alias or Path(options.model).name
    arguments = _engine_options(options, path)
    settings = Settings(
        host=options.host,
        port=options.port,
        keys=tuple(ApiKey.of(key) for key in options.api_key or ()),
        dialect="llamacpp",
        extra_hosts=own_names(options.host),
    )
    if not settings.is_loopback and not settings.keys:
        _log.warning("%s can be reached from other machines, which need no key", options.host)

    async def load(manifest: Manifest) -> ServedEngine:
        llm = AsyncLLM(path, **arguments)
        try:
            return await llm.__aenter__()  # loads it; the server closes it
        except BaseException:
            await llm.close()  # should the server be told to stop before it is loaded
            raise

    def announce(server: Server) -> None:
        _log.info("server is listening on %s", server.url)

    models = Models(AnyName(name, path), load, LoadPolicy(keep_alive_s=FOREVER_S, max_loaded=1))

    async def prepare() -> None:
        await models.load(name)

    await serve_async(models, settings, on_listening=announce, prepare=prepare)


def _engine_options(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    metadata = inspect_model(path).metadata
    architecture = metadata.get("general.architecture")
    trained = metadata.get(f"{architecture}.context_length")
    length = options.ctx_size or None
    if length is not None and isinstance(trained, int) and length > trained:
        _log.warning("the context is the model's %d tokens, not %d", trained, length)
        length = None
    more: dict[str, Any] = {}
    if options.parallel is not None:
        more["max_num_seqs"] = options.parallel
    seats = more.get("max_num_seqs", 64)
    return {
        "max_model_len": length,
        "num_threads": options.threads,
        "max_num_batched_tokens": max(options.batch_size, seats),
        **more,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llama_server", allow_abbrev=False)
    add = parser.add_argument
    add("-m", "--model", required=True, help="path or name of the model")
    add("-a", "--alias", help="the model's name over HTTP")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8080, help="port to listen on")
    add("-c", "--ctx-size", type=int, default=0, help="tokens of the context; 0: the model's")
    add("-b", "--batch-size", type=int, default=512, help="tokens of one step")
    add("-t", "--threads", type=int, help="CPU threads")
    add("-np", "--parallel", type=int, help="requests of one step")
    add("--api-key", action="append", help="what clients must send; may be repeated")
    add("--embeddings", "--embedding", action="store_true", help="always on")
    add("-fa", "--flash-attn", nargs="?", choices=("on", "off", "auto"), help="always on")
    for names in (("-ngl", "--n-gpu-layers", "--gpu-layers"), ("-mg", "--main-gpu")):
        add(*names, dest=names[1][2:].replace("-", "_"), type=int, default=0, help="for GPUs")
    add("-ts", "--tensor-split", help="for GPUs")
    add("-sm", "--split-mode", choices=("none", "layer", "row"), help="for GPUs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
