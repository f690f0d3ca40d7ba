"""The examples of llamatelemetry."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from llamatelemetry.server import ServerConfig, ServerManager
from spec.blocks import Block
from spec.outcome import not_run
from spec.run import Check

SPEC = "004"
PACKAGE = "llamatelemetry"
ALIASES = {"model.gguf": "demo"}
PORTS = (8080,)

PRELUDE = """
from dataclasses import dataclass
from llamatelemetry.api.client import *
from llamatelemetry.api.gguf import *
from llamatelemetry.api.multigpu import *
from llamatelemetry.server import ServerConfig, ServerManager

model_path = file_path = "model.gguf"
gpu_memory, model_size_gb = [15, 15], 10
config = ServerConfig(model_path=model_path)
server = ServerManager()
client = LlamaCppClient()
parser = GGUFParser(model_path)
"""
ASYNC_PRELUDE = ""
SHAPES: dict[str, str] = {}
NEEDS = {"from openai": "openai"}

_servers: list[ServerManager] = []


@contextlib.contextmanager
def checks() -> Iterator[Check]:
    """It has no blocks of other languages."""
    try:
        yield lambda block: not_run("it is not Python")
    finally:
        _stop()


@contextlib.contextmanager
def around(block: Block) -> Iterator[None]:
    """A server at the port of the client's examples; none where an example starts its own."""
    if "client." in block.text and "ServerManager" not in block.text and "(" in block.text:
        if not _servers:
            server = ServerManager()
            server.start_with_config(ServerConfig(model_path="demo", threads=2))
            _servers.append(server)
            if not server.wait_until_ready():
                raise RuntimeError(server.get_logs())
    elif "start_with_config" in block.text:
        _stop()
    yield


def _stop() -> None:
    while _servers:
        _servers.pop().stop()
