"""The examples of Oprel."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oprel import Config, daemon
from oprel.cli import exit_status
from quintet.hub.packaged import packaged_models
from quintet.hub.store import Store
from spec.blocks import Block
from spec.outcome import Verdict, checked, not_run
from spec.run import Check

SPEC = "002"
PACKAGE = "oprel"
_MODEL = "hf.co/user/tiny:Q4_K_M"  # in a hub on this machine, so that it can be pulled and deleted
ALIASES = {"qwencoder": _MODEL, "llama3": _MODEL}

PRELUDE = """
from oprel import *
from oprel import Client, Config, Model
from oprel.client import HTTPClient
messages = [{"role": "user", "content": "Hello"}]
endpoint, data = "/generate", {"model": "qwencoder", "prompt": "Hello"}
model = Model("qwencoder")
response = chat(model="qwencoder", messages=messages)
client = Client()
"""
_HTTP = 'client = HTTPClient(base_url="http://localhost:11434")\n'
ASYNC_PRELUDE = ""
SHAPES: dict[str, str] = {}
OMISSIONS = {"[...]": "messages"}

_own: dict[str, str] = {}


@contextlib.contextmanager
def checks() -> Iterator[Check]:
    """Checks of commands and variables; a hub, a store and a daemon of the examples' own."""
    sys.path.append(str(Path(__file__).parents[3] / "tests"))
    fake_hub: Any = importlib.import_module("hub.fake_hub")

    with fake_hub.running_hub() as hub, tempfile.TemporaryDirectory() as folder:
        hub.add("user/tiny", "tiny-Q4_K_M.gguf", packaged_models()["demo"].read_bytes())
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        home = Path(folder) / "home"
        home.mkdir()
        (home / "aliases.json").write_text(json.dumps(ALIASES))
        _own.update(
            HF_ENDPOINT=hub.endpoint,
            HF_HUB_CACHE=f"{folder}/cache",
            HF_TOKEN="",
            QUINTET_HOME=str(home),
            XDG_STATE_HOME=f"{folder}/state",
            OPREL_SERVER_PORT=str(port),
        )
        with _environment(None):
            daemon.ensure()
        try:
            yield _check
        finally:
            with _environment(None):
                daemon.stop(port)
            _own.clear()


@contextlib.contextmanager
def around(block: Block) -> Iterator[None]:
    """The model is there, and so is a configuration file, in the folder the example runs in."""
    global PRELUDE
    prelude, before = PRELUDE, Path.cwd()
    with _environment(os.environ.get("QUINTET_ALIASES")), tempfile.TemporaryDirectory() as folder:
        store = Store()
        if store.find(_MODEL) is None:
            store.copy("demo", _MODEL)
        Config().save(Path(folder) / "config.yaml")
        os.chdir(folder)
        if "HTTP Client" in block.headings:
            PRELUDE = prelude + _HTTP
        try:
            yield
        finally:
            PRELUDE = prelude
            os.chdir(before)


def _check(block: Block) -> Verdict:
    if block.language != "bash":
        return not_run("it is no code")
    errors = []
    for line in block.text.splitlines():
        words = line.split("#")[0].split()
        if words[:1] == ["oprel"] and words[1:2] != ["--help"]:
            errors += _check_command(words[1:])
        elif words and words[0].startswith("OPREL_"):
            errors += _check_variable(words[0])
    return checked(errors)


def _check_command(words: list[str]) -> list[str]:
    verbs = [word for word in words if re.fullmatch(r"[a-z-]+", word) and word[0] != "-"]
    options = re.findall(r"--[a-z-]+", " ".join(words))
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        status = exit_status([*verbs, "--help"])
    errors = [] if status == 0 else [f"oprel {' '.join(verbs)} is not there"]
    return errors + [f"{verbs}: no {name}" for name in options if name not in shown.getvalue()]


def _check_variable(name: str) -> list[str]:
    """Whether anything depends on it."""
    sources = Path(daemon.__file__).parent.rglob("*.py")
    code = re.compile(rf'environ.*"{name}"|_environment\("{name}"\)')
    return [] if any(code.search(path.read_text()) for path in sources) else [f"{name}: not read"]


@contextlib.contextmanager
def _environment(aliases: str | None) -> Iterator[None]:
    changed = {**_own} if aliases is None else {**_own, "QUINTET_ALIASES": aliases}
    before = {name: os.environ.get(name) for name in (*changed, "QUINTET_ALIASES")}
    os.environ.pop("QUINTET_ALIASES", None)
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
