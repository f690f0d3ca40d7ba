"""The examples of Woolly; the Rust ones are matched by Python ones of the documentation."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

import woolly
from spec.blocks import Block, read
from spec.foreign import Item, items_of
from spec.http_examples import json_mismatches
from spec.javascript import run_script, run_typescript
from spec.outcome import Verdict, checked, ran
from spec.run import Check
from woolly.errors import WoollyError
from woolly.server_config import ServerConfig

SPEC = "003"
PACKAGE = "woolly"
ALIASES = dict.fromkeys(("llama-7b-q4", "llama-7b", "models/llama-7b-q4.gguf"), "demo")
PORTS = (11434,)  # the Python client's, by default

PRELUDE = ""
ASYNC_PRELUDE = ""
SHAPES: dict[str, str] = {}
NEEDS = {"import requests": "requests"}

_PAGE = Path(__file__).parents[3] / "docs" / "faces" / "woolly.md"
_ENDPOINT = re.compile(r"(GET|POST) (/\S*)")


@contextlib.contextmanager
def checks() -> Iterator[Check]:
    """Checks against a server at the reference's own port, as its examples expect."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(server())
        api = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        api.post("/api/models/load", json={"name": "llama-7b-q4"}).raise_for_status()
        latest: list[tuple[str, str, httpx.Response]] = []

        def check(block: Block) -> Verdict:
            if block.language == "http":
                return _request(api, block.text, latest)
            if "WebSocket API" in block.headings and block.language == "json":
                return _message(block, url)
            if block.language == "json":
                return _answer(block, latest[-1][2])
            if block.language == "yaml":
                return checked(_check_file(block.text))
            if block.language == "bash":
                return checked(_check_variables(block.text))
            if block.language == "rust":
                return _check_rust(block)
            if block.language == "javascript":
                return _run_javascript(block.text)
            if block.language == "typescript":
                return run_typescript(block.text)
            if "data: " in block.text:
                return ran(_check_events(api, block.text))
            return checked([] if block.text.strip() == f"http://localhost:{PORTS[0]}" else [url])

        yield check


@contextlib.contextmanager
def around(block: Block) -> Iterator[None]:
    """A folder with the files that an example reads."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        _write_tokenizer(Path(folder) / "tokenizer")
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


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
) -> Verdict:
    """Send what an HTTP block shows."""
    head, _, body = text.partition("\n\n")
    endpoint = _ENDPOINT.match(head.strip())
    if endpoint is None:  # a header by itself
        name, _, value = head.strip().partition(": ")
        refused = httpx.get(f"{api.base_url}/api/models", headers={name: value})
        return ran(_failure(refused))
    method, path = endpoint.groups()
    content = json.loads(body) if body.strip() else None
    if path == "/api/detokenize":  # the example's ids are of a larger vocabulary
        content = {"tokens": latest[-1][2].json()["tokens"]}
    response = api.request(method, path, json=content)
    latest.append((method, path, response))
    if path == "/api/models/unload":  # the next examples want one
        api.post("/api/models/load", json={"name": "llama-7b-q4"}).raise_for_status()
    return ran(_failure(response))


def _failure(response: httpx.Response) -> list[str]:
    return [] if response.is_success else [f"{response.status_code}: {response.text}"]


def _answer(block: Block, response: httpx.Response) -> Verdict:
    expected = json.loads(block.text.replace(", ...]", "]"))
    if "error" in expected:
        return ran(_error_shape(expected, response))
    errors = json_mismatches(expected, response.json())
    # An author is optional.
    return checked(error for error in errors if "metadata.author: " not in error)


def _check_events(api: httpx.Client, text: str) -> list[str]:
    """The events of a stream are like those printed, to the last."""
    body = {"prompt": "Once upon a time", "max_tokens": 5, "stream": True}
    answer = api.post("/api/generate", json=body)
    printed, found = text.strip().splitlines(), list(filter(None, answer.text.splitlines()))
    if found[-1] != printed[-1] or len(found) < 2:
        return [f"expected {printed[-1]!r} at the end, found {found}"]
    expected = json.loads(printed[0].removeprefix("data: "))
    return [
        error
        for line in found[:-1]
        for error in json_mismatches(expected, json.loads(line.removeprefix("data: ")))
    ]


def _message(block: Block, url: str) -> Verdict:
    """Send a client's message; get the server's of a type, and compare it."""
    message = json.loads(block.text)
    with connect(f"{url.replace('http', 'ws')}/ws") as socket:
        if "Server Messages" in block.headings:
            kind = message["type"]
            asked = {"type": "generate", "id": "r", "prompt": "Once", "config": {"max_tokens": 3}}
            if kind == "error":
                asked["config"] = {"max_tokens": 0}
            socket.send(json.dumps(asked))
            return checked(json_mismatches(message, _received(socket, kind)))
        if message["type"] == "cancel":
            asked = {"type": "generate", "id": message["id"], "prompt": "Once upon a time"}
            socket.send(json.dumps({**asked, "config": {"max_tokens": 1000}}))
            _received(socket, "token")
        socket.send(block.text)
        end = _received(socket, "complete")
        errors = [] if end["request_id"] == message["id"] else [f"{end}"]
        if message["type"] == "cancel" and end["finish_reason"] != "cancelled":
            errors.append(f"it ended by {end['finish_reason']}")
        return ran(errors)


def _received(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of a type; what comes before it is of others."""
    while True:
        message: dict[str, Any] = json.loads(socket.recv(30))
        if message["type"] in (kind, "error"):
            return message


def _run_javascript(text: str) -> Verdict:
    """Run it until it has what it asks for; a connection by itself until it is open."""
    if "class " in text:
        return run_script(text, until="Complete:")
    return run_script(f"{text}ws.onopen = () => console.log('open');\n", until="open")


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


def _check_rust(block: Block) -> Verdict:
    """What it declares is there; of an example its twin in the documentation is run."""
    items = items_of(block)
    if items:
        return checked(error for item in items for error in _item_errors(item))
    page = read(_PAGE)
    twins = [each for each in page.blocks if block.headings[-1] in each.label]
    if not twins:
        return ran([f"no twin of {block.headings[-1]!r} in {_PAGE.name}"])
    with around(block), contextlib.redirect_stdout(io.StringIO()) as said:
        for twin in twins:
            exec(compile(twin.text, twin.id, "exec"), {"__name__": "__main__"})
    return ran([] if said.getvalue().strip() else ["it printed nothing"])


def _item_errors(item: Item) -> list[str]:
    """A type, a type's field or member, a function with these parameters."""
    if item.owner == "WoollyError":  # its members are classes of their own
        found = getattr(woolly, item.name, None)
        is_error = isinstance(found, type) and issubclass(found, WoollyError)
        return [] if is_error else [f"{item.name} is no WoollyError"]
    owner = getattr(woolly, item.owner, None) if item.owner else woolly
    if owner is None:
        return [f"{item.owner} is not there"]
    place = f"{item.owner}.{item.name}".lstrip(".")
    fields = {name for each in getattr(owner, "__mro__", ()) for name in vars(each)}
    fields |= {
        name for each in getattr(owner, "__mro__", ()) for name in inspect.get_annotations(each)
    }
    if item.kind == "field" and item.name not in fields:
        parameters = inspect.signature(owner).parameters if isinstance(owner, type) else ()
        return [] if item.name in parameters else [f"{place} is not there"]
    if item.kind == "field":
        return []
    found = getattr(owner, item.name, None)
    if found is None:
        return [f"{place} is not there"]
    if item.kind == "callable" and item.parameters:
        names = [name for name in inspect.signature(found).parameters if name != "self"]
        if len(names) < len(item.parameters):
            return [f"{place}: expected {item.parameters}, found {names}"]
    return []


def _write_tokenizer(folder: Path) -> None:
    """The files of a tokenizer, which the example reads: single bytes, and a merge."""
    folder.mkdir()
    spellings = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    spellings += [chr(256 + index) for index in range(256 - len(spellings))]
    vocabulary = {spelling: index for index, spelling in enumerate([*spellings, "he"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("h e\n")
