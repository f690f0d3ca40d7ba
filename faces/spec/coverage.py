"""Which test exercises each name of a reference: found in the tests' source, not written down.

A test counts for a function if it calls or takes it, for a parameter if a call gives it, for a key
if it reads or gives it; see `uses`.  Names that no test uses may be used by an example that runs.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from pathlib import Path

from spec.blocks import Reference, read
from spec.declarations import parts_of
from spec.foreign import items_of
from spec.names import Name, names_of
from spec.run import Face, find_spec
from spec.uses import Uses, uses_of, uses_of_tests

TESTS = Path(__file__).parents[1] / "tests"
_QUOTED = re.compile(r"[A-Za-z_]\w*|--[a-z][a-z-]*|/[\w/.-]+")


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
        names = names_of(reference, importlib.import_module(face.PACKAGE))
        table = Table(face.PACKAGE, names, [*tests_of(face), *examples_of(reference)])
        lines += ["", f"## {face.PACKAGE}", "", f"{len(names)} names.", ""]
        lines += ["| name | kind | section | test |", "|---|---|---|---|"]
        for name in names:
            test = table.find(name)
            if test is None:
                missing.append(name)
            section = name.section.replace("|", "\\|")
            lines.append(f"| `{name.text}` | {name.kind} | {section} | {test or ''} |")
    return "\n".join(lines), missing


class Table:
    """
    Finds tests.

    Args:
        package: the face's import name.
        names: of its reference.
        sources: tests and examples, in the order of preference.
    """

    def __init__(self, package: str, names: Iterable[Name], sources: list[Uses]) -> None:
        self._package = package
        self._sources = sources
        self._index: dict[tuple[str, str], int] = {}
        self._num_parameters: dict[str, int] = {}
        for name in names:
            if name.kind == "parameter":
                index = self._num_parameters.setdefault(name.owner, 0)
                self._index[name.owner, name.name] = index
                self._num_parameters[name.owner] += 1

    def find(self, name: Name) -> str | None:
        """The first that uses a name, of those that also use what it belongs to if there are."""
        found = [source for source in self._sources if self._uses(source, name)]
        if name.kind == "key":
            # An example of the dictionary itself, or a test that reads the key.
            found = [source for source in found if source.section in ("", name.section)]
            found.sort(key=lambda source: source.section != name.section)
        for source in found:
            if not name.owner.isidentifier() or name.owner in source.names:
                return source.id
        return found[0].id if found else None

    def _uses(self, source: Uses, name: Name) -> bool:
        word = name.name
        last = word.rpartition(".")[2]
        match name.kind:
            case "module":
                return any(module == word for module, _ in source.imports)
            case "import":
                return any(word == each for _, each in source.imports)
            case "callable" if word.startswith("__"):
                return word.strip("_") in source.names  # __str__ is what str() calls
            case "callable" | "class" if not name.owner and "." not in word:
                return last in source.names and (
                    bool(source.section) or self._imports(source, word)
                )
            case "callable" | "class":
                return last in source.names
            case "parameter":
                index = self._index[name.owner, word]
                return source.passes(name.owner, word, index)
            case "endpoint":
                path = word.partition(" ")[2]
                return source.has_in_text(path)
            case "variable" | "option":
                return source.mentions(word) or any(
                    word in _QUOTED.findall(text) for text in source.strings
                )
            case _:  # fields, keys and what lists explain
                return last in source.names or source.mentions(last)

    def _imports(self, source: Uses, word: str) -> bool:
        """Whether it is the face's: imported from there, or an attribute of the face."""
        return any(
            module.partition(".")[0] == self._package and each in (word, "")
            for module, each in source.imports
        )


def tests_of(face: Face) -> list[Uses]:
    """The tests of a face, those that are run by themselves: `tests/<package>/test_*.py`."""
    return list(uses_of_tests(TESTS / face.PACKAGE))


def examples_of(reference: Reference) -> list[Uses]:
    """The examples of a reference that run, or are compared with what is there."""
    found = []
    for block in reference.blocks:
        id, section = f"test_spec.py[{block.id}]", block.headings[-1]
        if block.language == "python":
            parts = parts_of(block.text)
            uses = uses_of(parts.code, id, section)
            uses.strings |= set() if parts.shape is None else set(parts.shape.fields)
        elif items_of(block):
            continue  # that a name is declared is no use of it
        else:
            words = set(_QUOTED.findall(block.text))
            uses = Uses(id, section, strings={f"{section}\n{block.text}", *words})
        found.append(uses)
    return found
