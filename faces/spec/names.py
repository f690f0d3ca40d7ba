"""Every name that a reference gives to something a program can use."""

from __future__ import annotations

import ast
import json
import re
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from spec.blocks import Block, Reference
from spec.declarations import Declaration, declared_in, parts_of
from spec.foreign import Item, items_of
from spec.run import owner_class


@dataclass(frozen=True)
class Name:
    """
    A name.

    Args:
        section: the heading it stands under.
        kind: "callable", "parameter", "class", "field", "key", "module", "import", "endpoint",
            "variable", "option", "entry", "C callable" or "C class".
        owner: what it belongs to, "" for nothing.
        name: itself.
    """

    section: str
    kind: str
    owner: str
    name: str

    @property
    def text(self) -> str:
        """As a table shows it."""
        return f"{self.owner}.{self.name}" if self.owner else self.name


_ENDPOINT = re.compile(r"\b(GET|POST|PUT|DELETE|PATCH) (/[^\s?`]*)")
_VARIABLE = re.compile(r"^(?:export )?([A-Z][A-Z0-9_]+)=")
_OPTION = re.compile(r"(?<!\S)(--[a-z][a-z0-9-]*)")
_IDENTIFIER = re.compile(r"[A-Za-z_][\w.]*")


def names_of(reference: Reference, package: ModuleType) -> list[Name]:
    """
    Every name, once, in the order of the reference.

    Args:
        reference: where they are.
        package: the face, which tells classes from other words in headings.
    """
    found: dict[tuple[str, str], Name] = {}
    parameters: set[tuple[str, str]] = set()
    for name in _all(reference, package):
        if name.kind == "parameter":
            parameters.add((name.section, name.name))
        elif name.kind == "entry" and (name.section, name.name) in parameters:
            continue  # the list explains it
        if not name.name.startswith("_") or name.name.startswith("__"):
            found.setdefault((name.owner, name.name), name)
    return list(found.values())


def _all(reference: Reference, package: ModuleType) -> Iterator[Name]:
    for headings in reference.headings:
        yield from _of_heading(headings, package)
    for block in reference.blocks:
        if block.language == "python":
            yield from _of_python(block, package)
        elif block.language in ("json", "javascript", "http"):
            yield from _of_wire(block)
        elif block.language in ("bash", "sh", "shell"):
            yield from _of_shell(block)
        elif block.language == "yaml":
            yield from _of_yaml(block)
        for item in items_of(block):
            yield from _of_item(block, item)
    for entry in reference.entries:
        # "- `Dict`: ..." is what is returned.
        if _IDENTIFIER.fullmatch(entry.name) and not hasattr(typing, entry.name):
            declared = declared_in(entry.headings[-1])
            owner = _owner(entry.headings, package) if declared is None else declared.last_name
            yield Name(entry.headings[-1], "entry", "" if "." in entry.name else owner, entry.name)


def _of_heading(headings: tuple[str, ...], package: ModuleType) -> Iterator[Name]:
    section = headings[-1]
    if match := _ENDPOINT.search(section):
        yield Name(section, "endpoint", "", match[0])
    declared = declared_in(section)
    if declared is not None:
        yield from _of_declaration(section, _owner(headings[:-1], package), declared)


def _of_declaration(section: str, owner: str, declared: Declaration) -> Iterator[Name]:
    if owner == declared.name or "." in declared.name:
        owner = ""
    yield Name(section, "callable", owner, declared.name)
    for parameter in declared.parameters:
        yield Name(section, "parameter", declared.last_name, parameter)


def _of_python(block: Block, package: ModuleType) -> Iterator[Name]:
    section = block.headings[-1]
    parts = parts_of(block.text)
    for declared in parts.declarations:
        yield from _of_declaration(section, _owner(block.headings, package), declared)
    for each in parts.classes:
        yield Name(section, "class", "", each.name)
        yield from (Name(section, "field", each.name, field) for field in each.fields)
    if parts.shape is not None:
        yield from (Name(section, "key", section, key) for key in parts.shape.fields)
    if not parts.code:
        return
    for node in ast.walk(ast.parse(parts.code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield Name(section, "module", "", node.module)
            yield from (Name(section, "import", "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Attribute):
            yield Name(section, "entry", "", ast.unparse(node.value))


def _of_wire(block: Block) -> Iterator[Name]:
    for match in _ENDPOINT.finditer(block.text):
        yield Name(block.headings[-1], "endpoint", "", match[0])
    try:
        content = json.loads(block.text.replace("{...}", "{}").replace("[...]", "[]"))
    except ValueError:
        return
    section = block.headings[-1]
    yield from (Name(section, "key", section, key) for key in _keys(content))


def _keys(content: Any) -> Iterable[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield key
            yield from _keys(value)
    elif isinstance(content, list):
        for value in content:
            yield from _keys(value)


def _of_shell(block: Block) -> Iterator[Name]:
    for line in block.text.splitlines():
        if match := _VARIABLE.match(line):
            yield Name(block.headings[-1], "variable", "", match[1])
        if not line.lstrip().startswith("#"):
            for option in _OPTION.findall(line):
                yield Name(block.headings[-1], "option", "", option)


def _of_yaml(block: Block) -> Iterator[Name]:
    section = ""
    for line in block.text.splitlines():
        if match := re.match(r"(\s*)([a-z_]+):", line):
            section = match[2] if not match[1] else section
            owner = "" if not match[1] else section
            yield Name(block.headings[-1], "key", owner, match[2])


def _of_item(block: Block, item: Item) -> Iterator[Name]:
    section = block.headings[-1]
    kind = "class" if item.kind == "type" else item.kind
    is_own = block.language == "c" and kind != "field"  # reached by linking, not by importing
    yield Name(section, f"C {kind}" if is_own else kind, item.owner, item.name)
    for parameter in item.parameters:
        yield Name(section, "parameter", item.name, parameter)


def _owner(headings: tuple[str, ...], package: ModuleType) -> str:
    owner = owner_class(headings, package)
    return "" if owner is None else owner.__name__
