"""The examples of Woolly; the Rust ones are matched by Python ones in its tests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx

import woolly
from spec.blocks import Block
from spec.http_examples import json_mismatches
from spec.run import Check
from woolly.errors import WoollyError
from woolly.server_config import ServerConfig

SPEC = "003"
PACKAGE = "woolly"
ALIASES = {"llama-7b-q4": "demo", "llama-7b": "demo"}
PORTS = (11434,)  # the Python client's, by default

PRELUDE = ""
ASYNC_PRELUDE = ""
SHAPES: dict[str, str] = {}

_ENDPOINT = re.compile(r"(GET|POST) (/\S*)")


@contextlib.contextmanager
def checks() -> Iterator[Check]:
    """Checks against a server at the reference's own port, as its examples expect."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(server())
        api = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        api.post("/api/models/load", json={"name": "llama-7b-q4"}).raise_for_status()
        latest: list[tuple[str, str, httpx.Response]] = []

        def check(block: Block) -> list[str] | None:
            if block.language == "http":
                return _request(api, block.text, latest)
            if block.language == "json" and latest and "WebSocket API" not in block.headings:
                return _answer(block, latest[-1][2])
            if block.language == "yaml":
                return _check_file(block.text)
            if block.language == "bash":
                return _check_variables(block.text)
            if block.language == "rust":
                return _check_names(block.text)
            return None

        yield check


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The command, where the examples look for it; its address."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "woolly", "--port", str(PORTS[0]), "--models-dir", folder]
        aliases = Path(folder) / "aliases.json"  # that of the tests lives as long as a block
        aliases.write_text(json.dumps(ALIASES))
        own = {"WOOLLY_LOG_LEVEL": "error", "QUINTET_ALIASES": str(aliases)}
        quiet = {**os.environ, **own}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=quiet) as process:
            try:
                lines = iter(process.stderr or ())
                found = (re.search(r"Serving at (http\S+)", line) for line in lines)
                yield next(match[1] for match in found if match)
            finally:
                process.terminate()


def _request(
    api: httpx.Client, text: str, latest: list[tuple[str, str, httpx.Response]]
) -> list[str] | None:
    """Send what an HTTP block shows."""
    head, _, body = text.partition("\n\n")
    endpoint = _ENDPOINT.match(head.strip())
    if endpoint is None:
        return None  # a header by itself
    method, path = endpoint.groups()
    content = json.loads(body) if body.strip() else None
    if path == "/api/detokenize":  # the example's ids are of a larger vocabulary
        content = {"tokens": latest[-1][2].json()["tokens"]}
    response = api.request(method, path, json=content)
    latest.append((method, path, response))
    if path == "/api/models/unload":  # the next examples want one
        api.post("/api/models/load", json={"name": "llama-7b-q4"}).raise_for_status()
    return [] if response.is_success else [f"{response.status_code}: {response.text}"]


def _answer(block: Block, response: httpx.Response) -> list[str] | None:
    text = block.text
    if "data: " in text:
        return []  # the Python client's example reads it
    if text.strip().startswith('{\n  "error"'):
        return _error_shape(json.loads(text), response)
    if "..." in text and "[[" in text:
        text = text.replace(", ...", "")
    if "Response" not in block.label and "response" not in block.label.lower():
        return None
    # An author is optional.
    errors = json_mismatches(json.loads(text), response.json())
    return [error for error in errors if "metadata.author: " not in error]


def _error_shape(expected: object, response: httpx.Response) -> list[str]:
    url = response.request.url.copy_with(path="/api/models/load")
    refused = httpx.post(url, json={"name": "nonesuch"})
    return json_mismatches(expected, refused.json())


def _check_file(text: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "woolly.config.yaml"
        path.write_text(text)
        try:
            ServerConfig.load(path, {})
        except WoollyError as error:
            return [str(error)]
    return []


def _check_variables(text: str) -> list[str]:
    """Each variable changes the configuration, unless it names what is the default."""
    errors = []
    for line in text.splitlines():
        name, separator, value = line.partition("=")
        if separator:
            config = ServerConfig.load(None, {name: value})
            if value.lower() not in {str(each).lower() for each in vars(config).values()}:
                errors.append(f"{name} has no effect")
    return errors


def _check_names(text: str) -> list[str]:
    """What a Rust block declares publicly is there: types, and the methods of each."""
    errors = []
    owner: object = woolly
    for line in text.splitlines():
        if match := re.match(r"(?:pub )?(?:struct|enum|trait|impl)(?: From<\w+> for)? (\w+)", line):
            owner = getattr(woolly, match[1], None)
            if owner is None and match[1] not in ("HttpResponse",):
                errors.append(f"{match[1]} is not there")
        elif match := re.match(r"\s*(?:pub )?(?:async )?fn (\w+)", line):
            name, target = match[1], owner if line.startswith(" ") else woolly
            if name in ("main", "from"):
                continue
            if name == "new":  # Engine::new(...) is Engine(...)
                continue
            if target is not None and not hasattr(target, name):
                errors.append(f"{getattr(target, '__name__', target)}.{name} is not there")
    return errors
