"""C blocks: declarations are compiled beside the header, examples are compiled, linked and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from spec.blocks import Block
from spec.outcome import Verdict, checked, ran

_FLAGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-unused", "-Wno-missing-declarations")
_STRUCT = re.compile(r"typedef struct \{(.*?)\}\s*(\w+);", re.DOTALL)
_MEMBER = re.compile(r"(\w+);")
_SECONDS = 60


class CExamples:
    """
    Compiles C blocks against a header and a library.

    A prototype that differs from the header's is a conflict to the compiler.  A structure is
    declared by another name, and compared member by member.  An example becomes the body of
    `main`, functions included, which are then GNU C's nested ones; a whole program is run as it is.

    Args:
        header: its name.
        library: the shared object, with the header beside it.
        declared: what stands before `main`.
        before, after: statements around each example.
    """

    def __init__(self, header: str, library: Path, declared: str, before: str, after: str) -> None:
        self._header = header
        self._library = library
        self._declared = declared
        self._before = before
        self._after = after

    def check(self, block: Block) -> Verdict:
        """Run an example, or check a declaration."""
        if "int main(" in block.text:
            return self._run(block, block.text)
        if "Example" not in block.label:
            return checked(self._compile(self._unit(block.text), "-fsyntax-only"))
        body = "\n".join(
            [self._declared, "int main(void) {", self._before, block.text, self._after, "}\n"]
        )
        return self._run(block, self._unit(body))

    def _run(self, block: Block, source: str) -> Verdict:
        program = self._library.with_name(block.id)
        errors = self._compile(
            source, *("-o", str(program), str(self._library), f"-Wl,-rpath,{self._library.parent}")
        )
        is_loud = re.search(r"\b(printf|fputs)\(", block.text) is not None
        return ran(errors or _run(program, is_loud))

    def _unit(self, text: str) -> str:
        includes = "#include <stddef.h>\n#include <stdio.h>\n#include <unistd.h>\n"
        return f'{includes}#include "{self._header}"\n{_compared(text)}'

    def _compile(self, source: str, *options: str) -> list[str]:
        include = f"-I{self._library.parent}"
        done = subprocess.run(
            [shutil.which("gcc") or "gcc", *_FLAGS, include, "-xc", "-", "-xnone", *options],
            input=source,
            capture_output=True,
            text=True,
            check=False,
        )
        return [done.stderr] if done.returncode else []


def _compared(text: str) -> str:
    """The same, where structures have names of their own and must be like the header's."""
    for structure in _STRUCT.finditer(text):
        name = structure[2]
        lines = [f"typedef struct {{{structure[1]}}} Printed{name};"]
        lines.append(f'_Static_assert(sizeof(Printed{name}) == sizeof({name}), "size of {name}");')
        for member in _MEMBER.findall(structure[1]):
            mine, theirs = f"(({name} *)0)->{member}", f"((Printed{name} *)0)->{member}"
            lines += [
                f"_Static_assert(offsetof({name}, {member}) == offsetof(Printed{name}, {member}) "
                f'&& _Generic({mine}, __typeof__({theirs}): 1, default: 0), "{name}.{member}");'
            ]
        text = text.replace(structure[0], "\n".join(lines))
    return text


def _run(program: Path, is_loud: bool) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [program],
        capture_output=True,
        text=True,
        env=environment,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        return [f"it ended with {done.returncode}: {done.stderr}"]
    return ["it printed nothing"] if is_loud and not done.stdout.strip() else []
