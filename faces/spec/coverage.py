"""Which test exercises each name of a reference: found in the tests' source, not written down.

A test counts for a name if it mentions it, as an identifier, a keyword or in a string, together
with what the name belongs to; names that no test mentions may be exercised by an example that runs.
"""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import dataclass
from pathlib import Path

from spec.blocks import Reference, read
from spec.declarations import parts_of
from spec.names import Name, names_of
from spec.run import Face, find_spec

TESTS = Path(__file__).parents[1] / "tests"
_WORD = re.compile(r"[A-Za-z_]\w*|--[a-z][a-z-]*|/[\w/.-]+")


@dataclass(frozen=True)
class Mentions:
    """A test, or an example and the section it stands in, and the words in it."""

    id: str
    words: frozenset[str]
    section: str = ""


def coverage(folder: Path, chosen: list[Face]) -> tuple[str, list[Name]]:
    """
    The table of all names and the tests that exercise them.

    Args:
        folder: of the references.
        chosen: the faces to look at.

    Returns:
        Markdown, and the names that no test exercises.
    """
    lines = [
        "# What is tested",
        "",
        "Every name of each reference, and a test that exercises it. Made by "
        "`python -m spec coverage FOLDER`.",
    ]
    missing: list[Name] = []
    for face in chosen:
        reference = read(find_spec(folder, face))
        sources = [*tests_of(face), *examples_of(reference)]
        names = names_of(reference, importlib.import_module(face.PACKAGE))
        lines += ["", f"## {face.PACKAGE}", "", f"{len(names)} names.", ""]
        lines += ["| name | kind | section | test |", "|---|---|---|---|"]
        for name in names:
            test = find_test(name, sources)
            if test is None:
                missing.append(name)
            section = name.section.replace("|", "\\|")
            lines.append(f"| `{name.text}` | {name.kind} | {section} | {test or ''} |")
    return "\n".join(lines), missing


def find_test(name: Name, sources: list[Mentions]) -> str | None:
    """The first test that mentions a name with what it belongs to."""
    wanted = set(_WORD.findall(name.name.rpartition(".")[2] if name.kind != "module" else ""))
    if name.kind == "module":
        wanted = set(name.name.split("."))
    if name.kind == "endpoint":
        wanted = {name.name.partition(" ")[2]}
    if name.kind == "callable" and name.name.startswith("__"):
        wanted = {name.name.strip("_")}  # __str__ is what str() calls
    owner = {name.owner} if name.owner.isidentifier() else set()
    if name.kind == "key":
        # An example of the dictionary itself, or a test that reads the key.
        same = [source for source in sources if source.section == name.section]
        sources = [*same, *(source for source in sources if not source.section)]
    for needed in (wanted | owner, wanted):
        for source in sources:
            if needed <= source.words:
                return source.id
        if name.kind == "parameter":
            return None  # of another callable it would be another parameter
    return None


def tests_of(face: Face) -> list[Mentions]:
    """The tests of a face, those that are run by themselves: `tests/<package>/test_*.py`."""
    found = []
    for path in sorted((TESTS / face.PACKAGE).glob("test_*.py")):
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                words = _words(node) | (_imports(tree) & _words(node))
                words |= {part for module in _modules(tree, words) for part in module.split(".")}
                found.append(Mentions(f"{path.name}::{node.name}", frozenset(words)))
    return found


def examples_of(reference: Reference) -> list[Mentions]:
    """The examples of a reference that run."""
    found = []
    for block in reference.blocks:
        section = block.headings[-1]
        if block.language == "python":
            parts = parts_of(block.text)
            words = _words(ast.parse(parts.code)) if parts.code else set()
            words |= set() if parts.shape is None else set(parts.shape.fields)
            words |= {field for each in parts.classes for field in (each.name, *each.fields)}
        else:
            words = set(_WORD.findall(f"{section} {block.text}"))
        if words:
            found.append(Mentions(f"test_spec.py[{block.id}]", frozenset(words), section))
    return found


def _words(tree: ast.AST) -> set[str]:
    words: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            words.add(node.id)
        elif isinstance(node, ast.Attribute):
            words.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg:
            words.add(node.arg)
        elif isinstance(node, ast.ImportFrom) and node.module:
            words |= {*node.module.split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words |= set(_WORD.findall(node.value))
    return words


def _imports(tree: ast.Module) -> set[str]:
    return {
        alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def _modules(tree: ast.Module, words: set[str]) -> set[str]:
    """Modules from which something is imported that these words use."""
    return {
        node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        and node.module
        and any(alias.name in words for alias in node.names)
    }
