"""Runs a reference's blocks against the face that implements it; nothing is patched."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import importlib.util
import inspect
import io
import json
import os
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

from spec.blocks import Block, Reference
from spec.declarations import (
    COMPILE_FLAGS,
    Declaration,
    Fields,
    Parts,
    declared_in,
    differences,
    parts_of,
)
from spec.outcome import Outcome, Verdict, checked, not_run, ran


class Check(Protocol):
    """Runs or checks a block that is not Python."""

    def __call__(self, block: Block) -> Verdict: ...


class Face(Protocol):
    """
    What a module in `faces/` has.

    Args:
        SPEC: the reference's number.
        PACKAGE: the import name.
        ALIASES: names of models in the examples, to those they run on.
        PRELUDE: code that makes what examples take for granted.
        ASYNC_PRELUDE: the same on top, for examples that await.
        SHAPES: headings of dictionaries that are declared by their keys, to code that makes one.
        checks: makes the check of blocks that are not Python.

    It may have `PORTS`, that its examples listen on, `around`, a context that each block needs,
    `NEEDS`, texts of examples to the packages of others that they need, and `OMISSIONS`, what
    examples leave out as `[...]`, to the name in the prelude that stands for it.
    """

    SPEC: str
    PACKAGE: str
    ALIASES: dict[str, str]
    PRELUDE: str
    ASYNC_PRELUDE: str
    SHAPES: dict[str, str]

    def checks(self) -> AbstractContextManager[Check]: ...


def faces() -> list[Face]:
    """The faces there are, in the order of their references."""
    folder = Path(__file__).parent / "faces"
    names = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    modules = [importlib.import_module(f"spec.faces.{name}") for name in names]
    return sorted((cast("Face", module) for module in modules), key=lambda face: face.SPEC)


def find_spec(folder: Path, face: Face) -> Path:
    """The reference of a face.

    Raises:
        FileNotFoundError: it is not in that folder.
    """
    found = sorted(folder.glob(f"{face.SPEC}_*.txt"))
    if not found:
        raise FileNotFoundError(f"{folder}: expected {face.SPEC}_*.txt")
    return found[0]


@contextlib.contextmanager
def aliases(face: Face) -> Iterator[None]:
    """Until the block ends, models have the names that the examples use."""
    before = os.environ.get("QUINTET_ALIASES")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "aliases.json"
        path.write_text(json.dumps(face.ALIASES))
        os.environ["QUINTET_ALIASES"] = str(path)
        try:
            yield
        finally:
            if before is None:
                del os.environ["QUINTET_ALIASES"]
            else:
                os.environ["QUINTET_ALIASES"] = before


def run_reference(reference: Reference, face: Face) -> list[Outcome]:
    """What becomes of all blocks."""
    with aliases(face), face.checks() as check:
        return [run_block(block, face, check) for block in reference.blocks]


def run_block(block: Block, face: Face, check: Check) -> Outcome:
    """Run one block, or check what it declares."""
    for text, needed in getattr(face, "NEEDS", {}).items():
        if text in block.text and importlib.util.find_spec(needed) is None:
            return Outcome(block, not_run(f"{needed} is not installed"))
    try:
        if block.language != "python":
            return Outcome(block, check(block))
        with getattr(face, "around", contextlib.nullcontext)(block):
            text = block.text
            for omitted, meant in getattr(face, "OMISSIONS", {}).items():
                text = text.replace(omitted, meant)
            return Outcome(block, _run_parts(block, parts_of(text), face))
    except Exception as error:  # noqa: BLE001 - an example may fail in any way
        where = "".join(traceback.format_exception(error)[-3:])
        return Outcome(block, ran([where]))


def _run_parts(block: Block, parts: Parts, face: Face) -> Verdict:
    code = compile(parts.code, block.id, "exec", COMPILE_FLAGS)
    is_async = bool(code.co_flags & inspect.CO_COROUTINE)

    async def run() -> list[str]:
        namespace = _namespace(face, is_async=is_async)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                result = eval(code, namespace)  # noqa: S307 - the example itself
                if inspect.isawaitable(result):
                    await result
            return _mismatches(block, parts, face, namespace)
        finally:
            await _close(namespace.values())

    if is_async:
        errors = asyncio.run(run())
    else:
        # Outside any event loop: examples start their own.
        namespace = _namespace(face, is_async=False)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, namespace)
            errors = _mismatches(block, parts, face, namespace)
        finally:
            asyncio.run(_close(namespace.values()))
    return ran(errors) if parts.code else checked(errors)


def _namespace(face: Face, *, is_async: bool) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(face.PRELUDE, namespace)
    if is_async:
        exec(face.ASYNC_PRELUDE, namespace)
    return namespace


async def _close(values: Iterable[Any]) -> None:
    """Let go of what the example has left open."""
    for value in list(values):
        for name in ("shutdown", "stop", "close"):
            method = getattr(value, name, None)
            if method is not None and not isinstance(value, type | ModuleType):
                done = method()
                if inspect.isawaitable(done):
                    await done
                break


def _mismatches(block: Block, parts: Parts, face: Face, namespace: dict[str, Any]) -> list[str]:
    errors: list[str] = []
    for declaration in (*parts.declarations, *heading_declarations(block)):
        actual = find_callable(declaration, block.headings, face, namespace)
        if actual is None:
            errors.append(f"{declaration.name} is not there")
        else:
            errors += differences(declaration, actual)
    for declared in parts.classes:
        errors += _class_mismatches(declared, face, namespace)
    if parts.shape is not None:
        source = face.SHAPES.get(block.headings[-1])
        if source is None:
            return [*errors, f"no example of {block.headings[-1]!r} in SHAPES"]
        errors += shape_mismatches(parts.shape.fields, eval(source, namespace))  # noqa: S307
    return errors


def heading_declarations(block: Block) -> list[Declaration]:
    """What the heading right above a block declares."""
    declared = declared_in(block.headings[-1]) if block.headings else None
    return [] if declared is None else [declared]


def find_callable(
    declaration: Declaration,
    headings: tuple[str, ...],
    face: Face,
    namespace: dict[str, Any],
) -> Any:
    """What a declaration is about: a method of the class whose heading it stands under, a
    variable's, or the package's own; None if there is none."""
    first, *rest = declaration.name.split(".")
    package = importlib.import_module(face.PACKAGE)
    owner = owner_class(headings, package)
    starts = [namespace.get(first), getattr(package, first, None)]
    if owner is not None and owner.__name__ != first and not rest:
        starts.insert(0, getattr(owner, first, None))
    for start in starts:
        found = start
        for name in rest:
            found = getattr(found, name, None)
        if found is not None:
            return found
    return None


def owner_class(headings: tuple[str, ...], package: ModuleType) -> type | None:
    """The class that a section is about: of the innermost heading that begins with one's name."""
    for heading in reversed(headings):
        words = heading.replace("`", "").replace("(", " ").split()
        found = getattr(package, words[0], None) if words else None
        if isinstance(found, type):
            return found
    return None


def _class_mismatches(declared: Fields, face: Face, namespace: dict[str, Any]) -> list[str]:
    actual = namespace.get(declared.name)
    if actual is None:
        actual = getattr(importlib.import_module(face.PACKAGE), declared.name, None)
    if not isinstance(actual, type):
        return [f"{declared.name} is not there"]
    known = {name for base in actual.__mro__ for name in getattr(base, "__annotations__", ())}
    return [f"{declared.name} has no {field}" for field in declared.fields if field not in known]


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bool": (bool,),
    "dict": (dict,),
    "list": (list,),
}


def shape_mismatches(expected: dict[str, str], actual: dict[str, Any]) -> list[str]:
    """How a dictionary differs from its declaration: missing and further keys, types."""
    errors = [f"no {key!r}" for key in expected if key not in actual]
    errors += [f"unexpected {key!r}" for key in actual if key not in expected]
    for key, source in expected.items():
        if key not in actual:
            continue
        tree = ast.parse(source, mode="eval").body
        if isinstance(tree, ast.Dict):
            inner = {
                ast.literal_eval(k): ast.unparse(v)
                for k, v in zip(tree.keys, tree.values, strict=True)
                if k is not None
            }
            errors += [f"{key}: {error}" for error in shape_mismatches(inner, actual[key])]
            continue
        name = source.partition("[")[0].lower()
        if name in _TYPES and type(actual[key]) not in _TYPES[name]:
            errors.append(f"{key}: expected {source}, found {type(actual[key]).__name__}")
    return errors
