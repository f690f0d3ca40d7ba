"""The rooms' order: what may import what, read from the source rather than from a run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "quintet"
FILES = sorted(SRC.rglob("*.py"))

# Each room may import itself and the rooms of the lines before its own; rooms of one line know
# nothing of each other.
FLOORS = [
    {"errors", "config", "logs"},
    {"formats", "sandbox", "ops"},
    {"tokenizer", "graph"},
    {"models", "parsing"},
    {"backends"},
    {"sampling"},
    {"engine"},
    {"chat"},
    {"runtime"},
    {"beams", "embeddings", "sharing"},
    {"reranking"},
    {"llm", "async_llm"},
    {"tools", "sessions"},
    {"server"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ALSO = {("config", "errors")}
# The hub stands beside the engine: it imports the ground floor and formats, and whoever turns
# names into models imports it.
HUB_IMPORTS = {"errors", "config", "formats"}
HUB_USERS = {"runtime", "sharing", "llm", "async_llm", "tools", "server", "cli"}
# formats and tokenizer: for vocabularies.
NATIVE_USERS = {"formats", "tokenizer", "backends", "sampling", "tools"}


def room_of(path: Path) -> str:
    """The first part of a module's path: its package, or its own name."""
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are written in full"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def is_allowed(room: str, target: str) -> bool:
    """Whether a file of `room` may import from the room `target`."""
    if room in (target, "__init__") or (room, target) in ALSO:
        return True
    if target == "_native":
        return room in NATIVE_USERS
    if target == "hub":
        return room in HUB_USERS
    if room == "hub":
        return target in HUB_IMPORTS
    return FLOOR[target] < FLOOR[room]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_point_one_way(path: Path):
    """A file imports only its own room and those below it."""
    for line, name in imports(path):
        first, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if first != "quintet" or target.startswith("__"):
            continue
        if not (SRC / target).is_dir() and not (SRC / f"{target}.py").exists():
            assert target == "_native" or room_of(path) == "__init__", f"{path}:{line}: {name}"
        assert is_allowed(room_of(path), target), f"{path}:{line}: {name}"


def test_every_room_has_a_floor():
    """A new room must say where it stands."""
    rooms = {room_of(path) for path in FILES} - {"__init__", "hub"}
    assert rooms <= set(FLOOR)


def test_rooms_say_what_they_are():
    """Each package opens with what it is and what it may import."""
    for path in FILES:
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text())), path


def test_no_code_from_data():
    """No unpickling, no evaluation of text: files and clients are data."""
    for path in FILES:
        for line, name in imports(path):
            assert name.split(".")[0] not in ("pickle", "marshal", "shelve", "yaml"), (path, line)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile"), (path, node.lineno)


def test_one_template_environment():
    """Chat templates are rendered in one place, in jinja's immutable sandbox."""
    made = [
        (path.name, node.func.id if isinstance(node.func, ast.Name) else node.func.attr)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name | ast.Attribute)
        and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr).endswith(
            "Environment"
        )
    ]
    assert [name for _, name in made] == ["ImmutableSandboxedEnvironment"]


def test_nothing_below_the_server_knows_http():
    """Web libraries are imported by the server, and by the two modules that are clients."""
    web = {"starlette", "uvicorn", "pydantic", "h11", "http", "httpx", "socket"}
    clients = {SRC / "hub" / "transport.py", SRC / "cli" / "remote.py"}
    for path in FILES:
        if room_of(path) != "server" and path not in clients:
            assert not {name.split(".")[0] for _, name in imports(path)} & web, path


def test_the_workers_libraries_are_loaded_by_workers_alone():
    """Who runs a model in a thread loads neither zmq nor msgspec."""
    for path in FILES:
        if path.parent != SRC / "engine" / "worker":
            assert not {name.split(".")[0] for _, name in imports(path)} & {"zmq", "msgspec"}, path


def test_the_heavy_oracles_are_for_tests():
    """torch, transformers and gguf are what we are tested against, not what we run on."""
    for path in FILES:
        names = {name.split(".")[0] for _, name in imports(path)}
        assert not names & {"torch", "transformers", "gguf", "llama_cpp"}, path
