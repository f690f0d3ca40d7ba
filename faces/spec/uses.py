"""What tests and examples do with names, as their syntax trees have it: comments and docstrings
are no evidence, and a word in a text is none for a function."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_C_TEXT = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"', re.DOTALL)
_C_WORD = re.compile(r"[A-Za-z_]\w*")
_C_CALL = re.compile(r"\b([A-Za-z_]\w*)\(([^();]+)\)")


@dataclass
class Uses:
    """
    What a test does, with the fixtures and helpers of its folder that it uses.

    Args:
        id: of the test, or of the example.
        section: the heading that an example stands under.
        names: loaded, accessed as attributes, or annotated with.
        imports: modules that are imported from, dotted, and names that come from there.
        keywords: of calls, each with the last part of what is called.
        positional: of what is called, the most arguments that were given by position.
        strings: constants, but for docstrings; those before a key of a dictionary or in an index
            as well.
    """

    id: str
    section: str = ""
    names: set[str] = field(default_factory=set)
    imports: set[tuple[str, str]] = field(default_factory=set)
    keywords: set[tuple[str, str]] = field(default_factory=set)
    positional: dict[str, int] = field(default_factory=dict)
    strings: set[str] = field(default_factory=set)

    @property
    def all_keywords(self) -> set[str]:
        """Keywords of any call."""
        return {keyword for _, keyword in self.keywords}

    def passes(self, callee: str, parameter: str, index: int) -> bool:
        """Whether a call of that name gives this argument: by keyword, position, or in `**`."""
        return (
            (callee, parameter) in self.keywords
            or self.positional.get(callee, 0) > index
            or ((callee, "**") in self.keywords and self.mentions(parameter))
        )

    def mentions(self, word: str) -> bool:
        """Whether it is a text's whole, or a keyword of any call, such as `dict(word=1)`."""
        return word in self.strings or word in self.all_keywords

    def has_in_text(self, part: str) -> bool:
        """Whether a text contains it."""
        return any(part in text for text in self.strings)

    def add(self, tree: ast.AST) -> None:
        """What a piece of a program does."""
        docstrings = set(_docstrings(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                self.names.add(node.id)
            elif isinstance(node, ast.arg):
                self.names.add(node.arg)
            elif isinstance(node, ast.Attribute):
                self.names.add(node.attr)
            elif isinstance(node, ast.Call):
                self._add_call(node)
            elif isinstance(node, ast.ImportFrom) and node.module:
                self.imports |= {(node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                self.imports |= {(alias.name, "") for alias in node.names}
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and node not in docstrings
            ):
                self.strings.add(node.value)

    def _add_call(self, node: ast.Call) -> None:
        callee = _last_name(node.func)
        self.keywords |= {(callee, keyword.arg or "**") for keyword in node.keywords}
        given = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
        self.positional[callee] = max(self.positional.get(callee, 0), len(given))
        if callee in ("partial", "to_thread", "submit") and node.args:  # calls its first argument
            inner = _last_name(node.args[0])
            self.keywords |= {(inner, keyword.arg or "**") for keyword in node.keywords}
            self.positional[inner] = max(self.positional.get(inner, 0), len(given) - 1)


def uses_of(code: str, id: str, section: str = "") -> Uses:
    """What an example does."""
    uses = Uses(id, section)
    uses.add(ast.parse(code))
    return uses


def uses_of_tests(folder: Path) -> Iterator[Uses]:
    """What each test of a folder does."""
    conftest = folder / "conftest.py"
    shared = _definitions(ast.parse(conftest.read_text())) if conftest.exists() else {}
    for path in sorted(folder.glob("test_*.py")):
        tree = ast.parse(path.read_text())
        definitions = {**shared, **_definitions(tree)}
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                uses = Uses(f"{path.name}::{node.name}")
                for part in _reachable(node, definitions):
                    uses.add(part)
                uses.imports |= set(_used_imports(imports, uses.names))
                for name in sorted(uses.strings):
                    program = folder / "programs" / f"{name}.c"
                    if name.isidentifier() and program.exists():
                        _add_c(uses, program.read_text())
                yield uses


def _add_c(uses: Uses, text: str) -> None:
    """What a C program that a test runs does."""
    code = _C_TEXT.sub(" ", text)
    uses.names |= set(_C_WORD.findall(code))
    for name, arguments in _C_CALL.findall(code):
        uses.positional[name] = max(uses.positional.get(name, 0), arguments.count(",") + 1)


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    """A module's functions, classes and variables, by their names; tests are nobody's helpers."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not node.name.startswith("test_"):
                found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {name.id: node for name in node.targets if isinstance(name, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return found


def _reachable(test: ast.stmt, definitions: dict[str, ast.stmt]) -> list[ast.stmt]:
    """A test, and what it uses of these, directly or not; a fixture is used by its name."""
    found = [test]
    for part in found:
        words = {node.id for node in ast.walk(part) if isinstance(node, ast.Name)}
        words |= {node.arg for node in ast.walk(part) if isinstance(node, ast.arg)}
        found += [node for name, node in definitions.items() if name in words and node not in found]
    return found


def _used_imports(
    imports: Iterable[ast.Import | ast.ImportFrom], names: set[str]
) -> Iterator[tuple[str, str]]:
    for node in imports:
        for alias in node.names:
            bound = (alias.asname or alias.name).partition(".")[0]
            if bound in names:
                module = node.module if isinstance(node, ast.ImportFrom) else alias.name
                yield module or "", alias.name if isinstance(node, ast.ImportFrom) else ""


def _docstrings(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
